"""OpenAI's images and speech: billed by the piece, the second or the character, which a request does not tell."""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai_chat import OpenAIChat

_PARTS: sse.Parts = (("tokens_image_in", (("input_tokens_details", "image_tokens"),)),)
_TERMINAL = frozenset(
    {"image_generation.completed", "image_edit.completed", "speech.audio.done", "transcript.text.done"}
)


class _OpenAIMedia(OpenAIChat):
    """`POST .../images/...` and `.../audio/...`. Only the newest image models tell their usage, in tokens."""

    __slots__ = ()
    name = "openai.media"
    operation = "generate_content"
    terminal_marks: tuple[bytes, ...] = (b".completed", b".done")
    path_suffixes: tuple[str, ...] = (
        "/images/generations", "/images/edits", "/images/variations",
        "/audio/speech", "/audio/transcriptions", "/audio/translations",
    )  # fmt: skip

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. A form, as of a transcription, tells not even its model."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=lambda: (bounds.input_bound(asked, "input", {}, tools=False)[0], "images or speech"),
            model=sse.text(asked.get("model")),
            stream=bool(asked.get("stream")),
            max_output_tokens=0,
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        facts.usage = _usage(sse.parsed_object(body))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The terminal event holds the usage, where there is one."""
        if sse.is_whole(received):
            return self.response(received)
        terminal = _terminal(sse.normal(received))
        return ResponseFacts(usage=_usage(terminal or {}), complete=terminal is not None)

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return _terminal(sse.normal(tail)) is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`: nothing limits it."""
        return {}

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`."""
        return None


def _terminal(stream: bytes) -> Mapping[str, Any] | None:
    return next((event for event in sse.newest(stream, b'"type"') if sse.text(event.get("type")) in _TERMINAL), None)


def _usage(answer: Mapping[str, Any]) -> dict[str, float] | None:
    raw = answer.get("usage")
    tokens_in, tokens_out = sse.count(sse.at(raw, "input_tokens")), sse.count(sse.at(raw, "output_tokens"))
    if not isinstance(raw, dict) or tokens_in is None or tokens_out is None:
        return None
    return {"tokens_in": tokens_in, "tokens_out": tokens_out, **sse.counts(raw, _PARTS)}


OPENAI_MEDIA = _OpenAIMedia()
