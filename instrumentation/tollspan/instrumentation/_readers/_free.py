"""Requests that providers do not bill: moderation, and counting tokens."""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._gemini._names import model_in
from tollspan.instrumentation._readers._openai._chat import OPENAI_CHAT


class _Free(Flavour):
    """A request that costs nothing. Where another host tells usage all the same, that host does bill it."""

    __slots__ = ()
    vendor = "openai"

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is nothing to bound."""
        model = sse.text(bounds.effective(body).get("model"))
        return RequestFacts(measure=lambda: (0, None), model=model, max_output_tokens=0, free=True)

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        return OPENAI_CHAT.response(body) if "usage" in answer or sse.error_in(answer) else _named(answer)

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there are none."""
        return self.response(received)


def _named(answer: Mapping[str, Any]) -> ResponseFacts:
    return ResponseFacts(model=sse.text(answer.get("model")), response_id=sse.text(answer.get("id")))


class _AnthropicCount(_Free):
    """`POST .../v1/messages/count_tokens`."""

    __slots__ = ()
    name = "anthropic.count_tokens"
    vendor = "anthropic"
    operation = "count_tokens"
    asked_keys: frozenset[str] = frozenset({"messages"})
    path_suffixes: tuple[str, ...] = ("/messages/count_tokens",)


class _OpenAICount(_Free):
    """`POST .../responses/input_tokens`."""

    __slots__ = ()
    name = "openai.count_tokens"
    operation = "count_tokens"
    asked_keys: frozenset[str] = frozenset({"conversation", "input", "previous_response_id"})
    path_suffixes: tuple[str, ...] = ("/responses/input_tokens",)


class _OpenAIModeration(_Free):
    """`POST .../moderations`. Mistral bills its own, and tells their usage."""

    __slots__ = ()
    name = "openai.moderation"
    operation = "moderation"
    asked_keys: frozenset[str] = frozenset({"input"})
    path_suffixes: tuple[str, ...] = ("/moderations",)


class _GeminiCount(_Free):
    """`POST .../models/{model}:countTokens` and `:computeTokens`."""

    __slots__ = ()
    name = "gemini.count_tokens"
    vendor = "gcp.gemini"
    operation = "count_tokens"
    asked_keys: frozenset[str] = frozenset({"contents", "generateContentRequest", "instances"})
    path_suffixes: tuple[str, ...] = (":countTokens", ":computeTokens")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. The path names the model."""
        return RequestFacts(measure=lambda: (0, None), model=model_in(path), max_output_tokens=0, free=True)


ANTHROPIC_COUNT = _AnthropicCount()
OPENAI_COUNT = _OpenAICount()
OPENAI_MODERATION = _OpenAIModeration()

FREE: tuple[Reader, ...] = (ANTHROPIC_COUNT, _GeminiCount(), OPENAI_COUNT, OPENAI_MODERATION)
FREE_FETCHES: tuple[Fetch, ...] = ()
