"""Google's Interactions API, of Gemini and Vertex AI."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._gemini._bounds import media_tokens
from tollspan.instrumentation._readers._gemini._names import failure
from tollspan.instrumentation._readers._gemini._usage import interaction_usage

_CONFIG, _LIMIT = "generation_config", "max_output_tokens"
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "max_output_tokens": ("gen_ai.request.max_tokens", sse.count),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "stop_sequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_OWN_TOOLS = frozenset({"computer_use", "function"})
_UNBOUNDED = {
    "agent": "agent",
    "agent_config": "agent",
    "background": "background interaction",
    "cached_content": "cached content",
    "continuation_token": "continued generation",
    "environment": "environment",
    "previous_interaction_id": "previous interaction",
}
_UNFINISHED = frozenset({"in_progress", "queued"})
_TERMINAL = ("interaction.completed", "interaction.complete")
_MEDIA_UNITS = {"audio": "tokens_audio_in", "image": "tokens_image_in", "video": "tokens_video_in"}
_MADE_UNITS = {"audio": "tokens_audio_out", "image": "tokens_image_out", "video": "tokens_video_out"}
_DEPTH = 6


class _Interactions(Flavour):
    """`POST .../interactions`."""

    __slots__ = ()
    name = "gemini.interactions"
    vendor = "gcp.gemini"
    asked_keys = frozenset({"agent", "model"})
    terminal_marks: tuple[bytes, ...] = (b"interaction.complete",)
    path_suffixes: tuple[str, ...] = ("/interactions",)
    fetchable = True

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        given = body.get(_CONFIG)
        config = given if isinstance(given, Mapping) else {}
        return RequestFacts(
            measure=partial(_input_bound, body),
            model=_model(body),
            stream=bool(body.get("stream")),
            max_output_tokens=sse.count(config.get(_LIMIT)),
            service_tier=sse.text(body.get("service_tier")),
            attributes=bounds.attributes(config, _ATTRIBUTES),
            find_units=partial(_units, body),
            limitable=not (body.get("agent") or body.get("agent_config")),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = _facts(answer)
        facts.error_type, facts.error_message = failure(answer)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The terminal event holds the interaction, with its usage."""
        if sse.is_whole(received):
            return self.response(received)
        stream = sse.normal(received)
        terminal = _terminal(stream)
        if terminal is None:
            return _walked(stream)
        facts = _facts(terminal["interaction"])
        if facts.usage is None:
            facts.visible_output_bytes = sum(map(_visible, sse.events(stream)))
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: `interaction.completed`."""
        return _terminal(sse.normal(tail)) is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        given = arguments.get(_CONFIG)
        config = given if isinstance(given, Mapping) else {}
        return {_CONFIG: {**config, _LIMIT: bounds.limited(config, _LIMIT, tokens)}}


INTERACTIONS = _Interactions()
INTERACTION_FETCHES = (Fetch(r".*/interactions/[^/]+/?", INTERACTIONS, lambda body: (INTERACTIONS.stream(body),)),)


def _model(source: Mapping[str, Any]) -> str | None:
    name = sse.text(source.get("model")) or sse.text(source.get("agent"))
    return name.rpartition("models/")[2] or None if name else None


def _facts(answer: Mapping[str, Any]) -> ResponseFacts:
    status = sse.text(answer.get("status"))
    finished = status is not None and status not in _UNFINISHED
    return ResponseFacts(
        model=_model(answer),
        response_id=sse.text(answer.get("id")),
        usage=interaction_usage(answer.get("usage")) if finished else None,
        finish_reasons=(status,) if finished and status else (),
        service_tier=sse.text(answer.get("service_tier")),
        created=_seconds(answer.get("created")),
    )


def _seconds(value: object) -> float | None:
    """Give the epoch seconds of a time in ISO 8601; None for any other."""
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _terminal(stream: bytes) -> dict[str, Any] | None:
    found = (event for event in sse.newest(stream, b'"interaction.complete') if event.get("event_type") in _TERMINAL)
    return next((event for event in found if isinstance(event.get("interaction"), dict)), None)


def _walked(stream: bytes) -> ResponseFacts:
    """Read a stream without its terminal event, event by event."""
    facts = ResponseFacts(complete=False)
    for event in sse.events(stream):
        if isinstance(answer := event.get("interaction"), dict):
            facts.model = _model(answer) or facts.model
            facts.response_id = sse.text(answer.get("id")) or facts.response_id
        if event.get("event_type") == "error" or event.get("error"):
            facts.error_type, facts.error_message = failure(event)
        facts.visible_output_bytes += _visible(event)
    return facts


def _visible(event: Mapping[str, Any]) -> int:
    """Add up text, summaries of thoughts, and arguments of calls in one event."""
    delta = event.get("delta")
    if not isinstance(delta, dict):
        return 0
    arguments = delta.get("arguments")
    spoken = sum(sse.spoken_bytes(delta.get(key)) for key in ("text", "content", "code"))
    return spoken + (bounds.walk(arguments, {}, "")[0] if arguments is not None else 0)


def _input_bound(body: Mapping[str, Any]) -> InputBound:
    tools = bool(body.get("tools") or body.get("response_format"))
    tokens, endless = bounds.input_bound(body, "input", _MEDIA, tools=tools)
    reason = bounds.given(body, _UNBOUNDED) or bounds.hosted_tool(body.get("tools"), _OWN_TOOLS)
    return tokens, reason or endless


def _units(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what an interaction reads and makes besides text: not every model has a price for it."""
    read = set(_kinds(body.get("input")))
    wanted = {kind.lower() for kind in bounds.strings(body.get("response_modalities")) or ()}
    formats = body.get("response_format")
    wanted |= set(_kinds(formats))
    units = [unit for kind, unit in _MEDIA_UNITS.items() if kind in read]
    return (*units, *(unit for kind, unit in _MADE_UNITS.items() if kind in wanted))


def _kinds(value: object, depth: int = _DEPTH) -> Iterator[str]:
    """Give the types of content in an input, which may be inside of its steps."""
    if isinstance(value, list) and depth:
        for item in value:
            yield from _kinds(item, depth - 1)
    elif isinstance(value, dict) and depth:
        if kind := sse.text(value.get("type")):
            yield kind
        yield from _kinds(value.get("content"), depth - 1)


def _read_media(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    if part.get("uri"):
        return 0, f"{part['type']} by URI", ()
    if "data" not in part:
        return None
    mime_type = sse.text(part.get("mime_type")) or str(part["type"])
    level = sse.text(part.get("resolution"))
    return *media_tokens(part["data"], mime_type, model, level=level), bounds.without(part, "data")


_MEDIA: dict[str, bounds.MediaReader] = dict.fromkeys(("audio", "document", "file", "image", "video"), _read_media)
