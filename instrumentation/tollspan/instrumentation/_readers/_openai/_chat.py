"""OpenAI's chat completions, as OpenAI and the many servers compatible with it speak them."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._inputs import MEDIA

_LIMITS = ("max_completion_tokens", "max_tokens")
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", bounds.number),
    "max_completion_tokens": ("gen_ai.request.max_tokens", sse.count),
    "max_tokens": ("gen_ai.request.max_tokens", sse.count),
    "n": ("gen_ai.request.choice.count", bounds.several),
    "presence_penalty": ("gen_ai.request.presence_penalty", bounds.number),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "service_tier": ("openai.request.service_tier", sse.text),
    "stop": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_MOST_USD = 10**9
LITELLM_COST = "x-litellm-response-cost"
"""The header in which LiteLLM's proxy states what a call has cost, in USD."""
_OWN_TOOLS = frozenset({"custom", "function"})
_UNBOUNDED = {
    "web_search_options": "hosted tool web_search",
    "prediction": "predicted output",
    "plugins": "hosted plugins",
    "models": "fallback models",
    "preset": "stored preset",
}
# Models that search the web on their own.
_SEARCHING = re.compile(r"-search-(?:preview|api)|:online$|^sonar|/sonar|compound")
_OPENAI = re.compile(r"o1|o3|o4|gpt-|chatgpt|ft:|codex|computer-use")
_OPENAI_OLD = re.compile(r"gpt-3\.5|gpt-4")
# Measured: Grok counts up to 494 hidden tokens for each request.
GROK_TOKENS = 1_024

# Cache names: OpenAI and OpenRouter; DeepSeek; Moonshot; Mistral. Images read are billed as text, images made are not.
_PARTS: sse.Parts = (
    (
        "tokens_cache_read",
        (
            ("prompt_tokens_details", "cached_tokens"),
            ("prompt_cache_hit_tokens",),
            ("cached_tokens",),
            ("num_cached_tokens",),
        ),
    ),
    ("tokens_cache_write", (("prompt_tokens_details", "cache_write_tokens"),)),
    ("tokens_reasoning", (("completion_tokens_details", "reasoning_tokens"),)),
    ("tokens_audio_in", (("prompt_tokens_details", "audio_tokens"),)),
    ("tokens_audio_out", (("completion_tokens_details", "audio_tokens"),)),
    ("tokens_image_out", (("completion_tokens_details", "image_tokens"),)),
)


