"""Which protocol is spoken on a websocket."""

from typing import Any

from tollspan.instrumentation._sockets._live import live_session
from tollspan.instrumentation._sockets._mistral import mistral_session
from tollspan.instrumentation._sockets._openai_live import openai_live
from tollspan.instrumentation._sockets._realtime import realtime_session
from tollspan.instrumentation._sockets._responses import responses
from tollspan.instrumentation._sockets._talk import Message, Talk
from tollspan.instrumentation._sockets._tasks import tasks


def talk_to(url: Any, query: str, message: Message) -> Talk | None:
    """The talk of a connection to `url` that begins with this message; None where it is about something else."""
    by_path = mistral_session(url, query) or realtime_session(url, query) or openai_live(url) or responses(url)
    return by_path or tasks(url, message) or live_session(url, message)
