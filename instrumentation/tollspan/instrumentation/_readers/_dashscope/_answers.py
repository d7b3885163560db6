"""Answers of Alibaba Cloud's DashScope: one envelope for all of its services, whole or as server-sent events.

Wire format: Model Studio's API references ("DashScope API reference", those of the media models, "Manage asynchronous
tasks"). Each event of a stream tells the usage so far, and `"finish_reason":"null"` until the last one.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import ResponseFacts

# Explicit and implicit caches, and thinking, are counted inside the totals ("Context cache", "Deep thinking").
_PARTS: sse.Parts = (
    ("tokens_cache_read", (("prompt_tokens_details", "cached_tokens"), ("input_tokens_details", "cached_tokens"))),
    ("tokens_cache_write", (("prompt_tokens_details", "cache_creation_input_tokens"),)),
    ("tokens_cache_write_5m", (("prompt_tokens_details", "cache_creation", "ephemeral_5m_input_tokens"),)),
    ("tokens_reasoning", (("output_tokens_details", "reasoning_tokens"),)),
    ("tokens_audio_in", (("input_tokens_details", "audio_tokens"), ("audio_tokens",))),
    ("tokens_audio_out", (("output_tokens_details", "audio_tokens"),)),
    ("web_searches", (("plugins", "search", "count"),)),
)
_SEEN: sse.Parts = (
    ("tokens_image_in", (("input_tokens_details", "image_tokens"), ("image_tokens",))),
    ("tokens_video_in", (("input_tokens_details", "video_tokens"), ("video_tokens",))),
)
_WHOLE_SECONDS = ("seconds", "duration")
_ENDED = frozenset({"CANCELED", "FAILED"})
_MARKED_ENDS = ("stop", "length", "tool_calls")
MARKS = tuple(f'n":{space}"{end}"'.encode() for end in _MARKED_ENDS for space in ("", " "))
# A stream may be refused as its first event; the status that it would have had stands in a comment.
_REFUSED = re.compile(rb"(?:id:[^\n]*\n)?event: ?error\n:HTTP_STATUS/4(?!08|99)\d\d\n")
_SEVERAL = re.compile(rb'"index"\s*:\s*[1-9]')
# Times of tasks are those of Beijing, without a zone.
_BEIJING = timezone(timedelta(hours=8))
_NOTHING = Decimal(0)


def whole(body: bytes) -> ResponseFacts:
    """Give the facts of a whole answer; an error may be framed as an event, whatever its content type."""
    answer = sse.parsed_object(body)
    return of_stream(body) if not answer and b"data:" in body else _facts(answer)


def of_embeddings(body: bytes) -> ResponseFacts:
    """Give the facts of embeddings: the images that are counted were put in, and have a price of their own."""
    facts, raw = whole(body), sse.parsed_object(body).get("usage")
    if isinstance(raw, dict):
        totals = _totals(raw)
        facts.usage = None if totals is None else {**totals, **sse.counts(raw, _SEEN)}
    return facts


def of_stream(received: bytes) -> ResponseFacts:
    """Give the facts of a stream; a usage without the end of its stream is that of a part, and is none."""
    if sse.is_whole(received):
        return _facts(sse.parsed_object(received))
    stream = sse.normal(received)
    facts = ResponseFacts(complete=False)
    _identify(facts, stream)
    usage, reasons, ended = _several(stream) if _SEVERAL.search(stream) else _latest(stream)
    facts.finish_reasons = reasons
    facts.complete = ended
    if ended:
        _take_usage(facts, usage)
    elif _REFUSED.match(stream):
        facts.complete, facts.cost_usd = True, _NOTHING
    else:
        facts.visible_output_bytes = sse.count(usage.get("output_tokens")) or sum(map(_visible, sse.events(stream)))
    return facts


def has_ended(tail: bytes) -> bool:
    """Tell whether the last bytes of a stream hold the event that ends it, with its usage."""
    stream = sse.normal(tail)
    return _SEVERAL.search(stream) is None and _latest(stream)[2]


def of_task(body: bytes) -> Iterator[ResponseFacts]:
    """Give the facts of a task that has come to its end; one that failed or was cancelled costs nothing.

    Model Studio's references of the image and video models: "Failed model calls do not incur any fees".
    """
    answer = sse.parsed_object(body)
    output = answer.get("output")
    status = sse.text(sse.at(output, "task_status"))
    if not isinstance(output, dict) or not sse.text(output.get("task_id")):
        return
    facts = _facts(answer)
    facts.created = _began(output)
    if status in _ENDED:
        facts.usage, facts.cost_usd = None, _NOTHING
    if status in _ENDED or (status == "SUCCEEDED" and facts.usage is not None):
        yield facts


def _began(output: Mapping[str, Any]) -> float | None:
    for key in ("submit_time", "scheduled_time", "end_time"):
        try:
            return datetime.fromisoformat(output[key]).replace(tzinfo=_BEIJING).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return None


def _facts(answer: Mapping[str, Any]) -> ResponseFacts:
    output = answer.get("output")
    facts = ResponseFacts(
        response_id=sse.text(sse.at(output, "task_id")) or sse.text(answer.get("request_id")),
        finish_reasons=tuple(_reasons(answer).values()),
    )
    _take_usage(facts, answer.get("usage"))
    facts.error_type, facts.error_message = sse.failure(_error(answer))
    return facts


def _error(answer: Mapping[str, Any]) -> object:
    """Give the error of an answer: its own, or that of a task; gateways have it as OpenAI does."""
    output = answer.get("output")
    if sse.text(sse.at(output, "task_status")) in _ENDED:
        return output
    return answer if sse.text(answer.get("code")) else answer.get("error")


def _identify(facts: ResponseFacts, stream: bytes) -> None:
    first = next(sse.oldest(stream, b'"request_id"'), {})
    facts.response_id = sse.text(first.get("request_id"))
    for event in sse.newest(stream, b'"code"', start=-sse.TAIL_BYTES):
        if error := _error(event):
            facts.error_type, facts.error_message = sse.failure(error)
            return


Reading = tuple[Mapping[str, Any], tuple[str, ...], bool]
"""The raw usage of a stream so far, its finish reasons, and whether it has come to its end."""


def _latest(stream: bytes) -> Reading:
    """Read a stream of one choice: its last event with a usage has all of it."""
    usages = (event.get("usage") for event in sse.newest(stream, b'"usage"'))
    usage = next((raw for raw in usages if isinstance(raw, dict)), {})
    last = next(sse.newest(stream, b'"output"'), {})
    reasons = tuple(_reasons(last).values())
    return usage, reasons, bool(usage) and (bool(reasons) or _is_researched(last))


def _several(stream: bytes) -> Reading:
    """Read a stream of several choices: each event has the usage of one, and the input is the same for all."""
    usages: dict[int, dict[str, Any]] = {}
    reasons: dict[int, str] = {}
    begun: set[int] = set()
    for event in sse.events(stream):
        usage, indices = event.get("usage"), [sse.count(choice.get("index")) or 0 for choice in _choices(event)]
        if isinstance(usage, dict):
            usages[min(indices, default=0)] = usage
        begun.update(indices)
        reasons |= _reasons(event)
    in_order = tuple(reasons[index] for index in sorted(reasons))
    return _added(list(usages.values())), in_order, bool(usages and reasons) and begun <= reasons.keys()


def _added(usages: list[dict[str, Any]]) -> Mapping[str, Any]:
    if len(usages) <= 1:
        return usages[0] if usages else {}
    details = [sse.at(usage, "output_tokens_details", "reasoning_tokens") for usage in usages]
    counts = [sse.count(usage.get("output_tokens")) for usage in usages]
    out = None if None in counts else sum(count or 0 for count in counts)
    reasoning = sum(sse.count(detail) or 0 for detail in details)
    rest = {key: value for key, value in usages[-1].items() if key != "total_tokens"}
    return rest | {"output_tokens": out, "output_tokens_details": {"reasoning_tokens": reasoning}}


def _choices(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = sse.at(event, "output", "choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _reasons(event: Mapping[str, Any]) -> dict[int, str]:
    """Give the finish reason of each choice, or of an output without choices; `"null"` is none."""
    found = {}
    alone: Any = event.get("output")
    for choice in _choices(event) or [alone]:
        reason = sse.text(sse.at(choice, "finish_reason"))
        if reason is not None and reason != "null":
            found[sse.count(sse.at(choice, "index")) or 0] = reason
    return found


def _is_researched(event: Mapping[str, Any]) -> bool:
    """Tell whether a deep research has come to the end of its answer; it has no finish reason."""
    message = sse.at(event, "output", "message")
    return (sse.at(message, "phase"), sse.at(message, "status")) == ("answer", "finished")


def _visible(event: Mapping[str, Any]) -> int:
    texts = [sse.at(event, "output", "text"), sse.at(event, "output", "message", "content")]
    for choice in _choices(event):
        message = choice.get("message")
        texts += [sse.at(message, "content"), sse.at(message, "reasoning_content")]
        calls = sse.at(message, "tool_calls")
        functions = [sse.at(call, "function") for call in calls] if isinstance(calls, list) else []
        texts += [sse.at(function, key) for function in functions for key in ("name", "arguments")]
    return sum(map(sse.spoken_bytes, texts))


# ---- usage


def _take_usage(facts: ResponseFacts, raw: object) -> None:
    if not isinstance(raw, dict):
        return
    models = raw.get("models")
    if isinstance(models, list) and models:
        _take_models(facts, models)
    else:
        facts.usage = _usage(raw)


def _take_models(facts: ResponseFacts, models: list[Any]) -> None:
    """Take the usage of an application: that of each model behind it."""
    used: dict[str, dict[str, float]] = {}
    for item in models:
        model, usage = sse.text(sse.at(item, "model_id")), _usage(item) if isinstance(item, dict) else None
        if model is None or usage is None:
            return
        before = used.get(model, {})
        used[model] = before | {unit: before.get(unit, 0) + count for unit, count in usage.items()}
    (facts.model, facts.usage), *others = used.items()
    facts.others = tuple(others)


def _usage(raw: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the usage in tollspan's meaning; None where nothing in it is known.

    What is billed by the image, the second or the character has no price for the tokens that may stand beside.
    """
    if pieces := _pieces(raw):
        return pieces
    if (totals := _totals(raw)) is None:
        return None
    parts = sse.counts(raw, _PARTS)
    # Vision models bill what they see as text; those that hear as well have a price for each ("Model pricing").
    if not parts.keys().isdisjoint({"tokens_audio_in", "tokens_audio_out"}):
        parts |= sse.counts(raw, _SEEN)
    return {**totals, **parts}


