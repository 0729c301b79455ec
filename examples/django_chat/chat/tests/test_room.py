"""The chat room's WebSocket, through the whole ASGI application."""

from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client, TransactionTestCase

from chat.models import Message
from dashboard_project.asgi import application


def socket(client=None, query="", origin=b"http://127.0.0.1"):
    headers = [(b"origin", origin)]
    if client:
        value = client.cookies[settings.SESSION_COOKIE_NAME].value
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={value}".encode()))
    return WebsocketCommunicator(application, f"/ws/chat/{query}", headers=headers)


class Room(TransactionTestCase):
    def setUp(self):
        cache.clear()
        self.ayse, self.ali = self.visitor("ayse"), self.visitor("ali")

    def visitor(self, name):
        client = Client()
        client.force_login(User.objects.create_user(name))
        return client

    def test_what_one_writes_both_read(self):
        async def story():
            one, other = socket(self.ayse), socket(self.ali)
            for each in (one, other):
                self.assertTrue((await each.connect())[0])
            await one.send_json_to({"text": " merhaba "})
            heard = [await one.receive_json_from(), await other.receive_json_from()]
            for each in (one, other):
                await each.disconnect()
            return heard

        first, second = async_to_sync(story)()
        self.assertEqual(first, second)
        self.assertEqual((first["author"], first["text"]), ("ayse", "merhaba"))
        self.assertEqual(Message.objects.get().text, "merhaba")

    def test_anonymous_is_closed_with_4401(self):
        self.assertEqual(async_to_sync(self.closing_code)(socket()), 4401)

    def test_nonsense_is_closed_with_4400(self):
        for nonsense in ("{", "[]", '{"text": 3}', "null"):
            with self.subTest(nonsense):
                self.assertEqual(async_to_sync(self.closing_code)(socket(self.ayse), nonsense), 4400)

    def test_foreign_origin_is_refused(self):
        async def story():
            return await socket(self.ayse, origin=b"http://evil.example").connect()

        self.assertFalse(async_to_sync(story)()[0])

    def test_an_ended_login_ends_the_socket(self):
        async def story():
            one = socket(self.ayse)
            await one.connect()
            await Session.objects.all().adelete()
            await cache.aclear()
            await one.send_json_to({"text": "hala buradayım"})
            return await one.receive_output()

        self.assertEqual(async_to_sync(story)()["code"], 4401)
        self.assertEqual(Message.objects.count(), 0)

    def test_missed_messages_are_sent_on_return(self):
        user = User.objects.get(username="ali")
        seen, missed = Message.post(user, "bir"), Message.post(user, "iki")

        async def story():
            one = socket(self.ayse, query=f"?after={seen.pk}")
            await one.connect()
            message = await one.receive_json_from()
            self.assertTrue(await one.receive_nothing())
            await one.disconnect()
            return message

        self.assertEqual(async_to_sync(story)()["id"], missed.pk)

    async def closing_code(self, communicator, text=None):
        self.assertTrue((await communicator.connect())[0])
        if text is not None:
            await communicator.send_to(text_data=text)
        return (await communicator.receive_output())["code"]
