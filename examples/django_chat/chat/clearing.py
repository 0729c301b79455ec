"""Clearing this instance's cache and sessions, and nobody else's.

Never `cache.clear()` on Redis: Django makes it FLUSHDB, which takes the neighbours' keys along.
"""

import re
from dataclasses import dataclass

from django.conf import settings
from django.contrib.sessions.backends.cached_db import KEY_PREFIX as SESSION_KEY
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from django.utils.timezone import now

KINDS = {"all": "🧹 Tüm Cache Türleri", "django": "Django Cache", "session": "Session Cache"}
BATCH = 500


@dataclass(frozen=True)
class Cleared:
    keys: int | None  # None: the store does not tell
    sessions: int


def clear(kind: str) -> Cleared:
    """Clear the own keys but sessions (django), all sessions (session), or both (all)."""
    known_sessions = list(Session.objects.values_list("session_key", flat=True))
    rows = 0
    if kind != "django":
        # The rows first: a visitor in between would have a cached copy made again from its row.
        rows, _ = Session.objects.all().delete()
    counts = [_clear_store(caches[alias], kind, known_sessions) for alias in settings.CACHES]
    return Cleared(None if None in counts else sum(counts), rows)


def key_count() -> int | None:
    """How many keys the instance has in its caches, as far as this process can see."""
    stores = [caches[alias] for alias in settings.CACHES]
    names = [_names(store) for store in stores]
    return None if None in names else sum(sum(1 for _ in each) for each in names)


def live_sessions() -> int:
    return Session.objects.filter(expire_date__gt=now()).count()


def in_process_memory(kind: str = "all") -> bool:
    """Whether some of what `kind` clears lives in the server's memory, out of other processes' reach."""
    aliases = [settings.SESSION_CACHE_ALIAS] if kind == "session" else settings.CACHES
    return any(isinstance(caches[alias], LocMemCache) for alias in aliases)


def _clear_store(store, kind, known_sessions):
    names = _names(store)
    if names is not None:
        wanted = [name for name in names if kind == "all" or _is_session(name) == (kind == "session")]
        return sum(_delete(store, wanted[start : start + BATCH]) for start in range(0, len(wanted), BATCH))
    # A folder or a table of this instance alone. Cached sessions may go with the rest: the rows stay.
    if kind == "session":
        store.delete_many(SESSION_KEY + key for key in known_sessions)
    else:
        store.clear()
    return None


def _names(store):
    """Full names (prefix:version:key) of the own keys, or None where the store has no names to list."""
    own = re.compile(re.escape(store.key_prefix) + r":\d+:")  # not the channel layer's, which share the prefix
    if isinstance(store, DummyCache):
        return []
    if isinstance(store, LocMemCache):
        return [name for name in list(store._cache) if own.match(name)]
    if isinstance(store, RedisCache):
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", store.key_prefix) + ":*"
        found = (name.decode() for name in _client(store).scan_iter(match=pattern, count=1000))
        return (name for name in found if own.match(name))
    return None


def _delete(store, names):
    if isinstance(store, RedisCache):
        return _client(store).unlink(*names)
    with store._lock:
        return sum(store._delete(name) for name in names)


def _is_session(name):
    return name.split(":", 2)[2].startswith(SESSION_KEY)


def _client(store):
    return store._cache.get_client(None, write=True)
