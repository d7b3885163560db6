"""IBM watsonx.ai: text generation, chat, embeddings and reranking, of models and of deployments.

Source: cloud.ibm.com/apidocs/watsonx-ai, "Text generation", "Chat", "Embeddings" and "Rerank".
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat

_VENDOR = "ibm.watsonx.ai"
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "max_new_tokens": ("gen_ai.request.max_tokens", sse.count),
    "random_seed": ("gen_ai.request.seed", bounds.integer),
    "stop_sequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_STATE = "prompt of a deployment"


class _WatsonxChat(OpenAIChat):
    """`POST .../text/chat` and `.../text/chat_stream`: OpenAI's shape, with `model_id` for the model."""

    __slots__ = ()
    name = "watsonx.chat"
    vendor = _VENDOR
    names_model = False
    path_suffixes: tuple[str, ...] = ("/text/chat", "/text/chat_stream")
    asked_keys: frozenset[str] = frozenset({"messages"})

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. The path tells whether the answer is a stream."""
        facts = super().request({**body, "model": body.get("model_id")}, path)
        _take_path(facts, path)
        return facts

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        answer = sse.parsed_object(body)
        facts.model = facts.model or sse.text(answer.get("model_id"))
        if errors := _errors(answer):
            facts.error_type, facts.error_message = errors
        return facts

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`: every stream tells its usage."""
        return None


class _WatsonxText(Flavour):
    """`POST .../text/generation` and `.../text/generation_stream`."""

    __slots__ = ()
    name = "watsonx.generation"
    vendor = _VENDOR
    operation = "text_completion"
    names_model = False
    path_suffixes: tuple[str, ...] = (
        "/text/generation",
        "/text/generation_stream",
        "/generation/text",
        "/generation/text_stream",
    )
    asked_keys: frozenset[str] = frozenset({"input", "parameters"})

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        parameters = body.get("parameters")
        parameters = parameters if isinstance(parameters, Mapping) else {}
        facts = RequestFacts(
            measure=partial(bounds.input_bound, body, "input", {}, tools=False),
            model=sse.text(body.get("model_id")),
            max_output_tokens=sse.count(parameters.get("max_new_tokens")),
            attributes=bounds.attributes(parameters, _ATTRIBUTES),
            limitable=True,
        )
        _take_path(facts, path)
        return facts

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = ResponseFacts()
        answer = sse.parsed_object(body)
        results = answer.get("results")
        _take(facts, answer, results if isinstance(results, list) else [])
        if errors := _errors(answer):
            facts.error_type, facts.error_message = errors
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The first event counts the input; each counts all output so far."""
        if sse.is_whole(received):
            return self.response(received)
        facts = ResponseFacts(complete=False)
        tokens_in = tokens_out = None
        for event in sse.events(sse.normal(received)):
            results = event.get("results")
            seen = ResponseFacts()
            _take(seen, event, results if isinstance(results, list) else [])
            facts.model = facts.model or seen.model
            facts.finish_reasons = seen.finish_reasons or facts.finish_reasons
            facts.visible_output_bytes += seen.visible_output_bytes
            if seen.usage is not None:
                tokens_in = max(tokens_in or 0, int(seen.usage["tokens_in"]))
                tokens_out = max(tokens_out or 0, int(seen.usage["tokens_out"]))
            if errors := _errors(event):
                facts.error_type, facts.error_message = errors
        facts.complete = bool(facts.finish_reasons)
        if facts.complete and tokens_in is not None and tokens_out is not None:
            facts.usage, facts.visible_output_bytes = {"tokens_in": tokens_in, "tokens_out": tokens_out}, 0
        return facts

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        given = arguments.get("parameters")
        parameters = dict(given) if isinstance(given, Mapping) else {}
        return {"parameters": parameters | {"max_new_tokens": bounds.limited(parameters, "max_new_tokens", tokens)}}


class _WatsonxEmbeddings(Flavour):
    """`POST .../text/embeddings`: input tokens only."""

    __slots__ = ()
    name = "watsonx.embeddings"
    vendor = _VENDOR
    operation = "embeddings"
    names_model = False
    asked_keys: frozenset[str] = frozenset({"inputs"})
    path_suffixes: tuple[str, ...] = ("/text/embeddings",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. A query that is reranked by is read with each input."""
        facts = RequestFacts(
            measure=partial(_input_bound, body), model=sse.text(body.get("model_id")), max_output_tokens=0
        )
        _take_path(facts, path)
        return facts

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        tokens = sse.count(answer.get("input_token_count"))
        facts = ResponseFacts(model=sse.text(answer.get("model_id")))
        facts.usage = None if tokens is None else {"tokens_in": tokens, "tokens_out": 0}
        if errors := _errors(answer):
            facts.error_type, facts.error_message = errors
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there is none."""
        return self.response(received)


class _WatsonxRerank(_WatsonxEmbeddings):
    """`POST .../text/rerank`."""

    __slots__ = ()
    name = "watsonx.rerank"
    operation = "rerank"
    path_suffixes: tuple[str, ...] = ("/text/rerank",)


def _input_bound(body: Mapping[str, Any]) -> tuple[int, str | None]:
    tokens, unbounded = bounds.input_bound(body, "inputs", {}, tools=False)
    inputs, query = body.get("inputs"), body.get("query")
    times = len(inputs) if isinstance(inputs, bounds.SEQUENCES) else 1
    return tokens + times * (sse.utf8_bytes(query) if isinstance(query, str) else 0), unbounded


def _take_path(facts: RequestFacts, path: str) -> None:
    """What the path tells: a stream; and a deployment, which may have a prompt of its own around the input."""
    if path.partition("?")[0].endswith("_stream"):
        facts.stream = True
        facts.attributes["gen_ai.request.stream"] = True
    if "/deployments/" in path:
        measure = facts.measure
        facts.measure = lambda: (measure()[0], measure()[1] or _STATE)


def _take(facts: ResponseFacts, answer: Mapping[str, Any], results: list[Any]) -> None:
    """Take the usage of all results."""
    facts.model = sse.text(answer.get("model_id"))
    counts = [tuple(sse.count(sse.at(r, f"{way}_token_count")) for way in ("input", "generated")) for r in results]
    told = [(a, b) for a, b in counts if a is not None and b is not None]
    if told and len(told) == len(results):
        facts.usage = {"tokens_in": sum(a for a, _ in told), "tokens_out": sum(b for _, b in told)}
    reasons = (sse.text(sse.at(result, "stop_reason")) for result in results)
    facts.finish_reasons = tuple(r for r in reasons if r and r.lower() != "not_finished")
    facts.visible_output_bytes = sum(sse.spoken_bytes(sse.at(result, "generated_text")) for result in results)


def _errors(answer: Mapping[str, Any]) -> tuple[str | None, str | None] | None:
    """Give the first one of `errors`."""
    errors = answer.get("errors")
    return sse.failure(errors[0]) if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None


WATSONX_CHAT = _WatsonxChat()
WATSONX_TEXT = _WatsonxText()
WATSONX_EMBEDDINGS = _WatsonxEmbeddings()
WATSONX_RERANK = _WatsonxRerank()
WATSONX: tuple[Reader, ...] = (WATSONX_CHAT, WATSONX_TEXT, WATSONX_EMBEDDINGS, WATSONX_RERANK)
WATSONX_FETCHES: tuple[Fetch, ...] = ()
