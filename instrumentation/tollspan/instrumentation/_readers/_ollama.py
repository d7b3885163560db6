"""Ollama's own API. Source: github.com/ollama/ollama, docs/api.md and api/types.go.

A server on one's own machine and Ollama's cloud speak it alike. What a local model costs, only its owner knows: without
a price set for it, its calls are unpriced.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _json_lines as json_lines
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._inline import pixels

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", bounds.number),
    "num_predict": ("gen_ai.request.max_tokens", sse.count),
    "presence_penalty": ("gen_ai.request.presence_penalty", bounds.number),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "stop": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
# Models scale an image to sizes of their own: Llama 4 makes up to 6,404 tokens, Qwen-VL one of each 28 x 28 pixels.
_IMAGE_TOKENS = 8_500
_PATCH_PIXELS = 28


class _Ollama(Flavour):
    """What its endpoints have in common."""

    __slots__ = ()
    vendor = "ollama"
    asked_keys: frozenset[str] = frozenset({"model"})
    terminal_marks: tuple[bytes, ...] = (b'"done":true', b'"done": true', b'"error"')

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. It streams unless told not to."""
        options = body.get("options")
        options = options if isinstance(options, Mapping) else {}
        streams = body.get("stream") is not False
        attributes = bounds.attributes(options, _ATTRIBUTES)
        return RequestFacts(
            measure=partial(_input_bound, body),
            model=sse.text(body.get("model")),
            stream=streams,
            # A negative one, which is no count, sets no limit.
            max_output_tokens=sse.count(options.get("num_predict")),
            attributes=attributes | {"gen_ai.request.stream": True} if streams else attributes,
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        return _facts(sse.parsed_object(body))

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The last line has the usage; a single line is a whole stream too."""
        stream = sse.normal(received)
        for last in json_lines.newest(stream, b'"done"'):
            if last.get("done") is True:
                return _facts(last)
        facts = ResponseFacts(complete=False)
        for line in json_lines.lines(stream):
            facts.model = facts.model or sse.text(line.get("model"))
            facts.visible_output_bytes += _visible(line)
            if error := line.get("error"):
                facts.error_type, facts.error_message = sse.failure(error)
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: the line that is `done`, or an error, after which nothing comes."""
        lines = (line for mark in (b'"done"', b'"error"') for line in json_lines.newest(sse.normal(tail), mark))
        return any(line.get("done") is True or "error" in line for line in lines)

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        options = arguments.get("options")
        options = dict(options) if isinstance(options, Mapping) else {}
        return {"options": options | {"num_predict": bounds.limited(options, "num_predict", tokens)}}


class _Chat(_Ollama):
    """`POST /api/chat`."""

    __slots__ = ()
    name = "ollama.chat"
    path_suffixes: tuple[str, ...] = ("/api/chat",)


class _Generate(_Ollama):
    """`POST /api/generate`. Models that make images stream their progress, and count no tokens."""

    __slots__ = ()
    name = "ollama.generate"
    operation = "text_completion"
    path_suffixes: tuple[str, ...] = ("/api/generate",)


class _Embed(_Ollama):
    """`POST /api/embed`, and the older `/api/embeddings`, whose answer has the numbers and nothing else."""

    __slots__ = ()
    name = "ollama.embed"
    operation = "embeddings"
    path_suffixes: tuple[str, ...] = ("/api/embed", "/api/embeddings")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output to bound."""
        attributes = {}
        if dimensions := sse.count(body.get("dimensions")):
            attributes["gen_ai.embeddings.dimension.count"] = dimensions
        return RequestFacts(
            measure=partial(bounds.input_bound, body, "input", {}, tools=False),
            model=sse.text(body.get("model")),
            max_output_tokens=0,
            attributes=attributes,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = _facts(answer)
        tokens = sse.count(answer.get("prompt_eval_count"))
        facts.usage = None if tokens is None else {"tokens_in": tokens, "tokens_out": 0}
        return facts

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`: nothing limits what is not there."""
        return {}


def _input_bound(body: Mapping[str, Any]) -> InputBound:
    """Bound text by its bytes; images, of which only the base64 is there, each by itself."""
    messages = body.get("messages")
    listed = messages if isinstance(messages, bounds.SEQUENCES) else ()
    texts = {**body, "messages": [_text_of(message) for message in listed]} if listed else body
    tools = bool(body.get("tools") or body.get("format"))
    tokens, endless = bounds.input_bound(_text_of(texts), "messages", {}, tools=tools)
    images = [image for holder in (body, *listed) for image in _images(holder)]
    return tokens + sum(map(_image_tokens, images)), endless


def _text_of(holder: Any) -> Any:
    return {k: v for k, v in holder.items() if k != "images"} if isinstance(holder, Mapping) else holder


def _images(holder: object) -> Sequence[Any]:
    images = holder.get("images") if isinstance(holder, Mapping) else None
    return images if isinstance(images, bounds.SEQUENCES) else ()


def _image_tokens(image: object) -> int:
    width, height = pixels(image) or (0, 0)
    return max(_IMAGE_TOKENS, math.ceil(width / _PATCH_PIXELS) * math.ceil(height / _PATCH_PIXELS))


def _facts(answer: Mapping[str, Any]) -> ResponseFacts:
    """Read an answer, or the last line of a stream."""
    facts = ResponseFacts(model=sse.text(answer.get("model")), usage=_usage(answer))
    facts.finish_reasons = tuple(filter(None, (sse.text(answer.get("done_reason")),)))
    facts.error_type, facts.error_message = sse.failure(answer.get("error"))
    return facts


def _usage(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the usage; a prompt that the server remembers whole is not evaluated, and has no count."""
    tokens_out = sse.count(answer.get("eval_count"))
    if tokens_out is None:
        return None
    tokens_in = sse.count(answer.get("prompt_eval_count"))
    return {"tokens_out": tokens_out} if tokens_in is None else {"tokens_in": tokens_in, "tokens_out": tokens_out}


def _visible(line: Mapping[str, Any]) -> int:
    message = line.get("message")
    spoken = [line.get("response"), line.get("thinking"), sse.at(message, "content"), sse.at(message, "thinking")]
    calls = sse.at(message, "tool_calls")
    called = bounds.walk(calls, {}, "")[0] if isinstance(calls, list) else 0
    return called + sum(map(sse.spoken_bytes, spoken))


OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED = _Chat(), _Generate(), _Embed()
OLLAMA: tuple[Reader, ...] = (OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED)
OLLAMA_FETCHES: tuple[Fetch, ...] = ()
