"""Writer: chat and completions nearly as OpenAI has them. Source: dev.writer.com, API reference."""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Reader, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat
from tollspan.instrumentation._readers._openai._completions import OPENAI_COMPLETIONS

_PARTS: sse.Parts = (
    ("tokens_cache_read", (("prompt_token_details", "cached_tokens"),)),
    ("tokens_reasoning", (("completion_token_details", "reasoning_tokens"),)),
)


class _WriterChat(OpenAIChat):
    """`POST /v1/chat`, whose details of usage have names of their own."""

    __slots__ = ()
    name = "writer.chat"
    vendor = "writer"
    path_suffixes: tuple[str, ...] = ("/v1/chat",)
    asked_keys: frozenset[str] = frozenset({"messages"})

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        _take_parts(facts, sse.parsed_object(body))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`."""
        facts = super().stream(received)
        if facts.usage is not None:
            _take_parts(facts, next(sse.newest(sse.normal(received), b'"prompt_tokens"'), {}))
        return facts


class _WriterCompletions(type(OPENAI_COMPLETIONS)):  # type: ignore[misc]
    """`POST /v1/completions`, which tells no usage, and whose streams are of bare values."""

    __slots__ = ()
    name = "writer.completions"
    vendor = "writer"
    terminal_marks: tuple[bytes, ...] = ()

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`."""
        facts: ResponseFacts = super().stream(received)
        if not sse.is_whole(received):
            facts.visible_output_bytes += sum(
                sse.spoken_bytes(event.get("value")) for event in sse.events(sse.normal(received))
            )
        return facts

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`: it cannot be asked for."""
        return None


def _take_parts(facts: ResponseFacts, answer: Mapping[str, Any]) -> None:
    usage = answer.get("usage")
    if facts.usage is not None and isinstance(usage, dict):
        facts.usage |= sse.counts(usage, _PARTS)


WRITER_CHAT = _WriterChat()
WRITER_COMPLETIONS = _WriterCompletions()
WRITER: tuple[Reader, ...] = (WRITER_CHAT,)
"""Its completions are found by their call site: their path is OpenAI's."""