class OpenAIChat(Flavour):
    """`POST .../chat/completions`; also Azure, Groq, Mistral, DeepSeek, OpenRouter, vLLM and their like."""

    __slots__ = ()
    name = "openai.chat"
    vendor = "openai"
    terminal_marks: tuple[bytes, ...] = (b"[DONE]", b'"error"')
    header_names: tuple[str, ...] = (LITELLM_COST,)
    path_suffixes: tuple[str, ...] = ("/chat/completions", "/agents/completions")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        asked = bounds.effective(body)
        model = sse.text(asked.get("model"))
        return RequestFacts(
            measure=partial(_input_bound, asked, model),
            model=model,
            stream=bool(asked.get("stream")),
            max_output_tokens=_limit(asked),
            choices=sse.count(asked.get("n")) or 1,
            service_tier=sse.text(asked.get("service_tier")),
            attributes=bounds.attributes(asked, _ATTRIBUTES),
            find_units=partial(_spoken_units, asked),
            is_text=lambda: all(_kind(part) == "text" for part in _parts(asked.get("messages"))),
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts()
        _identify(facts, answer)
        _take_usage(facts, answer)
        facts.finish_reasons = _in_order(_finish_reasons(answer))
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. Usage is on the last chunk (OpenAI), or on the last one with content (Groq, Mistral)."""
        if sse.is_whole(received):
            return self.response(received)
        stream = sse.normal(received)
        facts = ResponseFacts(complete=sse.is_done(stream))
        for needle in (b'"usage":{', b'"usage": {'):
            for event in sse.newest(stream, needle):
                if _take_usage(facts, event):
                    _identify(facts, event)
                    _take_ends(facts, stream)
                    return facts
        return _walked(stream, facts)

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`: the cost that LiteLLM's proxy states."""
        take_stated_cost(facts, headers)

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: `data: [DONE]`, or an error, which SDKs raise without reading on or closing."""
        stream = sse.normal(tail)
        failed = any(event.get("error") for event in sse.newest(stream, b'"error"', start=-sse.TAIL_BYTES))
        return failed or sse.is_done(stream)

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. Keeps to the key that the caller uses; else the one that the model takes."""
        asked = bounds.effective(arguments)
        used = [key for key in _LIMITS if sse.count(asked.get(key)) is not None]
        keys = used or [_limit_key(sse.text(asked.get("model")) or "")]
        return bounds.placed(arguments, {key: bounds.limited(asked, key, tokens) for key in keys})

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`. An `include_usage` of the caller's own, True or False, is left alone."""
        asked = bounds.effective(arguments)
        options = asked.get("stream_options") or {}
        if not asked.get("stream") or not isinstance(options, Mapping) or "include_usage" in options:
            return None
        return bounds.placed(arguments, {"stream_options": {**options, "include_usage": True}})


OPENAI_CHAT = OpenAIChat()


class _TellingChat(OpenAIChat):
    """The same of vendors whose streams tell their usage unasked, and whose SDKs do not take `stream_options`."""

    __slots__ = ()

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`."""
        return None


TELLING_CHAT = _TellingChat()


def _input_bound(asked: Mapping[str, Any], model: str | None) -> InputBound:
    tools = bool(asked.get("tools") or asked.get("functions") or asked.get("response_format"))
    tokens, endless = bounds.input_bound(asked, "messages", MEDIA, tools=tools)
    hidden = GROK_TOKENS if model and "grok" in model else 0
    return tokens + hidden, _unbounded(asked, model) or endless


def _spoken_units(asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the spoken tokens of a request: not every model that takes or gives them has a listed price for them."""
    heard = any(_kind(part) == "input_audio" for part in _parts(asked.get("messages")))
    spoken = "audio" in (bounds.strings(asked.get("modalities")) or ())
    return (*(("tokens_audio_in",) if heard else ()), *(("tokens_audio_out",) if spoken else ()))


def _parts(messages: object) -> Iterator[Any]:
    for message in messages if isinstance(messages, bounds.SEQUENCES) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        yield from content if isinstance(content, bounds.SEQUENCES) else ()


def _kind(part: object) -> object:
    return part.get("type") if isinstance(part, Mapping) else None


def _limit(asked: Mapping[str, Any]) -> int | None:
    """Give the caller's maximum; the larger one of two, since which of them the server obeys is not known."""
    limits = [limit for key in _LIMITS if (limit := sse.count(asked.get(key))) is not None]
    return max(limits, default=None)


def _limit_key(model: str) -> str:
    """Name the key that a model takes: the older ones of OpenAI and all of other vendors take `max_tokens`."""
    return _LIMITS[0] if _OPENAI.match(model) and not _OPENAI_OLD.match(model) else _LIMITS[1]


def cost_of(usage: Any) -> Decimal | None:
    """Give the cost in USD that the wire states: OpenRouter's `usage.cost`, Perplexity's `usage.cost.total_cost`.

    With a key of the caller's own (`is_byok`), OpenRouter states its fee there and the provider's charge beside it.
    """
    cost = sse.at(usage, "cost")
    stated = _usd(cost.get("total_cost") if isinstance(cost, dict) else cost)
    if stated is not None and sse.at(usage, "is_byok") is True:
        stated += _usd(sse.at(usage, "cost_details", "upstream_inference_cost")) or 0
    return stated


def take_stated_cost(facts: ResponseFacts, headers: Mapping[str, str]) -> None:
    """Take the cost from LiteLLM's header; it says 0 of models that it has no price for, which tells nothing."""
    try:
        stated = float(headers.get(LITELLM_COST, ""))
    except ValueError:
        return
    if stated > 0 and facts.cost_usd is None:
        facts.cost_usd = _usd(stated)


def _usd(value: object) -> Decimal | None:
    stated = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_USD
    return Decimal(str(value)) if stated else None


def _usage(raw: Any) -> dict[str, float] | None:
    """Give the usage in tollspan's meaning; None where input or output is not a count."""
    tokens_in = sse.count(sse.at(raw, "prompt_tokens"))
    if tokens_in is None or (tokens_out := _output_tokens(raw, tokens_in)) is None:
        return None
    return {"tokens_in": tokens_in, "tokens_out": tokens_out, **sse.counts(raw, _PARTS)}


def _output_tokens(raw: dict[str, Any], tokens_in: int) -> int | None:
    """Give all output tokens.

    xAI leaves reasoning out of `completion_tokens` and counts it in `total_tokens` only. A server that generated
    nothing may leave `completion_tokens` out.
    """
    total = sse.count(raw.get("total_tokens"))
    if "completion_tokens" not in raw:
        return None if total is None or total < tokens_in else total - tokens_in
    visible = sse.count(raw["completion_tokens"])
    reasoning = sse.count(sse.at(raw, "completion_tokens_details", "reasoning_tokens"))
    if visible is not None and reasoning and total == tokens_in + visible + reasoning:
        return visible + reasoning
    return visible


def _take_usage(facts: ResponseFacts, event: Mapping[str, Any]) -> bool:
    """Take the usage of an event, and tell whether it has one; Groq also puts it under `x_groq`."""
    for raw in (event.get("usage"), sse.at(event.get("x_groq"), "usage")):
        if (usage := _usage(raw)) is not None:
            facts.usage, facts.cost_usd = usage, cost_of(raw)
            return True
    return False


def _identify(facts: ResponseFacts, event: Mapping[str, Any]) -> None:
    """Take model, id and tier where not known yet; Azure's first event has them empty."""
    facts.model = facts.model or sse.text(event.get("model"))
    facts.response_id = facts.response_id or sse.text(event.get("id"))
    facts.service_tier = sse.text(event.get("service_tier")) or facts.service_tier


def _choices(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _finish_reasons(event: Mapping[str, Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for position, choice in enumerate(_choices(event)):
        if reason := sse.text(choice.get("finish_reason")):
            index = sse.count(choice.get("index"))
            found[position if index is None else index] = reason
    return found


def _in_order(reasons: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(reasons[index] for index in sorted(reasons))


def _take_ends(facts: ResponseFacts, stream: bytes) -> None:
    """Take what the usage chunk may lack: the first event's ids, each choice's finish reason, an error."""
    if facts.model is None or facts.response_id is None:
        _identify(facts, next(sse.oldest(stream, b'"model"'), {}))
    reasons: dict[int, str] = {}
    spaced = b'"finish_reason": "' in stream[-sse.TAIL_BYTES :]
    for event in sse.newest(stream, b'"finish_reason": "' if spaced else b'"finish_reason":"'):
        reasons = {**_finish_reasons(event), **reasons}
    facts.finish_reasons = _in_order(reasons)
    errors = (event.get("error") for event in sse.newest(stream, b'"error"', start=-sse.TAIL_BYTES))
    facts.error_type, facts.error_message = sse.failure(next(filter(None, errors), None))


def _walked(stream: bytes, facts: ResponseFacts) -> ResponseFacts:
    """Read a stream in which no usage was found at once, event by event."""
    reasons: dict[int, str] = {}
    for event in sse.events(stream):
        _take_usage(facts, event)
        _identify(facts, event)
        reasons.update(_finish_reasons(event))
        facts.visible_output_bytes += sum(map(_visible, _choices(event)))
        if error := event.get("error"):
            facts.error_type, facts.error_message = sse.failure(error)
    facts.finish_reasons = _in_order(reasons)
    return facts


def _visible(choice: dict[str, Any]) -> int:
    """Add up text, refusal, reasoning (under one of two names), transcript and calls of one choice of a chunk."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return sse.spoken_bytes(choice.get("text"))  # legacy completions
    calls = delta.get("tool_calls")
    functions = [sse.at(call, "function") for call in calls] if isinstance(calls, list) else []
    spoken = [delta.get("content"), delta.get("refusal"), sse.at(delta, "audio", "transcript")]
    for function in (*functions, delta.get("function_call")):
        spoken += [sse.at(function, "name"), sse.at(function, "arguments")]
    reasoning = max(sse.spoken_bytes(delta.get("reasoning_content")), sse.spoken_bytes(delta.get("reasoning")))
    return reasoning + sum(map(sse.spoken_bytes, spoken))


def _unbounded(asked: Mapping[str, Any], model: str | None) -> str | None:
    reason = bounds.given(asked, _UNBOUNDED) or bounds.hosted_tool(asked.get("tools"), _OWN_TOOLS)
    if reason is None and model and _searches(model):
        return "hosted tool web_search"
    return reason or _audio_reference(asked.get("messages"))


@lru_cache(maxsize=1024)
def _searches(model: str) -> bool:
    return _SEARCHING.search(model) is not None


def _audio_reference(messages: object) -> str | None:
    """Say why an earlier spoken answer has no bound: the request only names it."""
    for message in messages if isinstance(messages, bounds.SEQUENCES) else ():
        if type(message) is dict and message.get("audio"):
            return "audio held by the server"
    return None
