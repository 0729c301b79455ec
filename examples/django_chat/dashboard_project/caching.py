"""Django's CACHES, from the CACHE_* facts."""

from pathlib import Path

from .lane import Lane

BACKENDS = "django.core.cache.backends."


def caches(lane: Lane) -> dict:
    common = {"KEY_PREFIX": lane.cache_key_prefix, "TIMEOUT": int(lane.cache_timeout)}
    local = {"BACKEND": BACKENDS + "locmem.LocMemCache", "LOCATION": lane.cache_location, **common}
    match lane.cache_backend:
        case "locmem":
            return {"default": local}
        case "redis":
            return {"default": _redis(lane, common)}
        case "redis+locmem":
            return {"default": _redis(lane, common), "local": local}
        case "file":
            # A bare name becomes a folder of this lane, beside its temporary one.
            folder = Path(lane.tmpdir).parent / lane.cache_location
            return {"default": {"BACKEND": BACKENDS + "filebased.FileBasedCache", "LOCATION": str(folder), **common}}
        case "database":
            return {"default": {"BACKEND": BACKENDS + "db.DatabaseCache", "LOCATION": lane.cache_location, **common}}
        case "dummy":
            return {"default": {"BACKEND": BACKENDS + "dummy.DummyCache", **common}}
    raise ValueError(f"CACHE_BACKEND {lane.cache_backend!r}: use redis, redis+locmem, locmem, file, database or dummy")


def _redis(lane: Lane, common: dict) -> dict:
    if not lane.cache_url:
        raise ValueError(f"CACHE_BACKEND {lane.cache_backend} needs CACHE_URL")
    return {"BACKEND": BACKENDS + "redis.RedisCache", "LOCATION": lane.cache_url, **common}
