"""Alibaba Cloud's DashScope, in its own format; its compatible mode is OpenAI's.

Endpoints and fields: Model Studio's API references. A request does not tell whether it wants a stream: a header does.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._dashscope import _answers as answers
from tollspan.instrumentation._readers._dashscope._bounds import (
    MOST_THINKING_TOKENS,
    input_bound,
    parameters_of,
    ranking_bound,
    thinks,
)
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "max_tokens": ("gen_ai.request.max_tokens", sse.count),
    "n": ("gen_ai.request.choice.count", bounds.several),
    "presence_penalty": ("gen_ai.request.presence_penalty", bounds.number),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "stop": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "top_k": ("gen_ai.request.top_k", bounds.number),
    "top_p": ("gen_ai.request.top_p", bounds.number),
}
_UNBOUNDED = {
    "enable_search": "hosted tool web_search",
    "enable_code_interpreter": "hosted tool code_interpreter",
    "enable_text_image_mixed": "hosted tool web_search",
}
_OWN_TOOLS = frozenset({"function"})
# Models behind the path of multimodal conversations that make pictures or speech.
_DRAWS = re.compile(r"image|wan[x\d]|t2i|i2i|kolors|flux|stable-diffusion")
_SPEAKS = re.compile(r"tts|cosyvoice|sambert")
_RESEARCHES = re.compile(r"deep-research")


class _DashScope(Flavour):
    """What all of its services share: the envelope of their answers, and how a request is laid out."""

    __slots__ = ()
    vendor = "dashscope"
    asked_keys = frozenset({"input"})
    terminal_marks = answers.MARKS
    path_suffixes: tuple[str, ...]
    items = "messages"

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`: what is billed by another unit than tokens has no bound."""
        return RequestFacts(
            measure=partial(self._bound, body),
            model=sse.text(body.get("model")),
            stream=_streams(body),
            max_output_tokens=0,
            attributes=_attributes(body),
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        return answers.whole(body)

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`."""
        return answers.of_stream(received)

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return answers.has_ended(tail)

    def _bound(self, body: Mapping[str, Any]) -> InputBound:
        return input_bound(body, self.items)[0], "images, videos or speech"


class _Generation(_DashScope):
    """`POST .../services/aigc/...-generation/generation`: text, and all that is asked for by messages."""

    __slots__ = ()
    name = "dashscope.generation"
    path_suffixes: tuple[str, ...] = (
        "/aigc/text-generation/generation",
        "/aigc/multimodal-generation/generation",
        "/aigc/code-generation/generation",
        "/nlp/nlu/understanding",
    )

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        model = sse.text(body.get("model")) or ""
        if _DRAWS.search(model) or _SPEAKS.search(model):
            return super().request(body, path)
        parameters = parameters_of(body)
        return RequestFacts(
            measure=partial(_conversation_bound, body, model),
            model=model or None,
            stream=_streams(body),
            max_output_tokens=_limit(model, parameters),
            choices=sse.count(parameters.get("n")) or 1,
            attributes=_attributes(body),
            find_units=partial(_heard, body),
            limitable=True,
        )

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. Thinking has a limit of its own, and half of the tokens where none is set."""
        parameters = parameters_of(arguments)
        changes = {"max_tokens": bounds.limited(parameters, "max_tokens", tokens)}
        if thinks(sse.text(arguments.get("model")) or "", parameters):
            asked = sse.count(parameters.get("thinking_budget"))
            thought = min(tokens // 2 if asked is None else asked, max(tokens - 1, 0))
            changes = {
                "max_tokens": bounds.limited(parameters, "max_tokens", tokens - thought),
                "thinking_budget": thought,
            }
        return {"parameters": {**parameters, **changes}}


class _Application(_DashScope):
    """`POST .../apps/{id}/completion`: its models and its prompt are the server's."""

    __slots__ = ()
    name = "dashscope.application"
    path_suffixes: tuple[str, ...] = ("/completion",)
    names_model = False

    def _bound(self, body: Mapping[str, Any]) -> InputBound:
        return input_bound(body, self.items)[0], "an application of the server's"


class _Decision(_DashScope):
    """`POST .../compatible-mode/v1/systemone`: answers questions about a state, without any text."""

    __slots__ = ()
    name = "dashscope.decision"
    path_suffixes: tuple[str, ...] = ("/systemone",)
    asked_keys = frozenset({"questions", "state"})

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        return RequestFacts(measure=partial(input_bound, body, "questions"), model=sse.text(body.get("model")))


class _Embeddings(_DashScope):
    """`POST .../services/embeddings/...`: at once, or as a task for a whole file of texts."""

    __slots__ = ()
    name = "dashscope.embeddings"
    operation = "embeddings"
    fetchable = True
    path_suffixes: tuple[str, ...] = (
        "/embeddings/text-embedding/text-embedding",
        "/embeddings/multimodal-embedding/multimodal-embedding",
    )

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        attributes = {}
        if dimensions := sse.count(parameters_of(body).get("dimension")):
            attributes["gen_ai.embeddings.dimension.count"] = dimensions
        return RequestFacts(
            measure=partial(_embedding_bound, body),
            model=sse.text(body.get("model")),
            max_output_tokens=0,
            attributes=attributes,
            priced=not _is_file(body),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        return answers.of_embeddings(body)


class _Rerank(_DashScope):
    """`POST .../services/rerank/text-rerank/text-rerank`."""

    __slots__ = ()
    name = "dashscope.rerank"
    operation = "rerank"
    path_suffixes: tuple[str, ...] = ("/rerank/text-rerank/text-rerank",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        return RequestFacts(
            measure=partial(ranking_bound, body), model=sse.text(body.get("model")), max_output_tokens=0
        )


class _Speech(_DashScope):
    """`POST .../services/audio/tts/SpeechSynthesizer`."""

    __slots__ = ()
    name = "dashscope.speech"
    operation = "generate_content"
    path_suffixes: tuple[str, ...] = ("/audio/tts/SpeechSynthesizer",)


class _Tasks(_DashScope):
    """Images, videos and transcriptions: a task whose usage is told when it is fetched, or at once."""

    __slots__ = ()
    name = "dashscope.tasks"
    operation = "generate_content"
    fetchable = True
    path_suffixes: tuple[str, ...] = (
        "/image-synthesis", "/video-synthesis", "/out-painting", "/image-generation/generation",
        "/background-generation/generation", "/virtualmodel/generation", "/audio/asr/transcription",
    )  # fmt: skip


def _streams(body: Mapping[str, Any]) -> bool:
    """Tell whether a request is sure to ask for a stream: only those say how its text is to come."""
    return parameters_of(body).get("incremental_output") is True or parameters_of(body).get("stream") is True


def _attributes(body: Mapping[str, Any]) -> dict[str, Any]:
    found = bounds.attributes(parameters_of(body), _ATTRIBUTES)
    if _streams(body):
        found["gen_ai.request.stream"] = True
    return found


def _limit(model: str, parameters: Mapping[str, Any]) -> int | None:
    """Give the caller's maximum, with that of thinking, which has another."""
    limit = sse.count(parameters.get("max_tokens"))
    if limit is None or not thinks(model, parameters):
        return limit
    thought = sse.count(parameters.get("thinking_budget"))
    return limit + (MOST_THINKING_TOKENS if thought is None else thought)


def _conversation_bound(body: Mapping[str, Any], model: str) -> InputBound:
    parameters = parameters_of(body)
    tokens, endless = input_bound(body, "messages")
    reason = bounds.given(parameters, _UNBOUNDED) or bounds.hosted_tool(parameters.get("tools"), _OWN_TOOLS)
    if reason is None and _RESEARCHES.search(model):
        reason = "hosted tool web_search"
    return tokens, reason or endless


def _is_file(body: Mapping[str, Any]) -> bool:
    return sse.at(body.get("input"), "url") is not None


def _embedding_bound(body: Mapping[str, Any]) -> InputBound:
    items = "contents" if sse.at(body.get("input"), "contents") is not None else "texts"
    tokens, endless = input_bound(body, items)
    return tokens, "a file of texts by URL" if _is_file(body) else endless


def _heard(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the spoken tokens of a request, which have a price of their own."""
    messages = sse.at(body.get("input"), "messages")
    for message in messages if isinstance(messages, bounds.SEQUENCES) else ():
        content = sse.at(message, "content")
        for part in content if isinstance(content, bounds.SEQUENCES) else ():
            if sse.at(part, "audio") is not None:
                return ("tokens_audio_in",)
    return ()


GENERATION = _Generation()
_TASKS = _Tasks()
DASHSCOPE: tuple[Reader, ...] = (
    GENERATION,
    _Application(),
    _Decision(),
    _Embeddings(),
    _Rerank(),
    _Speech(),
    _TASKS,
)


DASHSCOPE_FETCHES: tuple[Fetch, ...] = (Fetch(r".*/api/v1/tasks/[^/]+/?", _TASKS, answers.of_task),)
