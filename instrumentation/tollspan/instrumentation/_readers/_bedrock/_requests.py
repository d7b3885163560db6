"""What is asked of InvokeModel, in the words of each family of models: operation, output limit, input bound."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._anthropic._messages import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._bedrock._media import input_bound
from tollspan.instrumentation._readers._bedrock._shape import limits, lowered, model_in, spare_tokens
from tollspan.instrumentation._readers._facts import InputBound, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OPENAI_CHAT

_Measure = Callable[[Mapping[str, Any], str | None], InputBound]
_NO_LIMIT: sse.Path = ()

# By what the id of a model has in it, in this order: where its family takes an output limit, for a prompt and for
# messages. Source: Bedrock's user guide, "Inference request parameters and response fields for foundation models".
_LIMIT_PATHS: tuple[tuple[str, sse.Path, sse.Path], ...] = (
    ("anthropic.", ("max_tokens_to_sample",), ("max_tokens",)),
    ("amazon.nova", _NO_LIMIT, ("inferenceConfig", "maxTokens")),
    ("amazon.titan-t", ("textGenerationConfig", "maxTokenCount"), _NO_LIMIT),
    ("meta.llama", ("max_gen_len",), _NO_LIMIT),
    ("ai21.j2", ("maxTokens",), _NO_LIMIT),
    ("ai21.", _NO_LIMIT, ("max_tokens",)),
    ("openai.", _NO_LIMIT, ("max_completion_tokens",)),
    ("cohere.command", ("max_tokens",), ("max_tokens",)),
    ("deepseek.", ("max_tokens",), ("max_tokens",)),
    ("mistral.", ("max_tokens",), ("max_tokens",)),
    ("qwen.", _NO_LIMIT, ("max_tokens",)),
)
_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "dimensions": ("gen_ai.embeddings.dimension.count", sse.count),
    "k": ("gen_ai.request.top_k", bounds.number),
    "p": ("gen_ai.request.top_p", bounds.number),
    "stop": ("gen_ai.request.stop_sequences", bounds.strings),
    "stopSequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "stop_sequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "topK": ("gen_ai.request.top_k", bounds.number),
    "topP": ("gen_ai.request.top_p", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_SETTINGS = ("inferenceConfig", "textGenerationConfig", "parameters")
_CHOICES = ("n", "num_generations", "numResults")
_MEDIA_KINDS = ("audio", "document", "image", "video")
_MEDIA_KEYS = frozenset(
    {*_MEDIA_KINDS, "images", "inputImage", "inputs", "inputVideo", "mediaSource", "segmentedEmbeddingParams"}
)
_IMAGE_KEYS = frozenset({"aspect_ratio", "imageGenerationConfig", "output_format", "taskType", "text_prompts"})
_EMBEDDING_KEYS = frozenset(
    {"embeddingConfig", "embeddingTypes", "embedding_types", "inputImage", "input_type", "normalize", "texts"}
)


class _Kind(NamedTuple):
    """What a request asks for. `measure` bounds its input; `speaks` tells whether it has output tokens."""

    operation: str
    measure: _Measure
    speaks: bool = True
    priced: bool = True


def request_facts(body: Mapping[str, Any], path: str) -> RequestFacts:
    """Give the facts of a request."""
    model = model_in(path) or sse.text(body.get("modelId"))
    stream = path.rstrip("/").endswith("-stream")
    kind = _kind(body, model or "")
    most = max((limit + spare_tokens(model) for _, limit in limits(body)), default=None)
    facts = RequestFacts(
        measure=partial(kind.measure, body, model),
        model=model,
        stream=stream,
        max_output_tokens=most if kind.speaks else 0,
        choices=max((asked for key in _CHOICES if (asked := sse.count(body.get(key)))), default=1),
        attributes=_attributes(body, stream=stream),
        priced=kind.priced,
        limitable=kind.speaks and bool(_limit_paths(body, model)),
        operation=kind.operation,
    )
    if "inputImage" in body and kind.operation == "embeddings":
        facts.usage_of, facts.find_units = _with_image, lambda: ("images",)
    return facts


def limited(arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """Give what has to change so that each choice has at most `tokens` output tokens."""
    model = sse.text(arguments.get("modelId"))
    if _is_anthropic(arguments, model):
        return ANTHROPIC_MESSAGES.with_output_limit(arguments, tokens)
    return lowered(arguments, iter(_limit_paths(arguments, model)), max(tokens - spare_tokens(model), 1))


def _limit_paths(body: Mapping[str, Any], model: str | None) -> tuple[sse.Path, ...]:
    """Name the limits that a body has, or else the one that its model takes; nothing where that is not known."""
    if used := tuple(path for path, _ in limits(body)):
        return used
    for family, of_prompt, of_messages in _LIMIT_PATHS:
        if family in (model or ""):
            path = of_messages if "messages" in body or "message" in body else of_prompt
            return (path,) if path else ()
    return ()


def _kind(body: Mapping[str, Any], model: str) -> _Kind:
    """Tell what a request asks for, by what stands in it; where that is not enough, by the name of the model."""
    if "modelInput" in body:
        return _Kind("generate_content", _endless("asynchronous invocation"), speaks=False, priced=False)
    if "messages" in body or "message" in body:
        return _Kind("chat", _chat_measure(body, model))
    if "embed" in model or any(key in _EMBEDDING_KEYS or "mbeddingParams" in key for key in body):
        return _Kind("embeddings", _embedding_bound, speaks=False)
    if "query" in body and "documents" in body:
        return _Kind("rerank", _endless("rerank"), speaks=False, priced=False)
    if "stability." in model or not _IMAGE_KEYS.isdisjoint(body):
        return _Kind("generate_content", _endless("images"), speaks=False, priced=False)
    return _Kind("text_completion", _prompt_bound)


def _is_anthropic(body: Mapping[str, Any], model: str | None) -> bool:
    return "messages" in body and ("anthropic_version" in body or "anthropic." in (model or ""))


def _is_nova(body: Mapping[str, Any], model: str) -> bool:
    return "inferenceConfig" in body or "schemaVersion" in body or "amazon.nova" in model


def _chat_measure(body: Mapping[str, Any], model: str) -> _Measure:
    if _is_anthropic(body, model):
        return _anthropic_bound
    return input_bound if _is_nova(body, model) else _openai_bound


def _anthropic_bound(body: Mapping[str, Any], model: str | None) -> InputBound:
    facts = ANTHROPIC_MESSAGES.request({**body, "model": model})
    return facts.input_tokens_bound, facts.unbounded


def _openai_bound(body: Mapping[str, Any], model: str | None) -> InputBound:
    facts = OPENAI_CHAT.request({**body, "model": model})
    return facts.input_tokens_bound, facts.unbounded


def _prompt_bound(body: Mapping[str, Any], _model: str | None) -> InputBound:
    """Bound a prompt; Cohere bills it once for each generation."""
    tokens, endless = bounds.input_bound(body, "documents", {}, tools=bool(body.get("tools")))
    return tokens * max(sse.count(body.get("num_generations")) or 1, 1), endless


def _embedding_bound(body: Mapping[str, Any], _model: str | None) -> InputBound:
    """Bound the texts to embed. An image of Titan's has a price of its own; what other media cost is not known here."""
    text = {key: value for key, value in body.items() if key not in _MEDIA_KEYS}
    single = body.get("singleEmbeddingParams")
    is_media = isinstance(single, Mapping) and not single.keys().isdisjoint(_MEDIA_KINDS)
    tokens, endless = bounds.input_bound(text, "texts", {}, tools=False)
    apart = len(text) < len(body) - ("inputImage" in body)
    return tokens, "media to embed" if apart or is_media else endless


def _with_image(answer: ResponseFacts) -> dict[str, float] | None:
    return None if answer.usage is None else {**answer.usage, "images": 1}


def _endless(reason: str) -> _Measure:
    return lambda _body, _model: (bounds.REQUEST_TOKENS, reason)


def _attributes(body: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for settings in (body, *(body.get(key) for key in _SETTINGS)):
        if isinstance(settings, Mapping):
            found |= bounds.attributes(settings, _ATTRIBUTES)
    if most := max((limit for _, limit in limits(body)), default=0):
        found["gen_ai.request.max_tokens"] = most
    if choices := next((asked for key in _CHOICES if (asked := bounds.several(body.get(key)))), None):
        found["gen_ai.request.choice.count"] = choices
    found.pop("gen_ai.request.stream", None)  # Cohere's body says it again
    return found | ({"gen_ai.request.stream": True} if stream else {})
