"""Tokens as Google counts them: in answers of Gemini, in its embeddings and live sessions, and in its interactions."""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _sse as sse

# Proto3 leaves a count of 0 out of JSON, and where a server has no names for its enums, they are numbers.
_NAMES: dict[object, str] = {"IMAGE": "image", "VIDEO": "video", "AUDIO": "audio"}
_MODALITIES: dict[object, str] = {**_NAMES, 2: "image", 3: "video", 4: "audio"}
_WEB = "google_search"


def token_usage(raw: Any) -> dict[str, float] | None:
    """Give a `usageMetadata` of any of Google's APIs in tollspan's meaning; None where it does not tell the input."""
    said, answered = _first(raw, "candidatesTokenCount"), _first(raw, "responseTokenCount")
    thought = _first(raw, "thoughtsTokenCount") or 0
    totals = _totals(
        _first(raw, "promptTokenCount"),
        said or answered or 0,
        # The total of a live session leaves thoughts out.
        (thought, 0) if said is None and answered is not None else (0, thought),
        _first(raw, "toolUsePromptTokenCount") or 0,
        _first(raw, "totalTokenCount"),
    )
    if totals is None:
        return None
    found = {"tokens_cache_read": _first(raw, "cachedContentTokenCount"), "tokens_reasoning": thought}
    details = [
        ("in", "promptTokensDetails"), ("in", "promptTokenDetails"), ("in", "toolUsePromptTokensDetails"),
        ("cache_read", "cacheTokensDetails"),
        ("out", "candidatesTokensDetails"), ("out", "responseTokensDetails"),
    ]  # fmt: skip
    parts = [(side, raw.get(key), "tokenCount") for side, key in details]
    return totals | _above_zero({**found, **_by_modality(parts)})


def interaction_usage(raw: Any) -> dict[str, float] | None:
    """Give the `usage` of an interaction in tollspan's meaning; None where it does not tell the input."""
    read, said, thought, used, kept = (
        _first(raw, f"total_{key}_tokens") for key in ("input", "output", "thought", "tool_use", "cached")
    )
    totals = _totals(read, said or 0, (0, thought or 0), used or 0, _first(raw, "total_tokens"))
    if totals is None:
        return None
    found = {"tokens_cache_read": kept, "tokens_reasoning": thought, "web_searches": _searches(raw)}
    details = [("in", "input"), ("in", "tool_use"), ("cache_read", "cached"), ("out", "output")]
    parts = [(side, raw.get(f"{key}_tokens_by_modality"), "tokens") for side, key in details]
    return totals | _above_zero({**found, **_by_modality(parts)})


def _totals(
    read: int | None, said: int, thoughts: tuple[int, int], used: int, total: int | None
) -> dict[str, float] | None:
    """Give all input and all output tokens; `thoughts` are those beside the total, and those that should be in it.

    Google counts thoughts and the prompts of tools besides prompt and answer, and all four in the total. A server that
    has them inside shows that by its total; one that does not show the thoughts has them in its total only.
    """
    beside, thought = thoughts
    if read is None and total is None:
        return None
    tokens_in = used + (max((total or 0) - said - thought - used, 0) if read is None else read)
    tokens_out = said + thought
    over = 0 if total is None else tokens_in + tokens_out - total
    if over < 0:
        tokens_out -= over
    elif over:
        tokens_in -= used if over in (used, used + thought) else 0
        tokens_out -= thought if over in (thought, used + thought) and thought < said else 0
    return {"tokens_in": tokens_in, "tokens_out": tokens_out + beside}


def _by_modality(details: list[tuple[str, object, str]]) -> dict[str, int]:
    """Add up tokens that are not text, by their modality and the side that they are on."""
    found: dict[str, int] = {}
    for side, items, key in details:
        for item in items if isinstance(items, list) else ():
            kind = sse.at(item, "modality")
            name = _MODALITIES.get(kind.upper() if isinstance(kind, str) else kind if type(kind) is int else None)
            if name is not None and (count := sse.count(sse.at(item, key))):
                unit = f"tokens_{name}_{side}"
                found[unit] = found.get(unit, 0) + count
    found.pop("tokens_video_cache_read", None)  # nobody has a price of its own for it
    return found


def _searches(raw: Mapping[str, Any]) -> int:
    tools = raw.get("grounding_tool_count")
    listed = tools if isinstance(tools, list) else ()
    return sum(sse.count(tool.get("count")) or 0 for tool in listed if sse.at(tool, "type") == _WEB)


def _first(raw: Any, *keys: str) -> int | None:
    return next((count for key in keys if (count := sse.count(sse.at(raw, key))) is not None), None)


def _above_zero(found: Mapping[str, int | None]) -> dict[str, float]:
    return {key: value for key, value in found.items() if value}
