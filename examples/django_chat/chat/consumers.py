"""The chat room's WebSocket: {"text": ...} in, {"id", "author", "text", "time"} out to everybody."""

import json
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from .models import Message

ROOM = "room"
NOT_LOGGED_IN = 4401
NOT_UNDERSTOOD = 4400


class RoomConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        # Accepted first: a refused handshake would be a bare 403, and the page could not see why.
        await self.accept()
        if not self.scope["user"].is_authenticated:
            await self.close(code=NOT_LOGGED_IN)
            return
        await self.channel_layer.group_add(ROOM, self.channel_name)
        for message in await self._missed():
            await self.send(json.dumps(message))

    async def disconnect(self, code):
        await self.channel_layer.group_discard(ROOM, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        try:
            text = json.loads(text_data or "")["text"].strip()
        except (ValueError, TypeError, KeyError, AttributeError):
            await self.close(code=NOT_UNDERSTOOD)
            return
        if text and await self._still_logged_in():
            message = await database_sync_to_async(Message.post)(self.scope["user"], text)
            await self.channel_layer.group_send(ROOM, {"type": "room.message", "message": message.as_dict()})

    async def room_message(self, event):
        if await self._still_logged_in():
            await self.send(json.dumps(event["message"]))

    async def _missed(self):
        """After a lost connection the page asks for what came after the last message it has seen."""
        after = parse_qs(self.scope["query_string"].decode("latin-1")).get("after", [""])[0]
        return await database_sync_to_async(Message.latest)(after=int(after)) if after.isdecimal() else []

    async def _still_logged_in(self):
        """A login that was ended elsewhere must not live on in a socket that was open."""
        session = self.scope["session"]
        if session.session_key and await session.aexists(session.session_key):
            return True
        await self.close(code=NOT_LOGGED_IN)
        return False
