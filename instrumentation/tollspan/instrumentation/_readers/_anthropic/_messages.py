"""Anthropic's Messages API, as Anthropic and the servers compatible with it speak it; also on Bedrock and Vertex."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

from tollspan.instrumentation._readers import _aws_frames as aws
from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._documents import document_tokens
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._inline import pixels
from tollspan.instrumentation._readers._openai._chat import LITELLM_COST, take_stated_cost

# Anthropic's guide "Vision", section "Resolution and token cost": a token for each 28 x 28 pixels of an image, and
# before that one for 750 pixels; it is scaled down to 4,784 tokens on Claude 4.7 and later, to some 1,600 on others.
_PATCH, _PIXELS_PER_TOKEN = 28, 750
_LARGEST_IMAGE, _LARGEST_IMAGE_BEFORE = 4_784, 1_600
_BEFORE = re.compile(r"claude-(?:instant|v?[23](?!\d)|(?:opus|sonnet|haiku)-4(?![-.@](?:[7-9]|\d\d(?!\d))))")
# Anthropic's guide "Tool use": a tool of its own that the client runs has up to 735 hidden tokens and a prompt of 499.
CLIENT_TOOL_TOKENS = 1_500
# The API refuses a smaller budget for thinking, and one that is not below `max_tokens`.
_FEWEST_THINKING_TOKENS = 1_024

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "max_tokens": ("gen_ai.request.max_tokens", sse.count),
    "stop_sequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_OWN_TOOLS = frozenset({"custom"})
_CLIENT_TOOLS = ("bash_", "computer_20", "memory_", "text_editor_")
_UNBOUNDED = {
    "mcp_servers": "hosted tool mcp",
    "container": "container",
    "fallbacks": "fallback models",
    "compaction": "server-side compaction",
    "thread": "thread",
}
_PDF_IN_BASE64 = "JVBER"
_ATTEMPTS = ("message", "fallback_message")
_TOTALS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
# On Bedrock and on Vertex, the URL names the model, and on Bedrock it alone tells of a stream.
_CLOUD_PATH = re.compile(
    r".*/models?/(.+)(?:/invoke(-with-response-stream)?|:(?:rawP|(streamRawP))redict)/?", re.DOTALL
)
_BEDROCK_ID = "msg_bdrk_"


class _AnthropicMessages(Flavour):
    """`POST .../v1/messages`."""

    __slots__ = ()
    name = "anthropic.messages"
    vendor = "anthropic"
    terminal_marks: tuple[bytes, ...] = (b"message_stop",)
    framed_marks: tuple[bytes, ...] = aws.in_base64(b"message_stop")
    header_names: tuple[str, ...] = (LITELLM_COST,)
    path_suffixes: tuple[str, ...] = ("/v1/messages",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        asked = bounds.effective(body)
        cloud = _CLOUD_PATH.fullmatch(path) if "model" not in asked else None
        model = unquote(cloud[1]) if cloud else sse.text(asked.get("model"))
        return RequestFacts(
            measure=partial(_input_bound, asked, model),
            model=model,
            stream=bool(asked.get("stream") or (cloud and (cloud[2] or cloud[3]))),
            max_output_tokens=sse.count(asked.get("max_tokens")),
            service_tier=_tier(asked),
            attributes=bounds.attributes(asked, _ATTRIBUTES),
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = _facts(answer, answer.get("usage"), answer.get("stop_reason"))
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The last `message_delta` holds the final counts, over those of `message_start`.

        The output of `message_start` is a placeholder: a stream cut before a `message_delta` has no known usage.
        """
        if sse.is_whole(received):
            return self.response(received)
        stream = sse.normal(aws.server_sent(received))
        start = next(_typed(sse.oldest(stream, b'"message_start"'), "message_start"), {}).get("message")
        last = next(_typed(sse.newest(stream, b'"message_delta"'), "message_delta"), {})
        message = start if isinstance(start, dict) else {}
        facts = _facts(
            message, _overlaid(message.get("usage"), last.get("usage")), sse.at(last, "delta", "stop_reason")
        )
        facts.complete = _is_stopped(stream)
        if facts.usage is None:
            facts.visible_output_bytes = sum(map(_visible, sse.events(stream)))
        if not facts.complete:
            error = next(_typed(sse.newest(stream, b'"error"', start=-sse.TAIL_BYTES), "error"), {}).get("error")
            facts.error_type, facts.error_message = sse.failure(error)
        return facts

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`: the cost that LiteLLM's proxy states."""
        take_stated_cost(facts, headers)

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: `message_stop`."""
        return _is_stopped(sse.normal(aws.server_sent(tail)))

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. A budget for thinking is lowered with it, since it has to stay below.

        Where no allowed budget is left below it, thinking is switched off.
        """
        asked = bounds.effective(arguments)
        changes: dict[str, Any] = {"max_tokens": bounds.limited(asked, "max_tokens", tokens)}
        thinking = asked.get("thinking")
        if isinstance(thinking, Mapping) and (sse.count(thinking.get("budget_tokens")) or 0) >= changes["max_tokens"]:
            budget = changes["max_tokens"] - 1
            enough = budget >= _FEWEST_THINKING_TOKENS
            changes["thinking"] = {**thinking, "budget_tokens": budget} if enough else {"type": "disabled"}
        return bounds.placed(arguments, changes)


ANTHROPIC_MESSAGES = _AnthropicMessages()


class _OnVertex(_AnthropicMessages):
    """`POST .../publishers/anthropic/models/{model}:rawPredict` and `:streamRawPredict`."""

    __slots__ = ()
    vendor = "gcp.vertex_ai"
    path_suffixes: tuple[str, ...] = (":rawPredict", ":streamRawPredict")
    asked_keys: frozenset[str] = frozenset({"anthropic_version"})


class _VertexCounts(_OnVertex):
    """`POST .../models/count-tokens:rawPredict` ends like a call of a model, and is none: nothing asks for it."""

    __slots__ = ()
    path_suffixes: tuple[str, ...] = ("/count-tokens:rawPredict",)
    asked_keys: frozenset[str] = frozenset({""})


ANTHROPIC_ON_VERTEX = _OnVertex()
VERTEX_COUNTS = _VertexCounts()


def _input_bound(asked: Mapping[str, Any], model: str | None) -> InputBound:
    tools = bool(asked.get("tools") or asked.get("output_config") or asked.get("output_format"))
    tokens, endless = bounds.input_bound({**asked, "model": model}, "messages", _MEDIA, tools=tools)
    own_tools = sum(map(_is_client_tool, _listed(asked.get("tools"))))
    return tokens + own_tools * CLIENT_TOOL_TOKENS, _unbounded(asked) or endless


def _facts(message: Mapping[str, Any], usage: object, stop_reason: object) -> ResponseFacts:
    """Give the facts of an answer. Bedrock bills by region, which the model asked for has and this lacks."""
    reason, response_id = sse.text(stop_reason), sse.text(message.get("id"))
    return ResponseFacts(
        model=None if response_id and response_id.startswith(_BEDROCK_ID) else sse.text(message.get("model")),
        response_id=response_id,
        usage=_usage(usage) if isinstance(usage, dict) else None,
        others=tuple(_others(usage, sse.text(message.get("model")))) if isinstance(usage, dict) else (),
        finish_reasons=() if reason is None else (reason,),
        service_tier=_tier(usage) if isinstance(usage, dict) else None,
    )


def _tier(source: Mapping[str, Any]) -> str | None:
    """Give the service tier; `fast` where the speed says so, since it is what sets the price then."""
    return "fast" if source.get("speed") == "fast" else sse.text(source.get("service_tier"))


def _usage(raw: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the usage in tollspan's meaning; None where one of its totals is no count.

    Anthropic's `input_tokens` leaves out cached tokens, which are added here. The headline also leaves out compaction,
    which the same model does at the same price (SDK reference, `BetaUsage.iterations`), so its iterations are added.
    Those of other models are not: see `_others`.
    """
    sources = [raw, *(item for item in _listed(raw.get("iterations")) if sse.at(item, "type") == "compaction")]
    fresh, written, read, out = (_sum(key, sources) for key in _TOTALS)
    if fresh is None or written is None or read is None or out is None:
        return None
    if raw.get("input_tokens") is None or raw.get("output_tokens") is None:
        return None
    parts = {
        "tokens_cache_read": read,
        "tokens_cache_write": written,
        **_written_for(written, [source.get("cache_creation") for source in sources]),
        "tokens_reasoning": sse.count(sse.at(raw, "output_tokens_details", "thinking_tokens")),
        "web_searches": sse.count(sse.at(raw, "server_tool_use", "web_search_requests")),
    }
    totals: dict[str, float] = {"tokens_in": fresh + written + read, "tokens_out": out}
    return totals | {key: value for key, value in parts.items() if value}


def _others(raw: Mapping[str, Any], answering: str | None) -> Iterator[tuple[str, dict[str, float]]]:
    """Give what other models than the one that answers have used: advisors, and those that declined half-way.

    The headline is of the model that answers. What was declined before any output is not billed (Anthropic's guide
    "Refusals and fallback").
    """
    for item in _listed(raw.get("iterations")):
        kind, model = sse.at(item, "type"), sse.text(sse.at(item, "model"))
        apart = kind == "advisor_message" or (kind in _ATTEMPTS and model != answering)
        if apart and model is not None and (usage := _usage(item)) is not None and usage["tokens_out"]:
            yield model, usage


def _sum(key: str, sources: Sequence[Any]) -> int | None:
    """Add up a count over its sources; None where one of them has something else there."""
    values = [sse.at(source, key) for source in sources]
    counts = [sse.count(value) for value in values if value is not None]
    return sum(count for count in counts if count is not None) if None not in counts else None


def _written_for(written: int, details: Sequence[Any]) -> dict[str, int]:
    """Split cache writes by time to live; where the total grew past its detail, the rest goes to the kind in use."""
    short, long = (_sum(f"ephemeral_{kind}_input_tokens", details) or 0 for kind in ("5m", "1h"))
    if short + long != written:
        short, long = (0, written) if long and not short else (max(written - long, 0), min(long, written))
    return {"tokens_cache_write_5m": short, "tokens_cache_write_1h": long}


def _typed(events: Iterator[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    return (event for event in events if event.get("type") == kind)


def _overlaid(start: object, last: object) -> dict[str, Any] | None:
    """Lay the counts of the last `message_delta` over those of `message_start`: they are cumulative, never added."""
    if not isinstance(last, dict) or sse.count(last.get("output_tokens")) is None:
        return None
    known = start if isinstance(start, dict) else {}
    return {**known, **{key: value for key, value in last.items() if value is not None}}


def _is_stopped(stream: bytes) -> bool:
    stops = _typed(sse.newest(stream, b'"message_stop"', start=-sse.TAIL_BYTES), "message_stop")
    return next(stops, None) is not None


def _visible(event: Mapping[str, Any]) -> int:
    """Add up text, thinking and arguments of calls in one event."""
    kind = event.get("type")
    if kind == "content_block_delta":
        delta = event.get("delta")
        return sum(sse.spoken_bytes(sse.at(delta, key)) for key in ("text", "thinking", "partial_json", "content"))
    if kind == "content_block_start":
        block = event.get("content_block")
        return sum(sse.spoken_bytes(sse.at(block, key)) for key in ("text", "thinking", "name"))
    return 0


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, bounds.SEQUENCES) else ()


def _kind(tool: object) -> str:
    return sse.text(tool.get("type") if isinstance(tool, Mapping) else getattr(tool, "type", None)) or ""


def _is_client_tool(tool: object) -> bool:
    return _kind(tool).startswith(_CLIENT_TOOLS)


def _unbounded(asked: Mapping[str, Any]) -> str | None:
    hosted = [tool for tool in _listed(asked.get("tools")) if not _is_client_tool(tool)]
    return bounds.given(asked, _UNBOUNDED) or bounds.hosted_tool(hosted, _OWN_TOOLS) or _compaction(asked)


def _compaction(asked: Mapping[str, Any]) -> str | None:
    management = asked.get("context_management")
    edits = _listed(management.get("edits")) if isinstance(management, Mapping) else ()
    return "server-side compaction" if any(_kind(edit).startswith("compact") for edit in edits) else None


def largest_image(model: str) -> int:
    """Give the most tokens that this model takes an image for; of a model that is not known, those of the newest."""
    return _LARGEST_IMAGE_BEFORE if _BEFORE.search(model) else _LARGEST_IMAGE


def image_tokens(image: object, model: str) -> int:
    """Bound an image (formula and source: see `_PATCH`); one of unknown size as the largest."""
    size = pixels(image)
    if size is None:
        return largest_image(model)
    patches = math.ceil(size[0] / _PATCH) * math.ceil(size[1] / _PATCH)
    return min(max(patches, math.ceil(size[0] * size[1] / _PIXELS_PER_TOKEN)), largest_image(model))


def _read_image(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    source = part.get("source")
    if not isinstance(source, Mapping):
        return None
    data = source.get("data")
    if isinstance(data, str) and pixels(data) is None:
        return None
    rest = (*bounds.without(source, "data"), *bounds.without(part, "source"))
    return image_tokens(data, model), _elsewhere("image", source), rest


def _read_document(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    source = part.get("source")
    if not isinstance(source, Mapping) or source.get("type") in ("text", "content"):
        return None
    data = source.get("data")
    if isinstance(data, str) and not data.startswith(_PDF_IN_BASE64):
        return None
    reason = _elsewhere("document", source)
    tokens, unknown = (0, None) if reason else document_tokens(data, largest_image(model))
    return tokens, reason or unknown, (*bounds.without(source, "data"), *bounds.without(part, "source"))


def _elsewhere(what: str, source: Mapping[str, Any]) -> str | None:
    if source.get("type") == "url":
        return f"{what} by URL"
    return "file held by the server" if source.get("type") == "file" or source.get("file_id") else None


def _read_upload(_part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    return 0, "file held by the server", ()


_MEDIA: dict[str, bounds.MediaReader] = {
    "container_upload": _read_upload,
    "document": _read_document,
    "image": _read_image,
}
