"""OpenAI's Responses API."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import LITELLM_COST, cost_of, take_stated_cost
from tollspan.instrumentation._readers._openai._images import drawn_tokens
from tollspan.instrumentation._readers._openai._inputs import MEDIA as CHAT_MEDIA
from tollspan.instrumentation._readers._openai._inputs import file_bound, image_tokens

# The API refuses a smaller `max_output_tokens`.
FEWEST_OUTPUT_TOKENS = 16

_TERMINAL = {
    b'"response.completed"': "response.completed",
    b'"response.incomplete"': "response.incomplete",
    b'"response.failed"': "response.failed",
}
_UNFINISHED = frozenset({"in_progress", "queued"})
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "max_output_tokens": ("gen_ai.request.max_tokens", sse.count),
    "service_tier": ("openai.request.service_tier", sse.text),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_OWN_TOOLS = frozenset({"custom", "function", "namespace"})
_UNBOUNDED = {
    "previous_response_id": "previous_response_id",
    "conversation": "conversation",
    "prompt": "stored prompt",
    "background": "background response",
    "context_management": "server-side compaction",
    "plugins": "hosted plugins",
    "models": "fallback models",
}
_PARTS: sse.Parts = (
    ("tokens_cache_read", (("input_tokens_details", "cached_tokens"),)),
    ("tokens_cache_write", (("input_tokens_details", "cache_write_tokens"),)),
    ("tokens_reasoning", (("output_tokens_details", "reasoning_tokens"),)),
    ("tokens_audio_in", (("input_tokens_details", "audio_tokens"),)),
    ("tokens_audio_out", (("output_tokens_details", "audio_tokens"),)),
)
_DRAWING = "image_generation"


class _OpenAIResponses(Flavour):
    """`POST .../responses`; `.../responses/compact` and `.../decisions`, which take such input too, and no maximum."""

    __slots__ = ()
    name = "openai.responses"
    vendor = "openai"
    terminal_marks: tuple[bytes, ...] = (b"response.completed", b"response.incomplete", b"response.failed")
    header_names: tuple[str, ...] = (LITELLM_COST,)
    path_suffixes: tuple[str, ...] = ("/responses", "/responses/compact", "/v1/decisions")
    fetchable = True

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=partial(_input_bound, asked),
            model=sse.text(asked.get("model")),
            stream=bool(asked.get("stream")),
            max_output_tokens=sse.count(asked.get("max_output_tokens")),
            service_tier=sse.text(asked.get("service_tier")),
            attributes=bounds.attributes(asked, _ATTRIBUTES),
            limitable=not path.endswith(("/compact", "/decisions")),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. The status stands for a finish reason, or the reason of an incomplete answer does."""
        answer = sse.parsed_object(body)
        facts = _facts(answer)
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The terminal event holds the whole response, its usage included."""
        if sse.is_whole(received):
            return self.response(received)
        stream = sse.normal(received)
        terminal = _terminal(stream)
        if terminal is None:
            return _walked(stream)
        answer = terminal["response"]
        facts = _facts(answer)
        facts.error_type, facts.error_message = sse.failure(answer.get("error"))
        if facts.usage is None:
            facts.visible_output_bytes = sum(map(_visible, sse.events(stream)))
        return facts

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`: the cost that LiteLLM's proxy states."""
        take_stated_cost(facts, headers)

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: `response.completed`, `.incomplete` or `.failed`."""
        return _terminal(sse.normal(tail)) is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. Never below `FEWEST_OUTPUT_TOKENS`, which the API would refuse."""
        limit = bounds.limited(bounds.effective(arguments), "max_output_tokens", max(tokens, FEWEST_OUTPUT_TOKENS))
        return bounds.placed(arguments, {"max_output_tokens": limit})


OPENAI_RESPONSES = _OpenAIResponses()


def _input_bound(asked: Mapping[str, Any]) -> InputBound:
    tools = bool(asked.get("tools") or asked.get("text") or asked.get("text_format"))
    tokens, endless = bounds.input_bound(asked, "input", _MEDIA, tools=tools)
    return tokens, _unbounded(asked) or endless


def _facts(answer: Mapping[str, Any]) -> ResponseFacts:
    """Take what a response object tells, but for its error."""
    status = sse.text(answer.get("status"))
    reason = sse.text(sse.at(answer.get("incomplete_details"), "reason")) or status
    return ResponseFacts(
        model=sse.text(answer.get("model")),
        response_id=sse.text(answer.get("id")),
        usage=_usage(answer),
        finish_reasons=() if reason is None or status in _UNFINISHED else (reason,),
        service_tier=sse.text(answer.get("service_tier")),
        created=sse.count(answer.get("created_at")),
        cost_usd=cost_of(answer.get("usage")),
        others=tuple(_drawn(answer)),
    )


