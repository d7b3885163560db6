"""Hugging Face's tasks: text generation as its server (TGI) speaks it, and others, which tell little of their usage.

Their requests go to the address of a model, which says nothing of the task: the call site does. Source:
huggingface.co/docs, "Inference Providers, API reference", and the OpenAPI document of text-generation-inference.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._completions import OPENAI_COMPLETIONS

_HEADERS = {"x-prompt-tokens": "tokens_in", "x-generated-tokens": "tokens_out"}
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", bounds.number),
    "max_new_tokens": ("gen_ai.request.max_tokens", sse.count),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "stop": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}


class _Generation(Flavour):
    """`POST /`, `/generate`, `/generate_stream` and `/models/{model}` of text generation."""

    __slots__ = ()
    name = "huggingface.generation"
    vendor = "huggingface"
    operation = "text_completion"
    asked_keys: frozenset[str] = frozenset({"inputs", "prompt"})
    path_suffixes: tuple[str, ...] = ()
    header_names = tuple(_HEADERS)
    names_model = False

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Behind some providers this task speaks OpenAI's completions."""
        if "prompt" in body:
            return OPENAI_COMPLETIONS.request(body, path)
        parameters = body.get("parameters")
        parameters = parameters if isinstance(parameters, Mapping) else {}
        return RequestFacts(
            measure=partial(bounds.input_bound, body, "inputs", {}, tools=False),
            model=model_in(path),
            stream=bool(body.get("stream")),
            max_output_tokens=sse.count(parameters.get("max_new_tokens")),
            choices=sse.count(parameters.get("best_of")) or 1,
            attributes=bounds.attributes({**parameters, "stream": body.get("stream")}, _ATTRIBUTES),
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Prompt tokens are told by a header only, or by a list of them."""
        value = sse.parsed(body)
        if isinstance(value, dict) and "choices" in value:
            return OPENAI_COMPLETIONS.response(body)
        answer = sse.parsed_object(body)
        facts = ResponseFacts(complete=value is not None)
        _take_details(facts, answer)
        facts.error_type, facts.error_message = _failure(answer)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The last event holds the details."""
        if sse.is_whole(received) or received.startswith(b"["):
            return self.response(received)
        stream = sse.normal(received)
        if b'"choices"' in stream:
            return OPENAI_COMPLETIONS.stream(received)
        facts = ResponseFacts(complete=False)
        for event in sse.events(stream):
            if event.get("details"):
                _take_details(facts, event)
            facts.complete = facts.complete or isinstance(event.get("generated_text"), str)
            facts.visible_output_bytes += sse.spoken_bytes(sse.at(event, "token", "text"))
            if event.get("error"):
                facts.error_type, facts.error_message = _failure(event)
        return facts

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`: both counts, where the answer came whole and has not told them."""
        counted = {key: _number(headers.get(name)) for name, key in _HEADERS.items()}
        known = {key: value for key, value in counted.items() if value is not None}
        if facts.complete and facts.usage is None and len(known) == len(_HEADERS):
            facts.usage = dict(known)

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        if "prompt" in arguments:
            return OPENAI_COMPLETIONS.with_output_limit(arguments, tokens)
        given = arguments.get("parameters")
        parameters = dict(given) if isinstance(given, Mapping) else {}
        return {"parameters": parameters | {"max_new_tokens": bounds.limited(parameters, "max_new_tokens", tokens)}}


class _Task(Flavour):
    """Any other task, at the address of a model: billed by the time of a machine, or as a provider behind it wants."""

    __slots__ = ("name", "operation", "unit")
    vendor = "huggingface"
    asked_keys: frozenset[str] = frozenset({"input", "inputs", "prompt", "text"})
    path_suffixes: tuple[str, ...] = ()
    names_model = False

    def __init__(self, name: str, operation: str, unit: str | None = None) -> None:
        self.name, self.operation, self.unit = f"huggingface.{name}", operation, unit

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        return RequestFacts(
            measure=lambda: (bounds.input_bound(body, "inputs", {}, tools=False)[0], "time of a machine"),
            model=model_in(path) or sse.text(body.get("model")),
            max_output_tokens=0,
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. What is no JSON is the one piece that was asked for."""
        facts, value = ResponseFacts(), sse.parsed(body)
        if isinstance(value, dict):
            total = sse.count(sse.at(value, "usage", "total_tokens"))
            facts.usage = None if total is None else {"tokens_in": total, "tokens_out": 0}
            facts.error_type, facts.error_message = _failure(value)
        elif value is None and body and self.unit:
            facts.usage = {self.unit: 1}
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there is none."""
        return self.response(received)


def model_in(path: str) -> str | None:
    """Give the model of `.../models/{owner}/{name}`; a model without an owner has no slash."""
    _, found, rest = path.partition("?")[0].partition("/models/")
    names = rest.partition("/pipeline/")[0].strip("/").split("/")
    return "/".join(names[:2]) if found and names[0] else None


def _take_details(facts: ResponseFacts, answer: Mapping[str, Any]) -> None:
    details = answer.get("details")
    tokens_out = sse.count(sse.at(details, "generated_tokens"))
    prefill = sse.at(details, "prefill")
    tokens_in = sse.count(sse.at(details, "input_length")) or (len(prefill) if isinstance(prefill, list) else None)
    if tokens_in and tokens_out is not None:
        facts.usage = {"tokens_in": tokens_in, "tokens_out": tokens_out}
    if reason := sse.text(sse.at(details, "finish_reason")):
        facts.finish_reasons = (reason,)


def _failure(answer: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """TGI has the text under `error` and the type beside it."""
    error, kind = answer.get("error"), answer.get("error_type")
    if isinstance(error, list):
        error = next((text for text in error if isinstance(text, str)), None)
    if isinstance(error, str) and isinstance(kind, str):
        return sse.failure({"type": kind, "message": error})
    return sse.failure(error)


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


HF_GENERATION = _Generation()
HF_EMBEDDINGS = _Task("embeddings", "embeddings")
HF_IMAGES = _Task("images", "generate_content", "images")
HF_TASKS = _Task("tasks", "generate_content")
HUGGINGFACE: tuple[Reader, ...] = ()
HUGGINGFACE_FETCHES: tuple[Fetch, ...] = ()
