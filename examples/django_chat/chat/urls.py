"""Addresses of the app."""

from django.urls import path

from . import health, system_settings, views

urlpatterns = [
    path("", views.product_list, name="product_list"),
    path("chat/", views.room, name="room"),
    path("whoami/", views.whoami, name="whoami"),
    path("settings/", system_settings.page, name="system_settings"),
    path("health/", health.check, name="health"),
]
