"""Bedrock's Converse: one shape for the models of all vendors, with usage in the answer or in the last event."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _aws_frames as aws
from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._anthropic._messages import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._bedrock._media import input_bound
from tollspan.instrumentation._readers._bedrock._shape import (
    ERROR_HEADER,
    limits,
    lowered,
    model_in,
    spare_tokens,
    take_error,
    take_error_type,
    tier_of,
    usage_of,
)
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "maxTokens": ("gen_ai.request.max_tokens", sse.count),
    "stopSequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "topP": ("gen_ai.request.top_p", bounds.number),
}
_KEPT_PROMPT = ":prompt/"


class _Converse(Flavour):
    """`POST .../model/{id}/converse` and `.../converse-stream`."""

    __slots__ = ()
    name = "aws.bedrock.converse"
    vendor = "aws.bedrock"
    path_suffixes: tuple[str, ...] = ("/converse", "/converse-stream")
    asked_keys: frozenset[str] = frozenset({"messages", "promptVariables"})
    terminal_marks: tuple[bytes, ...] = (b"metadata",)
    header_names: tuple[str, ...] = (ERROR_HEADER,)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        model = model_in(path)
        stream = path.rstrip("/").endswith("-stream")
        inference = _object(body, "inferenceConfig")
        attributes = bounds.attributes(inference, _ATTRIBUTES)
        if stream:
            attributes["gen_ai.request.stream"] = True
        largest = max((limit for _, limit in (*limits(body), *limits(_more(body)))), default=None)
        return RequestFacts(
            measure=partial(_input_bound, body, model),
            model=model,
            stream=stream,
            max_output_tokens=None if largest is None else largest + spare_tokens(model),
            service_tier=tier_of(body),
            attributes=attributes,
            limitable=_KEPT_PROMPT not in (model or ""),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        return _facts(sse.parsed_object(body))

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The last event, `metadata`, holds the usage; `messageStop`, before it, the reason."""
        if sse.is_whole(received):
            return self.response(received)
        events = aws.frames(received)
        facts = _facts(_newest(events, "metadata") or {})
        facts.complete = facts.usage is not None
        facts.finish_reasons = _reasons(_newest(events, "messageStop") or {})
        if facts.usage is None:
            facts.visible_output_bytes = sum(map(_visible, events))
            facts.error_type, facts.error_message = aws.failure(events)
        return facts

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`."""
        take_error_type(facts, headers)

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: a `metadata` event."""
        return _newest(aws.frames(tail), "metadata") is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. A budget for thinking is lowered with it."""
        model = sse.text(arguments.get("modelId"))
        tokens = max(tokens - spare_tokens(model), 1)
        inference, more = _object(arguments, "inferenceConfig"), _more(arguments)
        limit = bounds.limited(inference, "maxTokens", tokens)
        changes: dict[str, Any] = {"inferenceConfig": {**inference, "maxTokens": limit}}
        changed = lowered(more, (path for path, _ in limits(more)), tokens)
        if "thinking" in more:
            thought = ANTHROPIC_MESSAGES.with_output_limit({"thinking": more["thinking"]}, limit)
            changed |= {key: value for key, value in thought.items() if key == "thinking"}
        return changes | ({"additionalModelRequestFields": {**more, **changed}} if changed else {})


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def _more(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what goes to the model as it is, where a limit in the model's own words can stand, too."""
    return _object(body, "additionalModelRequestFields")


def _input_bound(body: Mapping[str, Any], model: str | None) -> InputBound:
    tokens, endless = input_bound(body, model)
    return tokens, endless or ("prompt kept by the server" if _KEPT_PROMPT in (model or "") else None)


def _facts(answer: Mapping[str, Any]) -> ResponseFacts:
    """Give the facts of an answer, or of a `metadata` event. Its model is only named where a router chose it."""
    raw = answer.get("usage")
    facts = ResponseFacts(
        model=sse.text(sse.at(answer.get("trace"), "promptRouter", "invokedModelId")),
        usage=usage_of(raw) if isinstance(raw, dict) else None,
        finish_reasons=_reasons(answer),
        service_tier=tier_of(answer),
    )
    take_error(facts, answer)
    return facts


def _reasons(answer: Mapping[str, Any]) -> tuple[str, ...]:
    reason = sse.text(answer.get("stopReason"))
    return () if reason is None else (reason,)


def _newest(events: list[aws.Frame], kind: str) -> dict[str, Any] | None:
    """Give the last event of a kind."""
    for frame in reversed(events):
        if frame.kind == kind and isinstance(found := sse.parsed(frame.payload), dict):
            return found
    return None


def _visible(frame: aws.Frame) -> int:
    """Add up text, reasoning and arguments of calls in one event."""
    if frame.kind not in ("contentBlockDelta", "contentBlockStart"):
        return 0
    told = sse.parsed(frame.payload)
    delta = sse.at(told, "delta") or sse.at(told, "start")
    places = (("text",), ("toolUse", "input"), ("toolUse", "name"), ("reasoningContent", "text"))
    return sum(sse.spoken_bytes(sse.at(delta, *place)) for place in places)


BEDROCK_CONVERSE = _Converse()
