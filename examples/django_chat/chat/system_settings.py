"""/settings/, for staff: the cache's state, and a form that clears it."""

import logging

from django.conf import settings
from django.contrib.auth import logout
from django.core.exceptions import PermissionDenied
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from . import audit, clearing
from .forms import ClearCacheForm

logger = logging.getLogger(__name__)


@never_cache
def page(request):
    if not request.user.is_staff:
        raise PermissionDenied
    form = ClearCacheForm(request.POST or None)
    outcome, status = None, 200
    if request.method == "POST":
        if form.is_valid():
            outcome, status = _clear(request, form.cleaned_data["kind"])
            form = ClearCacheForm()
        else:
            status = 422
    context = {"form": form, "outcome": outcome, "cache": _state() if request.user.is_authenticated else None}
    return render(request, "chat/system_settings.html", context, status=status)


def _clear(request, kind):
    """Clear, say so in the audit log; what to tell the visitor, and the HTTP status."""
    who = request.user.get_username()
    try:
        cleared = clearing.clear(kind)
    except Exception as error:  # an unreachable Redis, most likely: told, audited, and no page of its own
        logger.exception("clearing %s", kind)
        audit.record(who, f"clear {kind}", f"failed: {type(error).__name__}")
        return {"failed": type(error).__name__}, 503
    if kind != "django":
        logout(request)  # this visitor's session went with the others
    audit.record(who, f"clear {kind}", f"keys={cleared.keys} sessions={cleared.sessions}")
    return {"kind": clearing.KINDS[kind], "cleared": cleared}, 200


def _state():
    try:
        keys = clearing.key_count()
    except Exception:
        logger.exception("counting keys")
        keys = None
    return {
        "backend": settings.LANE.cache_backend,
        "prefix": settings.LANE.cache_key_prefix,
        "keys": keys,
        "sessions": clearing.live_sessions(),
        "in_memory": clearing.in_process_memory(),
    }
