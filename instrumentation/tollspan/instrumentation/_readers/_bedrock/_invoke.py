"""Bedrock's InvokeModel: each family of models in its own words. They are told by what stands in request and answer.

An id does not always tell the family: a profile or an endpoint of one's own has an ARN without a name. What every
family has in common: token counts in headers, and in the last event of a stream.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tollspan.instrumentation._readers import _aws_frames as aws
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._anthropic._messages import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._bedrock._requests import limited, request_facts
from tollspan.instrumentation._readers._bedrock._shape import ERROR_HEADER, take_error, take_error_type, usage_of
from tollspan.instrumentation._readers._facts import Flavour, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OPENAI_CHAT

_METRICS = "amazon-bedrock-invocationMetrics"
_COUNTS = {
    "x-amzn-bedrock-input-token-count": "inputTokenCount",
    "x-amzn-bedrock-output-token-count": "outputTokenCount",
    "x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
    "x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
}
_TIER_HEADERS = ("x-amzn-bedrock-service-tier", "x-amzn-bedrock-performanceconfig-latency")
_REASONS = ("stop_reason", "stopReason", "finish_reason", "finishReason", "completionReason")
_RESULTS = ("results", "outputs", "generations", "choices", "completions", "artifacts")
# Titan; Llama.
_TOTALS = (("inputTextTokenCount", "totalOutputTextTokenCount"), ("prompt_token_count", "generation_token_count"))
_SAID = (
    ("text",), ("outputText",), ("generation",), ("completion",), ("delta", "content"), ("message", "content"),
    ("contentBlockDelta", "delta", "text"), ("contentBlockDelta", "delta", "toolUse", "input"),
)  # fmt: skip


class _Invoke(Flavour):
    """`POST .../model/{id}/invoke` and `.../invoke-with-response-stream`, and `.../async-invoke`."""

    __slots__ = ()
    name = "aws.bedrock.invoke"
    vendor = "aws.bedrock"
    path_suffixes: tuple[str, ...] = ("/invoke", "/invoke-with-response-stream", "/async-invoke")
    asked_keys: frozenset[str] = frozenset(
        {
            "anthropic_version", "inferenceConfig", "inputText", "max_gen_len", "message", "messages", "modelInput",
            "prompt", "query", "taskType", "textGenerationConfig", "text_prompts", "texts",
        }
    )  # fmt: skip
    terminal_marks: tuple[bytes, ...] = aws.in_base64(b"invocationMetrics")
    header_names: tuple[str, ...] = (*_COUNTS, *_TIER_HEADERS, ERROR_HEADER)
    names_model = False

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        return request_facts(body, path)

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Where the body tells no usage, the headers may: see `take_headers`."""
        answer = sse.parsed_object(body)
        facts = _facts(answer, body)
        facts.error_type, facts.error_message = sse.failure(sse.text(answer.get("error")))
        take_error(facts, answer)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. Where a family tells more than the counts of the last event, that is taken."""
        if sse.is_whole(received):
            return self.response(received)
        frames = aws.frames(received)
        told = [(event, chunk) for chunk in aws.chunks(frames) if isinstance(event := sse.parsed(chunk), dict)]
        events = [event for event, _ in told]
        if any(event.get("type") in ("message_start", "message_delta") for event in events):
            facts = ANTHROPIC_MESSAGES.stream(aws.as_server_sent([chunk for _, chunk in told], aws.failure(frames)))
            facts.model = None
        else:
            facts = _of_events(told)
        metrics = next((found for event in reversed(events) if (found := event.get(_METRICS))), None)
        if facts.usage is None and isinstance(metrics, dict):
            facts.usage = usage_of(metrics)
        facts.complete = facts.complete or metrics is not None
        if facts.usage is None and not facts.visible_output_bytes:
            facts.visible_output_bytes = sum(map(_visible, events))
        if not facts.complete:
            facts.error_type, facts.error_message = aws.failure(frames)
        return facts

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`. The counts, where the body has none; the tier; the type of an error."""
        take_error_type(facts, headers)
        counts = {key: int(value) for name, key in _COUNTS.items() if (value := headers.get(name, "")).isdecimal()}
        if facts.usage is None and facts.complete:
            facts.usage = usage_of(counts)
        tier, latency = (headers.get(name) for name in _TIER_HEADERS)
        facts.service_tier = "optimized" if latency == "optimized" else tier or facts.service_tier

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: the event with the counts."""
        return any(_METRICS.encode() in chunk for chunk in aws.chunks(aws.frames(tail)))

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. Keeps to the keys that the caller uses; else the one that the model takes."""
        return limited(arguments, tokens)


