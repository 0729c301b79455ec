"""Entry point of ASGI servers: pages, and the WebSocket of the chat room."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard_project.multi_server_settings")
pages = get_asgi_application()  # loads the apps: what follows may import models

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402
from django.urls import path  # noqa: E402

from chat.consumers import RoomConsumer  # noqa: E402

sockets = URLRouter([path("ws/chat/", RoomConsumer.as_asgi())])
application = ProtocolTypeRouter(
    # uvicorn serves no files; a web server before it takes these requests away.
    {"http": ASGIStaticFilesHandler(pages), "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))}
)
