"""A provider on a websocket: it says what the test tells it to, and keeps what it hears."""

import asyncio
import gc
import json
import threading
import time

from aiohttp import WSMsgType, web

DROP, CLOSE = "drop", "close"


class SocketServer:
    """Answers each message of a client by what `answers` gives for it: events, sound, or an end of the connection.

    `answers` is a function of a message: a dict, or the bytes of a binary one. `greeting` is said first.
    """

    def __init__(self, answers, greeting=()):
        self.answers, self.greeting = answers, greeting
        self.heard = []
        self._open = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def url(self, path):
        """Where the server is reached by websocket."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def said(self, *kinds):
        """The messages heard of these actions or types."""
        return [m for m in self.heard if isinstance(m, dict) and _kind(m) in kinds]

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _stop(self):
        for socket in tuple(self._open):
            await socket.close()
        await self._runner.cleanup()

    async def _serve(self, request):
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self._open.add(socket)
        try:
            await self._say(request, socket, self.greeting)
            async for message in socket:
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    said = json.loads(message.data) if message.type == WSMsgType.TEXT else message.data
                    self.heard.append(said)
                    await self._say(request, socket, self.answers(said))
        finally:
            self._open.discard(socket)
        return socket

    async def _say(self, request, socket, messages):
        for message in messages:
            if message == DROP:
                request.transport.abort()
            elif message == CLOSE:
                await socket.close()
            elif isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(json.dumps(message, ensure_ascii=False))


def _kind(message):
    return message.get("type") or message.get("header", {}).get("action")


def outcome(case, url):
    """What the application gets; of an exception, its type and text."""
    try:
        return case.run(url)
    except Exception as error:  # noqa: BLE001 - whichever it is, it is to be the same
        return type(error), str(error)


def settled(seen, *, by_collector=False):
    """The one event that ends the one call, as soon as another thread, or the collector, has brought it there."""
    deadline = time.monotonic() + 10
    while not seen.of("commit", "cancel") and time.monotonic() < deadline:
        time.sleep(0.01)
        if by_collector:
            gc.collect()
    assert seen.open_holds == 0
    return seen.end
