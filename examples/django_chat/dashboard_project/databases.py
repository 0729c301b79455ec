"""Django's DATABASES, from DATABASE_URL and DATABASE_NAME."""

from urllib.parse import unquote, urlsplit

from .lane import PROJECT, Lane


def databases(lane: Lane) -> dict:
    url = urlsplit(lane.database_url)
    if url.scheme == "sqlite":
        return {"default": _sqlite(lane)}
    if url.scheme in ("postgres", "postgresql"):
        return {"default": _postgres(lane, url)}
    raise ValueError(f"DATABASE_URL: {url.scheme or 'no scheme'!r} is neither sqlite nor postgres")


def _sqlite(lane: Lane) -> dict:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": lane.database_name,
        # A transaction that reads and then writes is refused at once, whatever the timeout,
        # when another writer came in between; IMMEDIATE makes it wait instead.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }


def _postgres(lane: Lane, url) -> dict:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": lane.database_name,
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": unquote(url.hostname or ""),
        "PORT": str(url.port or ""),
        # A pool in each process. CONN_MAX_AGE would leak connections under ASGI, where each request has a thread of its
        # own, and Django refuses it beside a pool.
        "OPTIONS": {
            "application_name": f"{PROJECT}_{lane.instance_name}",
            # Shorter than the health check waits (2 s): when the server is gone, /health/ says so in time.
            "pool": {"min_size": 1, "max_size": 5, "timeout": 1.5},
        },
        # A connection that a restart of the server has cut is replaced before somebody gets it.
        "CONN_HEALTH_CHECKS": True,
    }
