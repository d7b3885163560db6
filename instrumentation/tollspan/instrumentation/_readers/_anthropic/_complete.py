"""Anthropic's text completions, the API before Messages: its answers tell no usage."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, RequestFacts, ResponseFacts

_LIMIT = "max_tokens_to_sample"
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    _LIMIT: ("gen_ai.request.max_tokens", sse.count),
    "stop_sequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}


class _AnthropicComplete(Flavour):
    """`POST .../v1/complete`."""

    __slots__ = ()
    name = "anthropic.complete"
    vendor = "anthropic"
    operation = "text_completion"
    asked_keys: frozenset[str] = frozenset({_LIMIT})
    terminal_marks: tuple[bytes, ...] = (b"stop_reason",)
    path_suffixes: tuple[str, ...] = ("/v1/complete",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=partial(bounds.input_bound, asked, "prompt", {}, tools=False),
            model=sse.text(asked.get("model")),
            stream=asked.get("stream") is True,
            max_output_tokens=sse.count(asked.get(_LIMIT)),
            attributes=bounds.attributes(asked, _ATTRIBUTES),
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = _facts(answer)
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The last piece of text names the reason to stop."""
        if sse.is_whole(received):
            return self.response(received)
        facts = ResponseFacts(complete=False)
        for event in sse.events(sse.normal(received)):
            if event.get("type") == "error":
                facts.error_type, facts.error_message = sse.failure(event.get("error"))
                continue
            piece = _facts(event)
            piece.visible_output_bytes += facts.visible_output_bytes
            piece.model, piece.response_id = piece.model or facts.model, piece.response_id or facts.response_id
            piece.error_type, piece.error_message = facts.error_type, facts.error_message
            piece.finish_reasons = piece.finish_reasons or facts.finish_reasons
            facts = piece
        facts.complete = bool(facts.finish_reasons)
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: a `stop_reason` that says something."""
        return any(sse.text(event.get("stop_reason")) for event in sse.newest(sse.normal(tail), b'"stop_reason"'))

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        limit = bounds.limited(bounds.effective(arguments), _LIMIT, tokens)
        return bounds.placed(arguments, {_LIMIT: limit})


ANTHROPIC_COMPLETE = _AnthropicComplete()


def _facts(answer: Mapping[str, Any]) -> ResponseFacts:
    reason = sse.text(answer.get("stop_reason"))
    return ResponseFacts(
        model=sse.text(answer.get("model")),
        response_id=sse.text(answer.get("id")),
        finish_reasons=() if reason is None else (reason,),
        visible_output_bytes=sse.spoken_bytes(answer.get("completion")),
    )
