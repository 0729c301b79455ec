"""Settings of one instance. What differs between instances comes from the lane."""

import os
from importlib.util import find_spec
from pathlib import Path

from . import lane as lanes
from .caching import caches
from .databases import databases
from .secret_files import read_or_make

BASE_DIR = Path(__file__).resolve().parent.parent
LANE = lanes.read(os.environ)
INSTANCE_NAME = LANE.instance_name

SECRET_KEY_FILE = Path(LANE.secret_key_file)
SECRET_KEY = os.environ.get("SECRET_KEY") or read_or_make(SECRET_KEY_FILE)
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"  # a demo that listens on loopback
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ALLOWED_HOSTS += [host.strip() for host in os.environ.get("DJANGO_ALLOWED_HOSTS", "").split(",") if host.strip()]

# The lane's files
DATABASES = databases(LANE)
CACHES = caches(LANE)
STATIC_ROOT = LANE.static_root
MEDIA_ROOT = LANE.media_root
FILE_UPLOAD_TEMP_DIR = LANE.tmpdir
LOG_DIR = LANE.log_dir
ACCESS_LOG = LANE.access_log  # for servers that write one; under laneway a FIFO, so never opened here

for folder in (STATIC_ROOT, MEDIA_ROOT, FILE_UPLOAD_TEMP_DIR, LOG_DIR):
    Path(folder).mkdir(parents=True, exist_ok=True)
if "sqlite3" in DATABASES["default"]["ENGINE"]:
    Path(LANE.database_name).parent.mkdir(parents=True, exist_ok=True)

# Cookies ignore ports: without names of their own, the instances on one host overwrite each other's.
SESSION_COOKIE_NAME = LANE.session_cookie_name
CSRF_COOKIE_NAME = LANE.csrf_cookie_name
# Not the plain `cache` engine: under DummyCache nobody could log in, and a cleared cache would log all out.
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if os.environ.get("CHANNELS_URL") and find_spec("channels_redis"):
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [os.environ["CHANNELS_URL"]], "prefix": LANE.channel_layer_prefix},
    }
CELERY_TASK_DEFAULT_QUEUE = LANE.celery_default_queue

# The same for every instance
INSTALLED_APPS = [
    "daphne",  # first: it brings the ASGI runserver
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chat",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "chat.context.instance",
            ]
        },
    }
]
ROOT_URLCONF = "dashboard_project.urls"
ASGI_APPLICATION = "dashboard_project.asgi.application"
WSGI_APPLICATION = "dashboard_project.wsgi.application"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "product_list"
LOGOUT_REDIRECT_URL = "login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
MEDIA_URL = "/media/"
LANGUAGE_CODE = "tr"
TIME_ZONE = "Europe/Istanbul"
USE_TZ = True

# All lines go to stdout, where the supervisor collects them.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": f"{{asctime}} {{levelname}} {INSTANCE_NAME} {{name}}: {{message}}", "style": "{"},
        "bare": {"format": "%(message)s"},
    },
    # A good health check every few seconds is no news; a bad one is.
    "filters": {
        "no_good_health_checks": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: "GET /health/ 200" not in record.getMessage(),
        },
    },
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "line",
            "filters": ["no_good_health_checks"],
        },
        "audit": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "bare"},
    },
    "root": {"handlers": ["stdout"], "level": "INFO"},
    "loggers": {
        # Django gives these handlers of their own; here they only hand on to the root.
        "django": {"handlers": [], "level": "INFO"},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        "daphne": {"level": "WARNING"},
        "audit": {"handlers": ["audit"], "level": "INFO", "propagate": False},
    },
}
