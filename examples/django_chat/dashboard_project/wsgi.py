"""Entry point of WSGI servers: the pages only, no WebSocket."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard_project.multi_server_settings")
application = get_wsgi_application()
