"""/health/ tells the truth: broken parts are really broken here."""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace

from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.test import TransactionTestCase, override_settings

from chat.models import HealthMark


@contextmanager
def database_at(name):
    usual = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual


def dummy_cache():
    return override_settings(
        LANE=replace(settings.LANE, cache_backend="dummy"),
        CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
    )


class Health(TransactionTestCase):
    def test_healthy(self):
        cache.clear()
        answer = self.client.get("/health/", SERVER_PORT="18000")
        self.assertEqual(
            answer.json(),
            {
                "status": "ok",
                "instance": "chat_main",
                "pid": os.getpid(),
                "port": 18000,
                "database": "ok",
                "cache": "ok",
            },
        )
        self.assertEqual(len(answer.cookies), 0)
        self.assertEqual(Session.objects.count(), 0)
        self.assertEqual(len(cache._cache), 0, "a probe leaves no key behind")

    def test_broken_database(self):
        with database_at("/nonexistent/folder/db.sqlite3"):
            answer = self.client.get("/health/")
        self.assertEqual(answer.status_code, 503)
        self.assertEqual(answer.json()["broken"], ["database"])
        self.assertEqual(answer.json()["database"], "broken: OperationalError")
        self.assertEqual(answer.json()["cache"], "ok")
        self.assertNotContains(answer, "unable to open", status_code=503)

    def test_an_empty_database_is_broken_too(self):
        with tempfile.TemporaryDirectory() as folder, database_at(f"{folder}/db.sqlite3"):
            self.assertEqual(self.client.get("/health/").json()["broken"], ["database"])

    def test_broken_cache(self):
        url = "redis://127.0.0.1:1/0"  # nobody listens there
        with override_settings(
            CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}
        ):
            answer = self.client.get("/health/")
        self.assertEqual(answer.status_code, 503)
        self.assertEqual((answer.json()["broken"], answer.json()["cache"]), (["cache"], "broken: ConnectionError"))

    def test_dummy_cache_is_no_fault(self):
        with dummy_cache():
            answer = self.client.get("/health/")
        self.assertEqual((answer.status_code, answer.json()["cache"]), (200, "dummy"))

    def test_write_check_overwrites_one_row(self):
        self.client.get("/health/")
        self.assertEqual(HealthMark.objects.count(), 0)
        for _ in range(3):
            self.assertEqual(self.client.get("/health/?write=1").status_code, 200)
        self.assertEqual(HealthMark.objects.count(), 1)

    def test_only_the_write_check_sees_a_read_only_database(self):
        readable = f"file:{connection.settings_dict['NAME']}?mode=ro"
        with database_at(readable):
            self.assertEqual(self.client.get("/health/").status_code, 200)
            answer = self.client.get("/health/?write=1")
        self.assertEqual((answer.status_code, answer.json()["broken"]), (503, ["database"]))