def _usage(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the usage in tollspan's meaning; None where input or output is not a count."""
    raw = answer.get("usage")
    tokens_in, tokens_out = sse.count(sse.at(raw, "input_tokens")), sse.count(sse.at(raw, "output_tokens"))
    if not isinstance(raw, dict) or tokens_in is None or tokens_out is None:
        return None
    usage: dict[str, float] = {"tokens_in": tokens_in, "tokens_out": tokens_out, **sse.counts(raw, _PARTS)}
    calls = {"web_searches": _web_searches(answer), "storage_searches": len(_calls(answer, "file_search_call"))}
    return usage | {unit: count for unit, count in calls.items() if count}


def _web_searches(answer: Mapping[str, Any]) -> int:
    """Count the billed web searches, where they are not told: to open a page that was found is none of its own."""
    told = sse.count(sse.at(answer.get("tool_usage"), "web_search", "num_requests"))
    calls = _calls(answer, "web_search_call")
    return sum(sse.at(call, "action", "type") in (None, "search") for call in calls) if told is None else told


def _calls(answer: Mapping[str, Any], kind: str) -> list[Any]:
    output = answer.get("output")
    return [item for item in output if sse.at(item, "type") == kind] if isinstance(output, list) else []


def _drawn(answer: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Give what the image tool has used, which has a model of its own. Where nobody named that one, it has no price."""
    usage = drawn_tokens(sse.at(answer.get("tool_usage"), "image_gen"))
    if not usage or not usage["tokens_out"]:
        return
    tools = answer.get("tools")
    drawing = [tool for tool in tools if sse.at(tool, "type") == _DRAWING] if isinstance(tools, list) else []
    yield next((model for tool in drawing if (model := sse.text(sse.at(tool, "model")))), _DRAWING), usage


def _terminal(stream: bytes) -> dict[str, Any] | None:
    for mark, kind in _TERMINAL.items():
        for event in sse.newest(stream, mark):
            if event.get("type") == kind and isinstance(event.get("response"), dict):
                return event
    return None


def _walked(stream: bytes) -> ResponseFacts:
    """Read a stream without its terminal event, event by event."""
    facts = ResponseFacts(complete=False)
    for event in sse.events(stream):
        answer = event.get("response")
        if isinstance(answer, dict):
            facts.model = sse.text(answer.get("model")) or facts.model
            facts.response_id = sse.text(answer.get("id")) or facts.response_id
            facts.service_tier = sse.text(answer.get("service_tier")) or facts.service_tier
        if event.get("type") == "error" or event.get("error"):
            facts.error_type, facts.error_message = sse.failure(sse.error_in(event))
        facts.visible_output_bytes += _visible(event)
    return facts


def _visible(event: Mapping[str, Any]) -> int:
    """Add up text, reasoning and arguments of calls in one event; audio comes as base64 and is left out."""
    kind = event.get("type")
    if not isinstance(kind, str) or not kind.endswith(".delta") or kind == "response.audio.delta":
        return 0
    delta = event.get("delta")
    return sse.utf8_bytes(delta) if isinstance(delta, str) else 0


def _unbounded(asked: Mapping[str, Any]) -> str | None:
    if reason := bounds.given(asked, _UNBOUNDED) or bounds.hosted_tool(asked.get("tools"), _OWN_TOOLS):
        return reason
    reasoning = asked.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("mode") == "pro":
        return "reasoning mode pro"
    given = asked.get("input")
    items = [item for item in given if type(item) is dict] if isinstance(given, bounds.SEQUENCES) else []
    return _hosted_within(items) or _held(items)


def _hosted_within(items: Sequence[dict[str, Any]]) -> str | None:
    more = [item.get("tools") for item in items if item.get("type") == "additional_tools"]
    return next((reason for tools in more if (reason := bounds.hosted_tool(tools, _OWN_TOOLS))), None)


def _held(items: Sequence[dict[str, Any]]) -> str | None:
    """Say why the items of an input are more than they show: some only name what the server holds."""
    for item in items:
        kind = item.get("type")
        if kind == "item_reference" or (kind is None and "id" in item and "role" not in item):
            return "item held by the server"
        if kind == "reasoning" and not (item.get("encrypted_content") or item.get("content")) and item.get("id"):
            return "reasoning held by the server"
    return None


def _read_image(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    if part.get("file_id"):
        return 0, "file held by the server", ()
    image = part.get("image_url")
    if not isinstance(image, str):
        return None
    return *image_tokens(image, model, part.get("detail")), bounds.without(part, "image_url")


def _read_file(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    return *file_bound(part, model), bounds.without(part, "file_data")


def _read_generated(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    if not isinstance(part.get("result"), str):
        return 0, "image held by the server", ()
    return *image_tokens(part["result"], model), bounds.without(part, "result")


_MEDIA: dict[str, bounds.MediaReader] = {
    **CHAT_MEDIA,
    "computer_screenshot": _read_image,
    "image_generation_call": _read_generated,
    "input_file": _read_file,
    "input_image": _read_image,
}
