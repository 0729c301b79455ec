"""GET /health/: one round trip to the database and one to the cache; with ?write=1 also a write."""

import logging
import os
import secrets

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .models import HealthMark, Product

logger = logging.getLogger(__name__)


@login_not_required
@never_cache
@require_safe
def check(request):
    parts = {
        "database": _try("database", _write_database if request.GET.get("write") == "1" else _read_database),
        "cache": _try("cache", _use_cache),
    }
    broken = [name for name, state in parts.items() if state.startswith("broken")]
    answer = {
        "status": "unhealthy" if broken else "ok",
        "instance": settings.INSTANCE_NAME,
        "pid": os.getpid(),
        "port": int(request.META.get("SERVER_PORT") or settings.LANE.port),  # the port that was really reached
        **parts,
    }
    if broken:
        answer["broken"] = broken
    return JsonResponse(answer, status=503 if broken else 200)


def _try(part, probe):
    try:
        return probe()
    except Exception as error:  # whatever it is, the answer is 503, and the details stay in the log
        logger.warning("health: %s: %s: %s", part, type(error).__name__, error)
        return f"broken: {type(error).__name__}"


def _read_database():
    # A real table: SQLite answers SELECT 1 from a file that it made a moment ago.
    Product.objects.exists()
    return "ok"


def _write_database():
    # SQLite reads happily from a folder in which it cannot write; only this notices.
    HealthMark.objects.update_or_create(pk=1)
    return _read_database()


def _use_cache():
    if settings.LANE.cache_backend == "dummy":
        return "dummy"  # it keeps nothing, and is right not to
    key, value = f"health_check:{secrets.token_hex(8)}", secrets.token_hex(8)
    cache.set(key, value, timeout=10)
    found = cache.get(key)
    cache.delete(key)
    return "ok" if found == value else "broken: value not found again"