def _pieces(raw: Mapping[str, Any]) -> dict[str, float]:
    if "video_count" in raw or "video_duration" in raw or "output_video_duration" in raw:
        # `duration` also has the seconds of a video that was put in, where those are billed.
        keys = ("duration", "video_duration", "output_video_duration")
        return _with_resolution(_first(raw, keys, "video_seconds"), sse.count(raw.get("SR")))
    if raw.get("characters"):
        return _first(raw, ("characters",), "characters_in")
    if "image_tokens" not in raw and raw.get("image_count"):
        return _first(raw, ("image_count",), "images")
    if raw.get("input_tokens") is None and raw.get("total_tokens") is None:
        return _first(raw, _WHOLE_SECONDS, "audio_seconds")
    return {}


def _first(raw: Mapping[str, Any], keys: tuple[str, ...], unit: str) -> dict[str, float]:
    amounts = (amount for key in keys if (amount := _amount(raw.get(key))) is not None)
    amount = next(amounts, None)
    return {} if amount is None else {unit: amount}


def _with_resolution(seconds: dict[str, float], lines: int | None) -> dict[str, float]:
    """Give the seconds of a video under its resolution as well, which sets their price; older models do not tell it."""
    details = {f"{unit}:{lines}p": amount for unit, amount in seconds.items()} if lines else {}
    return {**seconds, **details}


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= 2**53 else None  # what is no number, or has no end, is not between them


def _totals(raw: Mapping[str, Any]) -> dict[str, float] | None:
    """Give all input and output tokens. Embeddings and rankings tell a total alone, or no output.

    Older audio and embedding models count what is no text outside of `input_tokens`: then the total has it, or there
    are more such tokens than input tokens.
    """
    tokens_in, tokens_out = sse.count(raw.get("input_tokens")), sse.count(raw.get("output_tokens"))
    total = sse.count(raw.get("total_tokens"))
    if tokens_in is None:
        return None if total is None or tokens_out is not None else {"tokens_in": total, "tokens_out": 0}
    if tokens_out is None and raw.get("output_tokens") is not None:
        return None
    if total is None:
        total = tokens_in + (tokens_out or 0) + _beside(raw, tokens_in)
    return {"tokens_in": max(tokens_in, total - (tokens_out or 0)), "tokens_out": tokens_out or 0}


def _beside(raw: Mapping[str, Any], tokens_in: int) -> int:
    """Count the tokens outside of `input_tokens`, where nothing says what is inside."""
    if raw.get("input_tokens_details"):
        return 0
    audio, image = sse.count(raw.get("audio_tokens")) or 0, sse.count(raw.get("image_tokens")) or 0
    return audio + (image if image > tokens_in else 0)
