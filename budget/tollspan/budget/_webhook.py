"""The webhook: alerts as JSON, posted from a thread of its own, so that no call and no commit ever waits for them.

Its client is `urllib.request` of the standard library. A plain install has httpx2 and requests too, but both log the
URLs that they ask, and the URL of a webhook is a secret: here it stands in no log record and in no error.
"""

import logging
import os
import random
import threading
import time
from base64 import b64encode
from functools import cache
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from opentelemetry.instrumentation.utils import suppress_instrumentation

_log = logging.getLogger("tollspan.budget")

TIMEOUT_S = 10.0
"""How long one try may wait for the server."""
MOST = 100
"""How many alerts wait at most."""

_TRIES = 5
_BACKOFF_S = 1.0  # before the second try, and twice as long before each one that follows
_LONGEST_PAUSE_S = 60.0
_PAUSE_AT_END_S = 0.2

# A child that is forked while a thread loads this codec would never find it, and no host either.
"".encode("idna")


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect is an error: the request that follows one would be a GET without a body."""


class Webhook:
    """Posts to one URL, in order, in each process from a thread of its own.

    A try that meets no server, 429 or 5xx is repeated, up to five tries with growing pauses; what does not arrive then
    is logged, counted in `lost` and left out, and so is what finds the queue full.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pid = 0
        self.lost = 0
        self.start()

    def start(self) -> None:
        """Begin in this process; a forked child begins anew, for what was queued belongs to its parent."""
        if self._pid != os.getpid():
            self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
            self._ending = threading.Event()
            threading.Thread(target=self._run, name="tollspan-webhook", daemon=True).start()
            self._pid = os.getpid()

    def send(self, body: bytes) -> None:
        """Queue a JSON text; never blocks."""
        self.start()
        if self._queue.qsize() < MOST:
            self._queue.put(body)
        else:
            self._lose("it is too slow")

    def drain(self, timeout_s: float) -> None:
        """Wait at most so many seconds until all has been sent or given up; pauses between tries are short from now."""
        if self._pid == os.getpid():
            self._ending.set()
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout_s)

    def _run(self) -> None:
        with suppress_instrumentation():
            opener = build_opener(_NoRedirects)
            while True:
                body = self._queue.get()
                if isinstance(body, threading.Event):
                    body.set()
                    continue
                try:
                    self._deliver(opener.open, body)
                except Exception as error:  # noqa: BLE001 - the next alert is sent all the same; its text may have the URL
                    self._lose(type(error).__name__)

    def _deliver(self, open_url: Any, body: bytes) -> None:
        for number in range(1, _TRIES + 1):
            wrong, pause = _post(open_url, _request(self._url, body))
            if wrong is None:
                return
            if pause is None or number == _TRIES:
                self._lose(wrong)
                return
            pause = max(pause, _BACKOFF_S * 2 ** (number - 1) * random.uniform(0.5, 1.5))  # noqa: S311 - only spreads the tries
            if self._ending.wait(min(pause, _LONGEST_PAUSE_S)):
                time.sleep(_PAUSE_AT_END_S)

    def _lose(self, why: str) -> None:
        self.lost += 1
        _log.error("an alert did not reach the webhook: %s; %d in all in this process", why, self.lost)


@cache
def webhook_to(url: str) -> Webhook:
    """The webhook of this process to a URL."""
    return Webhook(url)


def _request(url: str, body: bytes) -> Request:
    """The request; a name and a password in the URL are sent as Basic authentication."""
    parts = urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": "tollspan"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return Request(bare, body, headers, method="POST")  # noqa: S310 - the setting takes http and https only


def _post(open_url: Any, request: Request) -> tuple[str | None, float | None]:
    """What went wrong, None for nothing; and how many seconds to wait at the least, None where no other try helps."""
    try:
        open_url(request, timeout=TIMEOUT_S).close()
    except HTTPError as error:
        with error:
            busy = error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR
            after = error.headers.get("Retry-After", "")
            return f"HTTP status {error.code}", (float(after) if after.isdecimal() else 0.0) if busy else None
    except URLError as error:
        return type(error.reason).__name__, 0.0
    except OSError as error:
        return type(error).__name__, 0.0
    return None, None
