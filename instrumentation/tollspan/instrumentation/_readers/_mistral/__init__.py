"""Mistral's chat, which is OpenAI's but for a few things, and its conversations. Source: docs.mistral.ai/api."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._mistral._pieces import MISTRAL_PIECES
from tollspan.instrumentation._readers._openai._chat import OpenAIChat
from tollspan.instrumentation._readers._openai._inputs import MEDIA

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", bounds.number),
    "max_tokens": ("gen_ai.request.max_tokens", sse.count),
    "presence_penalty": ("gen_ai.request.presence_penalty", bounds.number),
    "random_seed": ("gen_ai.request.seed", bounds.integer),
    "stop": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_OWN_TOOLS = frozenset({"custom", "function"})
_HELD = {"agent_id": "agent held by the server"}
# With `prompt_mode`, the server puts a prompt of its own in front; those that are published have under 300 tokens.
_MODE_TOKENS = 512
# What its usage has beside OpenAI's. Sound that is heard is billed by the second, beside the tokens.
_BESIDE = (b'"connector_tokens"', b'"prompt_audio_seconds"')
_CONNECTORS: sse.Parts = (
    ("code_executions", (("code_interpreter",),)),
    ("images", (("image_generation",),)),
    ("storage_searches", (("document_library",),)),
)
_ENDS = (b"conversation.response.done", b"conversation.response.error")


class _MistralChat(OpenAIChat):
    """`POST .../chat/completions` and `.../agents/completions`. A stream tells its usage unasked."""

    __slots__ = ()
    name = "mistral.chat"
    vendor = "mistral_ai"
    path_suffixes: tuple[str, ...] = ()  # OpenAI's, and the rows say whose they are

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        facts = super().request(body, path)
        facts.measure = partial(_chat_bound, body, facts.measure)
        facts.find_units = partial(_heard_units, body)
        if (seed := bounds.integer(body.get("random_seed"))) is not None:
            facts.attributes["gen_ai.request.seed"] = seed
        return facts

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        if facts.usage is not None and any(key in body for key in _BESIDE):
            facts.usage = _usage(sse.at(sse.parsed_object(body), "usage")) or facts.usage
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`."""
        facts = super().stream(received)
        if facts.usage is not None and (found := [key for key in _BESIDE if key in received]):
            last: dict[str, Any] = next(sse.newest(sse.normal(received), found[0]), {})
            facts.usage = _usage(last.get("usage")) or facts.usage
        return facts

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        return {"max_tokens": bounds.limited(arguments, "max_tokens", tokens)}

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`."""
        return None


class _Fim(_MistralChat):
    """`POST /v1/fim/completions`: code between a prompt and a suffix. Answers have the shape of chat completions."""

    __slots__ = ()
    name = "mistral.fim"
    operation = "text_completion"
    path_suffixes: tuple[str, ...] = ("/fim/completions",)
    asked_keys: frozenset[str] = frozenset({"prompt"})


class _Conversations(Flavour):
    """`POST /v1/conversations` and what goes on with one. The server keeps it, and runs the tools of its own."""

    __slots__ = ()
    name = "mistral.conversations"
    vendor = "mistral_ai"
    path_suffixes: tuple[str, ...] = ("/conversations", "/restart")
    asked_keys: frozenset[str] = frozenset({"inputs"})
    terminal_marks: tuple[bytes, ...] = _ENDS

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        arguments = body.get("completion_args")
        arguments = arguments if isinstance(arguments, Mapping) else {}
        streams = body.get("stream") is True
        attributes = bounds.attributes(arguments, _ATTRIBUTES)
        return RequestFacts(
            measure=partial(_conversation_bound, body, is_new=not path or path.rstrip("/").endswith("/conversations")),
            model=sse.text(body.get("model")),
            stream=streams,
            max_output_tokens=sse.count(arguments.get("max_tokens")),
            attributes=attributes | {"gen_ai.request.stream": True} if streams else attributes,
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Only its entries have a model and an id of their own."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts(usage=_usage(answer.get("usage")))
        outputs = answer.get("outputs")
        _identify(facts, outputs if isinstance(outputs, list) else [])
        error = sse.error_in(answer) if "outputs" not in answer else None
        facts.error_type, facts.error_message = sse.failure(error)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`."""
        if sse.is_whole(received):
            return self.response(received)
        stream = sse.normal(received)
        end = _end(stream)
        facts = ResponseFacts(complete=end is not None, usage=_usage(sse.at(end, "usage")))
        _identify(facts, sse.oldest(stream, b'"message.output.delta"'))
        if end is not None and end.get("type") == _ENDS[1].decode():
            facts.error_type, facts.error_message = sse.failure({**end, "type": None})  # the event's, and no error's
        if facts.usage is None:
            facts.visible_output_bytes = sum(map(_visible, sse.events(stream)))
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return _end(sse.normal(tail)) is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        asked = arguments.get("completion_args")
        asked = dict(asked) if isinstance(asked, Mapping) else {}
        return {"completion_args": asked | {"max_tokens": bounds.limited(asked, "max_tokens", tokens)}}


# ---- requests


def _chat_bound(body: Mapping[str, Any], measure: Any) -> InputBound:
    tokens, endless = measure()
    own = _MODE_TOKENS if body.get("prompt_mode") else 0
    heard = "sound is billed by the second" if _heard_units(body) else None
    return tokens + own, bounds.given(body, _HELD) or heard or endless


def _heard_units(body: Mapping[str, Any]) -> tuple[str, ...]:
    return ("audio_seconds",) if any(map(_is_sound, _parts(body.get("messages")))) else ()


def _is_sound(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "input_audio"


def _parts(messages: object) -> Iterator[Any]:
    for message in messages if isinstance(messages, bounds.SEQUENCES) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        yield from content if isinstance(content, bounds.SEQUENCES) else ()


def _conversation_bound(body: Mapping[str, Any], *, is_new: bool) -> InputBound:
    tokens, endless = bounds.input_bound(body, "inputs", MEDIA, tools=bool(body.get("tools")))
    held = None if is_new else "conversation held by the server"
    hosted = bounds.hosted_tool(body.get("tools"), _OWN_TOOLS)
    return tokens, held or bounds.given(body, _HELD) or hosted or endless


# ---- answers


def _usage(raw: Any) -> dict[str, float] | None:
    """Give the usage. What the server's own tools bring into the prompt is counted apart from it, and billed alike."""
    tokens_in, tokens_out = sse.count(sse.at(raw, "prompt_tokens")), sse.count(sse.at(raw, "completion_tokens"))
    if tokens_in is None or tokens_out is None:
        return None
    brought = sse.count(raw.get("connector_tokens")) or 0
    inside = sse.count(raw.get("total_tokens")) == tokens_in + tokens_out
    usage: dict[str, float] = {"tokens_in": tokens_in + (0 if inside else brought), "tokens_out": tokens_out}
    usage |= sse.counts(raw, _PARTS)
    if seconds := bounds.number(raw.get("prompt_audio_seconds")):
        usage["audio_seconds"] = seconds
    tools = raw.get("connectors")
    return usage | _tools_used(tools) if isinstance(tools, dict) else usage


