"""Settings of the tests: the same, with a lane in a temporary folder."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from . import lane as lanes

ROOT = Path(tempfile.mkdtemp(prefix="django_chat_tests_"))
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)

for name in ("SECRET_KEY", "CACHE_URL", "CHANNELS_URL", "DJANGO_ALLOWED_HOSTS", "DJANGO_DEBUG"):
    os.environ.pop(name, None)
os.environ.update(lanes.formulas(lanes.DEFAULT_INSTANCE, ROOT))

from .multi_server_settings import *  # noqa: E402, F403

# A file, as in real life: a connection can be closed, and a second process can look in.
DATABASES["default"]["TEST"] = {"NAME": str(ROOT / "test.sqlite3")}  # noqa: F405
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick, for tests only
# Provoked faults would fill the screen; assertLogs still sees them.
LOGGING["handlers"] = {name: {"class": "logging.NullHandler"} for name in LOGGING["handlers"]}  # noqa: F405
