"""The fault this demo is about, and the two ways to clear a cache."""

import json
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from unittest import mock

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache, caches
from django.core.cache.backends.redis import RedisCache
from django.core.management import CommandError, call_command
from django.test import Client, TestCase, override_settings

from chat import clearing

EMPTY = "Henüz ürün bulunmuyor"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


class FakeRedis:
    """The two calls that clearing may make; anything else, FLUSHDB above all, is an AttributeError."""

    def __init__(self, *names):
        self.names = list(names)

    def scan_iter(self, match, count):
        start = match.removesuffix("*").replace("\\", "")
        return iter([name.encode() for name in self.names if name.startswith(start)])

    def unlink(self, *names):
        self.names = [name for name in self.names if name not in names]
        return len(names)


@contextmanager
def backend(name, **options):
    lane = replace(settings.LANE, cache_backend=name)
    module = {"redis": "redis.RedisCache", "dummy": "dummy.DummyCache", "file": "filebased.FileBasedCache"}[name]
    default = {"BACKEND": "django.core.cache.backends." + module, "KEY_PREFIX": lane.cache_key_prefix, **options}
    with override_settings(LANE=lane, CACHES={"default": default}):
        yield


class Clearing(TestCase):
    def setUp(self):
        cache.clear()
        call_command("seed_demo", "--no-products", stdout=StringIO())
        self.admin = User.objects.get(username="admin")
        self.client.force_login(self.admin)

    def clear(self, kind, client=None, **fields):
        return (client or self.client).post("/settings/", {"kind": kind, "confirm": "on", **fields})

    def test_the_fault_and_its_cure(self):
        self.assertContains(self.client.get("/"), EMPTY)
        call_command("seed_demo", stdout=StringIO())
        self.assertContains(self.client.get("/"), EMPTY)
        self.assertContains(self.clear("django"), "Django Cache temizlendi")
        page = self.client.get("/")
        self.assertNotContains(page, EMPTY)
        self.assertContains(page, " ₺", count=6)

    def test_form_needs_its_csrf_token(self):
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(self.admin)
        strict.get("/")
        strict.get("/settings/")
        call_command("seed_demo", stdout=StringIO())
        self.assertEqual(self.clear("django", strict).status_code, 403)
        self.assertContains(strict.get("/"), EMPTY)
        token = strict.cookies["csrftoken_chat_main"].value
        self.assertEqual(self.clear("django", strict, csrfmiddlewaretoken=token).status_code, 200)
        self.assertNotContains(strict.get("/"), EMPTY)

    def test_page_shows_the_state_and_says_what_it_will_do(self):
        self.client.get("/")
        page = self.client.get("/settings/")
        for words in (
            "Sistem Ayarları", "🧹 Tüm Cache Türleri", "Django Cache", "Session Cache", "Cache Temizle",
            "Onaylıyorum", "context7_chat_main", "locmem", "1 oturumu kapatır",
        ):  # fmt: skip
            with self.subTest(words):
                self.assertContains(page, words)
        self.assertEqual(page.context["cache"]["keys"], 2, "the list and the cached session")

    def test_nothing_goes_without_confirmation_or_with_an_unknown_kind(self):
        cache.set("kept", 1)
        self.assertContains(self.client.post("/settings/", {"kind": "all"}), "onaylayın", status_code=422)
        self.assertEqual(self.clear("everything").status_code, 422)
        self.assertEqual(cache.get("kept"), 1)

    def test_only_staff(self):
        guest = Client()
        guest.force_login(User.objects.create_user("ayse"))
        cache.set("kept", 1)
        self.assertEqual(guest.get("/settings/").status_code, 403)
        self.assertEqual(self.clear("all", guest).status_code, 403)
        self.assertEqual(cache.get("kept"), 1)

    def test_django_kind_keeps_logins_and_session_kind_keeps_pages(self):
        self.client.get("/")
        self.assertContains(self.clear("django"), "1 anahtar, 0 oturum")
        self.client.get("/")
        self.assertContains(self.clear("session"), "1 anahtar, 1 oturum")
        self.assertIsNotNone(cache.get("product_list"))
        self.assertRedirects(self.client.get("/"), "/login/?next=/")

    def test_all_ends_every_login(self):
        other = Client()
        other.force_login(User.objects.create_user("ayse"))
        self.assertContains(self.clear("all"), "Oturumunuz kapandı")
        self.assertEqual(Session.objects.count(), 0)
        for client in (self.client, other):
            self.assertEqual(client.get("/").status_code, 302)

    def test_one_audit_line(self):
        with self.assertLogs("audit") as logs:
            self.clear("django")
        (record,) = logs.records
        line = json.loads(record.getMessage())
        self.assertEqual((line["who"], line["what"], line["instance"]), ("admin", "clear django", "chat_main"))
        self.assertEqual(line["result"], "keys=0 sessions=0")

    def test_failure_is_told_and_audited(self):
        with mock.patch.object(clearing, "_clear_store", side_effect=ConnectionError("10.0.0.7 is down")):
            with self.assertLogs("audit") as logs, self.assertLogs("chat.system_settings", "ERROR"):
                answer = self.clear("django")
        self.assertNotContains(answer, "10.0.0.7", status_code=503)
        self.assertContains(answer, "Temizlenemedi: ConnectionError", status_code=503)
        self.assertIn("failed: ConnectionError", logs.output[0])

    def test_redis_only_the_own_keys_go(self):
        own = ["context7_chat_main:1:product_list", f"context7_chat_main:1:{clearing.SESSION_KEY}abc"]
        others = ["context7_chat_main:asgi:group:room", "context7_chat_main_2:1:x", "context7_chat_api:1:product_list"]
        expected = {"django": own[1:], "session": own[:1], "all": []}
        for kind, left in expected.items():
            redis = FakeRedis(*own, *others)
            with self.subTest(kind), backend("redis", LOCATION="redis://127.0.0.1:1/0"):
                with mock.patch.object(RedisCache, "_cache", mock.Mock(get_client=lambda *_, **__: redis)):
                    self.assertEqual(clearing.clear(kind).keys, 2 - len(left))
            self.assertEqual(redis.names, left + others)

    def test_locmem_of_another_prefix_stays(self):
        caches["default"].key_prefix, usual = "neighbour", caches["default"].key_prefix
        try:
            cache.set("kept", 1)
        finally:
            caches["default"].key_prefix = usual
        clearing.clear("all")
        self.assertEqual(list(cache._cache), ["neighbour:1:kept"])


