"""OpenAI's Live sessions: billed by the seconds that they last.

Wire format: OpenAI's API reference "Live", server events `session.usage.updated` and `session.closed`; their seconds
are those of the whole session so far.
"""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, RequestFacts, ResponseFacts


class _OpenAILive(Flavour):
    """A websocket: its request is the session's configuration, its answer the event that closes it."""

    __slots__ = ()
    name = "openai.live"
    vendor = "openai"
    path_suffixes: tuple[str, ...] = ()
    terminal_marks: tuple[bytes, ...] = (b"session.closed",)
    names_model = False

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. How long it is going to last, nobody knows."""
        return RequestFacts(
            measure=lambda: (bounds.input_bound(body, "initial_items", {}, tools=True)[0], "live session"),
            model=sse.text(body.get("model")),
            stream=True,
            max_output_tokens=0,
            attributes={"gen_ai.request.stream": True},
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`: the facts of one event."""
        return _facts(sse.parsed_object(body))

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. Seconds without the end of their session are those of a part, and none."""
        return _facts(next(sse.newest(received, b'"type"'), {}))

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return _facts(next(sse.newest(tail, b'"type"'), {})).complete


OPENAI_LIVE = _OpenAILive()


def _facts(event: Mapping[str, Any]) -> ResponseFacts:
    facts = ResponseFacts(complete=event.get("type") == "session.closed")
    facts.response_id = sse.text(sse.at(event, "session", "id"))
    seconds = bounds.number(sse.at(event, "usage", "seconds"))
    if facts.complete and seconds is not None and seconds >= 0:
        facts.usage = {"audio_seconds": seconds}
    if facts.complete and (reason := sse.text(event.get("reason"))):
        facts.finish_reasons = (reason,)
    facts.error_type, facts.error_message = sse.failure(event.get("error"))
    return facts
