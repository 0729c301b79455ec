"""The lane of one instance: every per-instance fact that the settings need.

A fact stands in the environment (laneway puts it there), or it is computed from the instance's
name by the same formula that laneway uses. Nothing here touches a file or needs Django.

    python -m dashboard_project.lane chat_api     # the computed facts, as JSON
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

PROJECT = "context7"
REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULT_INSTANCE = "chat_main"
TIMEOUTS = {"chat_main": 3600, "chat_api": 1800, "chat_websocket": 300}  # seconds
OTHER_TIMEOUT = 3600
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Lane:
    """The facts of one instance; each field is an environment variable's name in lower case."""

    instance_name: str
    host: str
    port: str
    database_url: str = field(repr=False)  # may hold a password
    database_name: str
    cache_backend: str
    cache_url: str = field(repr=False)
    cache_key_prefix: str
    cache_location: str
    cache_timeout: str
    session_cookie_name: str
    csrf_cookie_name: str
    static_root: str
    media_root: str
    tmpdir: str
    log_dir: str
    access_log: str
    secret_key_file: str
    channel_layer_prefix: str
    celery_default_queue: str


def formulas(instance: str, root: Path = REPOSITORY) -> dict[str, str]:
    """The facts as they follow from the name alone."""
    if not NAME.fullmatch(instance):
        raise ValueError(f"instance name {instance!r}: 1 to 32 of a-z, 0-9, _ and -, the first a letter or digit")
    state = root / "var" / instance
    database = f"{state}/db_{instance}.sqlite3"
    own = f"{PROJECT}_{instance}"
    return {
        "DJANGO_SERVER_INSTANCE": instance,
        "INSTANCE_NAME": instance,
        "DATABASE_URL": sqlite_url(database),
        "DATABASE_NAME": database,
        "CACHE_BACKEND": "locmem",
        "CACHE_KEY_PREFIX": own,
        "CACHE_LOCATION": f"{PROJECT}-cache-{instance}",
        "CACHE_TIMEOUT": str(TIMEOUTS.get(instance, OTHER_TIMEOUT)),
        "SESSION_COOKIE_NAME": f"sessionid_{instance}",
        "CSRF_COOKIE_NAME": f"csrftoken_{instance}",
        "STATIC_ROOT": f"{state}/staticfiles_{instance}",
        "MEDIA_ROOT": f"{state}/media_{instance}",
        "TMPDIR": f"{state}/tmp",
        "LOG_DIR": f"{state}/log",
        "ACCESS_LOG": f"{state}/log/access.log",
        "SECRET_KEY_FILE": f"{state}/secrets/secret_key",
        "CHANNEL_LAYER_PREFIX": own,
        "CELERY_DEFAULT_QUEUE": own,
    }


def read(environ: Mapping[str, str], root: Path = REPOSITORY) -> Lane:
    """The facts of the instance that the environment names: given ones first, formulas for the rest."""
    instance = environ.get("DJANGO_SERVER_INSTANCE") or environ.get("INSTANCE_NAME") or DEFAULT_INSTANCE
    facts = formulas(instance, root)
    given = {name: environ[name] for name in facts if environ.get(name)}
    if "DATABASE_URL" in given:
        given.setdefault("DATABASE_NAME", unquote(urlsplit(given["DATABASE_URL"]).path[1:]))
    elif "DATABASE_NAME" in given:
        given["DATABASE_URL"] = sqlite_url(given["DATABASE_NAME"])
    facts |= given
    facts |= {
        "INSTANCE_NAME": instance,
        "HOST": environ.get("HOST") or "127.0.0.1",
        "PORT": environ.get("DJANGO_SERVER_PORT") or environ.get("PORT") or "8000",
        "CACHE_URL": environ.get("CACHE_URL", ""),
    }
    return Lane(**{each.name: facts[each.name.upper()] for each in fields(Lane)})


def sqlite_url(path: str) -> str:
    return "sqlite:///" + quote(path)


if __name__ == "__main__":
    named = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_INSTANCE
    print(json.dumps(formulas(named), indent=2))
