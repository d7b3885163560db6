"""Responses of realtime sessions, as OpenAI's Realtime API has them, and Qwen's models after it.

Wire format: OpenAI's API reference "Realtime", server events `response.done` and
`conversation.item.input_audio_transcription.completed`; Model Studio's "Qwen-TTS server events" and "Qwen-Omni server
events". Each response bills all that was said before it, cached or not.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts

_IN, _OUT = ("input_token_details", "input_tokens_details"), ("output_token_details", "output_tokens_details")


def _under(places: tuple[str, ...], *path: str) -> tuple[sse.Path, ...]:
    return tuple((place, *path) for place in places)


_PARTS: sse.Parts = (
    ("tokens_cache_read", _under(_IN, "cached_tokens")),
    ("tokens_audio_cache_read", _under(_IN, "cached_tokens_details", "audio_tokens")),
    ("tokens_image_cache_read", _under(_IN, "cached_tokens_details", "image_tokens")),
    ("tokens_audio_in", _under(_IN, "audio_tokens")),
    ("tokens_image_in", _under(_IN, "image_tokens")),
    ("tokens_video_in", _under(_IN, "video_tokens")),
    ("tokens_audio_out", _under(_OUT, "audio_tokens")),
)


class _Realtime(Flavour):
    """A websocket: its request is the session's configuration, its answer the event that ends a response."""

    __slots__ = ("name", "operation", "vendor")
    path_suffixes: tuple[str, ...] = ()
    terminal_marks: tuple[bytes, ...] = (b"response.done", b"input_audio_transcription.completed")
    names_model = False

    def __init__(self, name: str, vendor: str, operation: str = "chat") -> None:
        self.name, self.vendor, self.operation = name, vendor, operation

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Nothing bounds what is going to be heard, and the server holds what was."""
        limits = (sse.count(body.get(key)) for key in ("max_output_tokens", "max_response_output_tokens"))
        said = body.get("output_modalities") or body.get("modalities")
        return RequestFacts(
            measure=partial(_bound, body),
            model=sse.text(body.get("model")),
            stream=True,
            max_output_tokens=next(filter(None, limits), None),
            attributes={"gen_ai.request.stream": True},
            find_units=tuple if said == ["text"] else lambda: ("tokens_audio_out",),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`: the facts of one event."""
        return _facts(sse.parsed_object(body))

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: the last event has all that counts."""
        return _facts(next(sse.newest(received, b'"type"'), {}))

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return _ends(next(sse.newest(tail, b'"type"'), {}))


OPENAI_REALTIME = _Realtime("openai.realtime", "openai")
QWEN_REALTIME = _Realtime("dashscope.realtime", "dashscope")
OPENAI_HEARING = _Realtime("openai.realtime.transcription", "openai", "transcription")
QWEN_HEARING = _Realtime("dashscope.realtime.transcription", "dashscope", "transcription")
"""What hears the user beside the model that answers, or where none does."""


def _bound(body: Mapping[str, Any]) -> InputBound:
    return bounds.input_bound(body, "tools", {}, tools=True)[0], "realtime session"


def _facts(event: Mapping[str, Any]) -> ResponseFacts:
    response = event.get("response")
    status = sse.text(sse.at(response, "status"))
    facts = ResponseFacts(
        complete=_ends(event),
        response_id=sse.text(sse.at(response, "id")) or sse.text(event.get("item_id")),
        finish_reasons=(status,) if status else (),
        usage=_usage(sse.at(response, "usage") or event.get("usage")),
    )
    failed = sse.at(response, "status_details", "error") if status == "failed" else None
    facts.error_type, facts.error_message = sse.failure(failed or event.get("error"))
    if status == "failed" and facts.error_type is None:
        facts.error_type = status
    return facts


def _ends(event: Mapping[str, Any]) -> bool:
    kind = event.get("type")
    return kind == "response.done" or (isinstance(kind, str) and kind.endswith("input_audio_transcription.completed"))


def _usage(raw: object) -> dict[str, float] | None:
    """Give tokens, or the characters or seconds by which some models are billed."""
    if not isinstance(raw, dict):
        return None
    characters, seconds = sse.count(raw.get("characters")), bounds.number(raw.get("seconds", raw.get("duration")))
    if characters is not None:
        return {"characters_in": characters}
    tokens_in, tokens_out = sse.count(raw.get("input_tokens")), sse.count(raw.get("output_tokens"))
    if tokens_in is not None and tokens_out is not None:
        return {"tokens_in": tokens_in, "tokens_out": tokens_out, **sse.counts(raw, _PARTS)}
    return {"audio_seconds": seconds} if seconds is not None and seconds >= 0 else None