_PARTS: sse.Parts = (
    ("tokens_cache_read", (("prompt_tokens_details", "cached_tokens"), ("num_cached_tokens",))),
    ("tokens_reasoning", (("completion_tokens_details", "reasoning_tokens"),)),
)


def _tools_used(tools: Mapping[str, Any]) -> dict[str, float]:
    searches = sum(sse.count(tools.get(name)) or 0 for name in ("web_search", "web_search_premium"))
    return sse.counts(tools, _CONNECTORS) | ({"web_searches": searches} if searches else {})


def _identify(facts: ResponseFacts, entries: Any) -> None:
    """Take the model and the id of the first entries that have them."""
    for entry in entries:
        if sse.at(entry, "type") in ("message.output", "message.output.delta", "function.call"):
            facts.model = facts.model or sse.text(entry.get("model"))
            facts.response_id = facts.response_id or sse.text(entry.get("id"))
        if facts.model and facts.response_id:
            return


def _end(stream: bytes) -> dict[str, Any] | None:
    for mark in _ENDS:
        for event in sse.newest(stream, mark):
            if event.get("type") == mark.decode():
                return event
    return None


def _visible(event: Mapping[str, Any]) -> int:
    """Measure what a delta brings: text, or the name and the arguments of a call."""
    if event.get("type") not in ("message.output.delta", "function.call.delta"):
        return 0
    return sum(sse.spoken_bytes(event.get(key)) for key in ("content", "name", "arguments"))


MISTRAL_CHAT, MISTRAL_FIM, MISTRAL_CONVERSATIONS = _MistralChat(), _Fim(), _Conversations()
MISTRAL: tuple[Reader, ...] = (MISTRAL_FIM, MISTRAL_CONVERSATIONS, *MISTRAL_PIECES)
MISTRAL_FETCHES: tuple[Fetch, ...] = ()
