"""Who may see which page, and what the pages say."""

import os

from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import TestCase

from chat.models import Message, Product


class Pages(TestCase):
    def setUp(self):
        cache.clear()
        self.user = User.objects.create_user("ayse", password="parola")

    def test_everything_but_health_and_login_needs_a_login(self):
        for address in ("/", "/chat/", "/whoami/", "/settings/"):
            with self.subTest(address):
                self.assertRedirects(self.client.get(address), f"/login/?next={address}")
        for address in ("/health/", "/login/"):
            with self.subTest(address):
                self.assertEqual(self.client.get(address).status_code, 200)

    def test_login_sets_the_instance_s_own_cookies(self):
        self.client.get("/login/")
        answer = self.client.post("/login/", {"username": "ayse", "password": "parola"}, follow=True)
        self.assertContains(answer, "Ürün Listesi")
        self.assertEqual(set(self.client.cookies), {"sessionid_chat_main", "csrftoken_chat_main"})

    def test_product_list(self):
        self.client.force_login(self.user)
        self.assertContains(self.client.get("/"), "Henüz ürün bulunmuyor")
        cache.clear()
        Product.objects.create(name="Çay <b>", price="1234.50", stock=3)
        page = self.client.get("/")
        self.assertContains(page, "Çay &lt;b&gt;")
        self.assertContains(page, "1.234,50")

    def test_a_cached_product_list_asks_the_database_less(self):
        Product.objects.create(name="Çay", price="1234.50", stock=3)
        self.client.force_login(self.user)
        with self.settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
            with self.assertNumQueries(3):  # the session, the user, the products
                self.client.get("/")
        self.client.get("/")
        with self.assertNumQueries(1):  # the user
            self.client.get("/")

    def test_whoami(self):
        self.client.force_login(self.user)
        session = self.client.cookies["sessionid_chat_main"].value
        answer = self.client.get("/whoami/", headers={"cookie": f"sessionid_chat_main={session}; sessionid_other=x"})
        self.assertEqual(
            answer.json(),
            {
                "instance": "chat_main",
                "user": "ayse",
                "pid": os.getpid(),
                "session": session[:6],
                "session_cookie": "sessionid_chat_main",
                "csrf_cookie": "csrftoken_chat_main",
                "received_cookies": ["sessionid_chat_main", "sessionid_other"],
            },
        )

    def test_room_shows_stored_messages(self):
        Message.post(self.user, "<i>merhaba</i>")
        self.client.force_login(self.user)
        self.assertContains(self.client.get("/chat/"), "&lt;i&gt;merhaba&lt;/i&gt;")

    def test_old_messages_are_dropped(self):
        Message.objects.bulk_create(Message(author=self.user, text=str(n)) for n in range(Message.KEPT))
        Message.post(self.user, "x" * 600)
        self.assertEqual(Message.objects.count(), Message.KEPT)
        self.assertFalse(Message.objects.filter(text="0").exists())
        self.assertEqual(len(Message.objects.last().text), Message.LONGEST)
