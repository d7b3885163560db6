"""What Converse and InvokeModel have in common: the model in the path, output limits, token counts, errors."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import ResponseFacts

ERROR_HEADER = "x-amzn-errortype"

_MODEL = re.compile(r".*/model/(.+)/[a-z-]+/?", re.DOTALL)
# Where the families of models have their output limit.
_LIMITS: tuple[sse.Path, ...] = (
    ("max_tokens",),
    ("max_completion_tokens",),
    ("max_tokens_to_sample",),
    ("max_gen_len",),
    ("maxTokens",),
    ("maxOutputTokens",),
    ("inferenceConfig", "maxTokens"),
    ("inferenceConfig", "max_new_tokens"),
    ("textGenerationConfig", "maxTokenCount"),
    ("parameters", "max_new_tokens"),
)
# Converse and Nova; what both call the cache with the older name has the same count.
_CACHE_KEYS = {
    "tokens_cache_read": ("cacheReadInputTokens", "cacheReadInputTokenCount"),
    "tokens_cache_write": ("cacheWriteInputTokens", "cacheWriteInputTokenCount"),
}
_WRITTEN = {"5m": "tokens_cache_write_5m", "1h": "tokens_cache_write_1h"}
_METRICS = ("inputTokenCount", "outputTokenCount")
_TOTALS = (("inputTokens", "outputTokens"), _METRICS)
_ERROR_KEYS = frozenset(
    {"message", "Message", "code", "type", "__type", "originalMessage", "originalStatusCode", "resourceName"}
)


def model_in(path: str) -> str | None:
    """Give the model id or ARN that a URL path names."""
    match = _MODEL.fullmatch(path)
    return unquote(match[1]) if match else None


def spare_tokens(model: str | None) -> int:
    """Give how many tokens a model may go above its limit: Titan was seen to give one more."""
    return 1 if model is not None and "titan" in model else 0


def limits(body: Mapping[str, Any]) -> Iterator[tuple[sse.Path, int]]:
    """Give the output limits that a body has, each with its place."""
    for path in _LIMITS:
        outer = body.get(path[0])
        value = outer if len(path) == 1 else outer.get(path[1]) if isinstance(outer, Mapping) else None
        if (limit := sse.count(value)) is not None:
            yield path, limit


def lowered(body: Mapping[str, Any], paths: Iterator[sse.Path], tokens: int) -> dict[str, Any]:
    """Give what has to change in a body so that none of these limits is above `tokens`."""
    changes: dict[str, Any] = {}
    for path in paths:
        if len(path) == 1:
            changes[path[0]] = bounds.limited(body, path[0], tokens)
        else:
            outer, inner = path
            inside = changes.get(outer) or body.get(outer)
            inside = inside if isinstance(inside, Mapping) else {}
            changes[outer] = {**inside, inner: bounds.limited(inside, inner, tokens)}
    return changes


def usage_of(raw: Mapping[str, Any]) -> dict[str, float] | None:
    """Give a usage in tollspan's meaning; None where one of its totals is no count.

    Bedrock's input leaves out what was read from the cache and what was written to it (`totalTokens` adds them).
    """
    for keys in _TOTALS:
        fresh, out = (sse.count(raw.get(key)) for key in keys)
        if fresh is None and out is None:
            continue
        # An embedding has no output, and its metrics do not name it. A guardrail that changes an answer drops it, too.
        if fresh is None or (out is None and (keys != _METRICS or raw.get(keys[1]) is not None)):
            return None
        parts = {part: _first(raw, names) for part, names in _CACHE_KEYS.items()} | _written(raw.get("cacheDetails"))
        cached = sum(parts.get(part) or 0 for part in _CACHE_KEYS)
        totals: dict[str, float] = {"tokens_in": fresh + cached, "tokens_out": out or 0}
        return totals | {key: value for key, value in parts.items() if value}
    return None


def _first(raw: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if (value := sse.count(raw.get(name))) is not None), None)


def _written(details: object) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for detail in details if isinstance(details, list) else ():
        unit = _WRITTEN.get(str(sse.at(detail, "ttl")))
        if unit is not None:
            found[unit] = (found.get(unit) or 0) + (sse.count(sse.at(detail, "inputTokens")) or 0)
    return found


def tier_of(source: Mapping[str, Any]) -> str | None:
    """Give the service tier; `optimized` where the latency was, since that is what sets the price then."""
    if sse.at(source.get("performanceConfig"), "latency") == "optimized":
        return "optimized"
    return sse.text(sse.at(source.get("serviceTier"), "type"))


def take_error(facts: ResponseFacts, answer: Mapping[str, Any]) -> None:
    """Take the error that an answer is: AWS sends its message alone, and its type in a header."""
    if facts.usage is None and answer and answer.keys() <= _ERROR_KEYS:
        message = answer.get("message") or answer.get("Message")
        facts.error_type, facts.error_message = sse.failure({**answer, "message": message})


def take_error_type(facts: ResponseFacts, headers: Mapping[str, str]) -> None:
    """Take the type of an error from its header: a name, and behind a colon where it is defined."""
    if (kind := headers.get(ERROR_HEADER)) and facts.usage is None:
        facts.error_type = sse.failure({"type": kind.partition(":")[0]})[0]