class Command(TestCase):
    def setUp(self):
        cache.clear()

    def test_locmem_is_out_of_reach_and_both_remedies_are_named(self):
        for kind in clearing.KINDS:
            Client().force_login(User.objects.get_or_create(username="ayse")[0])
            with self.subTest(kind), self.assertRaises(CommandError) as raised:
                call_command("clear_cache", type=kind)
            self.assertIn("laneway cache clear chat_main", str(raised.exception))
            self.assertIn("laneway restart chat_main", str(raised.exception))
            self.assertEqual(raised.exception.returncode, 1)
            self.assertEqual(Session.objects.count(), 1 if kind == "django" else 0)
            Session.objects.all().delete()

    def test_memory_beside_another_store_is_out_of_reach_but_sessions_are_not_in_it(self):
        beside = {"BACKEND": LOCMEM, "LOCATION": "beside"}
        with backend("dummy"), override_settings(CACHES={**settings.CACHES, "local": beside}):
            call_command("clear_cache", type="session", stdout=StringIO())
            with self.assertRaises(CommandError):
                call_command("clear_cache", type="django")

    def test_dummy_has_nothing_to_clear(self):
        with backend("dummy"):
            output = StringIO()
            call_command("clear_cache", type="all", stdout=output)
        self.assertIn("keeps nothing", output.getvalue())

    def test_file(self):
        with backend("file", LOCATION=settings.LANE.tmpdir + "/cache"):
            self.client.force_login(User.objects.create(username="ayse"))
            cache.set("page", 1)
            call_command("clear_cache", type="session", stdout=StringIO())
            self.assertEqual((cache.get("page"), self.client.get("/").status_code), (1, 302))
            call_command("clear_cache", type="django", stdout=StringIO())
            self.assertIsNone(cache.get("page"))

    def test_unknown_kind(self):
        with self.assertRaises(CommandError):
            call_command("clear_cache", "--type=everything")