def _facts(answer: Mapping[str, Any], body: bytes) -> ResponseFacts:
    """Give the facts of an answer of any family.

    The model that some of them name has no region, by which Bedrock bills: the one that was asked for stands.
    """
    reasons = tuple(dict.fromkeys(_reasons(answer)))
    return ResponseFacts(response_id=sse.text(answer.get("id")), usage=_usage(answer, body), finish_reasons=reasons)


def _usage(answer: Mapping[str, Any], body: bytes) -> dict[str, float] | None:
    raw = answer.get("usage")
    if not isinstance(raw, dict):
        return _counted(answer)
    if "prompt_tokens" in raw:
        return OPENAI_CHAT.response(body).usage
    return ANTHROPIC_MESSAGES.response(body).usage if "input_tokens" in raw else usage_of(raw)


def _counted(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the usage that an answer tells without a `usage`: Titan and Llama in tokens, image models in images."""
    for key_in, key_out in _TOTALS:
        if (tokens_in := sse.count(answer.get(key_in))) is not None:
            is_embedding = "embedding" in answer or "embeddingsByType" in answer
            tokens_out = 0 if is_embedding else _spoken(answer, key_out)
            return None if tokens_out is None else {"tokens_in": tokens_in, "tokens_out": tokens_out}
    images = answer.get("images") or answer.get("artifacts")
    listed = images if isinstance(images, list) else []
    made = sum(isinstance(image, str) or bool(sse.at(image, "base64")) for image in listed)
    return {"images": made} if made else None


def _spoken(answer: Mapping[str, Any], key: str) -> int | None:
    """Give the output tokens under a key, or else those of all results of Titan's."""
    counts = [sse.count(result.get("tokenCount")) for result in _objects(answer, "results")]
    told = sum(count for count in counts if count is not None) if counts and None not in counts else None
    return told if (total := sse.count(answer.get(key))) is None else total


def _of_events(told: list[tuple[dict[str, Any], bytes]]) -> ResponseFacts:
    """Give the facts that the events of a stream tell, but for the counts of the last one."""
    facts = ResponseFacts(complete=False)
    for event, chunk in reversed(told):
        raw = sse.at(event, "metadata", "usage")
        totals = "usage" in event or event.get("totalOutputTextTokenCount") is not None
        facts.usage = usage_of(raw) if isinstance(raw, dict) else _usage(event, chunk) if totals else None
        if facts.usage is not None:
            facts.complete = True
            break
    reasons = [reason for event, _ in told for reason in _reasons(event)]
    facts.finish_reasons = tuple(dict.fromkeys(reasons))
    facts.response_id = next((found for event, _ in told if (found := sse.text(event.get("id")))), None)
    return facts


def _objects(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    listed = answer.get(key)
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _results(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give an answer or an event, and all results that it lists."""
    yield answer
    for key in _RESULTS:
        yield from _objects(answer, key)


def _reasons(answer: Mapping[str, Any]) -> Iterator[str]:
    """Give why generation ended, for each result of an answer or an event."""
    for result in (*_results(answer), sse.at(answer, "messageStop")):
        for key in _REASONS if isinstance(result, dict) else ():
            reason = result.get(key)
            if found := sse.text(reason) or sse.text(sse.at(reason, "reason")):
                yield found


def _visible(event: Mapping[str, Any]) -> int:
    """Add up what one event of a stream says."""
    return sum(sse.spoken_bytes(sse.at(result, *path)) for result in _results(event) for path in _SAID)


BEDROCK_INVOKE = _Invoke()
