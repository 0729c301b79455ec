"""Pages for everybody who is logged in."""

import os

from django.conf import settings
from django.core.cache import cache
from django.http import JsonResponse
from django.shortcuts import render

from .models import Message, Product

PRODUCT_LIST_KEY = "product_list"


def product_list(request):
    """The list, cached for the instance's timeout, an empty one too.

    Nothing drops the cached list when products change. That is the fault this demo is about:
    a list that was empty once stays empty until the cache is cleared.
    """
    products = cache.get(PRODUCT_LIST_KEY)
    if products is None:
        products = list(Product.objects.values("name", "price", "stock"))
        cache.set(PRODUCT_LIST_KEY, products)
    return render(request, "chat/product_list.html", {"products": products})


def room(request):
    return render(request, "chat/room.html", {"messages": Message.latest(), "longest": Message.LONGEST})


def whoami(request):
    """Who this instance takes the visitor for, and which cookies the browser sent to it."""
    return JsonResponse(
        {
            "instance": settings.INSTANCE_NAME,
            "user": request.user.get_username(),
            "pid": os.getpid(),
            "session": (request.session.session_key or "")[:6],
            "session_cookie": settings.SESSION_COOKIE_NAME,
            "csrf_cookie": settings.CSRF_COOKIE_NAME,
            "received_cookies": sorted(request.COOKIES),
        }
    )
