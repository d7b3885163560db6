"""Cohere, versions 1 and 2 of its API. Source: docs.cohere.com/reference, and the types of Cohere's Python SDK.

It counts twice: what the model has read and written (`tokens`), and what is billed (`billed_units`), which leaves out
its own prompts around the caller's. The billed ones are the usage. `cached_tokens` counts among the former, so that it
is no part of the billed ones, and is left out with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _json_lines as json_lines
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", bounds.number),
    "k": ("gen_ai.request.top_k", bounds.number),
    "max_tokens": ("gen_ai.request.max_tokens", sse.count),
    "num_generations": ("gen_ai.request.choice.count", bounds.several),
    "p": ("gen_ai.request.top_p", bounds.number),
    "presence_penalty": ("gen_ai.request.presence_penalty", bounds.number),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "stop_sequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
}
_UNBOUNDED = {"connectors": "hosted connectors", "conversation_id": "conversation held by the server"}
# Chat: 256 for each of at most twelve tiles and a preview, 3,328 in all (guide "Image inputs"). Embeddings: images are
# scaled down to 2,458,624 pixels, and one of 512 x 512 makes about 1,610 tokens (Oracle's page on Cohere Embed 4).
_CHAT_IMAGE_TOKENS = 4_096
_EMBED_IMAGE_TOKENS = 16_384
_ENDS = (b'"message-end"', b'"stream-end"')
_COUNTED: sse.Parts = (
    ("classifications", (("classifications",),)),
    ("document_pages", (("pages",),)),
    ("images", (("images",),)),
    ("rerank_searches", (("search_units",),)),
    ("tokens_image_in", (("image_tokens",),)),
)


class _Cohere(Flavour):
    """What its endpoints have in common: answers, and that they are asked for with a model."""

    __slots__ = ()
    vendor = "cohere"
    asked_keys: frozenset[str] = frozenset({"model"})
    generates = False
    """Whether the answer is generated text, so that its usage has output."""

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = ResponseFacts()
        _read_answer(facts, sse.parsed_object(body), generates=self.generates)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: it does not stream."""
        return self.response(received)


class _Texts(_Cohere):
    """What generates text. Streams are server-sent events in version 2, and lines of JSON in version 1."""

    __slots__ = ()
    terminal_marks: tuple[bytes, ...] = _ENDS
    generates = True

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        return RequestFacts(
            measure=partial(_input_bound, body),
            model=sse.text(body.get("model")),
            stream=body.get("stream") is True,
            max_output_tokens=sse.count(body.get("max_tokens")),
            choices=sse.count(body.get("num_generations")) or 1,
            attributes=bounds.attributes(body, _ATTRIBUTES),
            limitable=True,
        )

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The last event has the usage, and in version 1 the whole answer."""
        stream = sse.normal(received)
        if (end := _end(stream)) is None and sse.is_whole(received) and not _is_event(sse.parsed_object(received)):
            return self.response(received)
        facts = ResponseFacts(complete=end is not None)
        if end is not None:
            _read_end(facts, end)
        if facts.response_id is None:
            facts.response_id = _id_of(next(json_lines.lines(stream), {}))
        if facts.usage is None:
            facts.visible_output_bytes = sum(map(_visible, json_lines.lines(stream)))
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return _end(sse.normal(tail)) is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`."""
        return {"max_tokens": bounds.limited(arguments, "max_tokens", tokens)}


class _Chat(_Texts):
    """`POST /v1/chat` and `/v2/chat`."""

    __slots__ = ()
    name = "cohere.chat"
    path_suffixes: tuple[str, ...] = ("/v1/chat", "/v2/chat")


class _Generate(_Texts):
    """`POST /v1/generate` and `/v1/summarize`, which came before chat."""

    __slots__ = ()
    name = "cohere.generate"
    operation = "text_completion"
    path_suffixes: tuple[str, ...] = ("/v1/generate", "/v1/summarize")


class _Embed(_Cohere):
    """`POST /v1/embed` and `/v2/embed`: of texts, images, or both. An image is billed by its tokens or by the piece."""

    __slots__ = ()
    name = "cohere.embed"
    operation = "embeddings"
    path_suffixes: tuple[str, ...] = ("/v1/embed", "/v2/embed")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output to bound: `max_tokens` is where an input is cut."""
        attributes = {}
        if dimensions := sse.count(body.get("output_dimension")):
            attributes["gen_ai.embeddings.dimension.count"] = dimensions
        return RequestFacts(
            measure=partial(_embedding_bound, body),
            model=sse.text(body.get("model")),
            max_output_tokens=0,
            attributes=attributes,
            find_units=partial(_image_units, body),
        )


class _Pieces(_Cohere):
    """What is billed by the piece, of which the request does not tell how many there will be."""

    __slots__ = ()
    pieces = "pieces"

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output, and no price of tokens."""
        return RequestFacts(
            measure=lambda: (_input_bound(body)[0], f"billed by the {self.pieces}"),
            model=sse.text(body.get("model")),
            max_output_tokens=0,
            priced=False,
        )


class _Rerank(_Pieces):
    """`POST /v1/rerank` and `/v2/rerank`. A search is a query with up to 100 documents, of which long ones are several.

    Others who have an endpoint of this name bill by the token, and say how many.
    """

    __slots__ = ()
    name = "cohere.rerank"
    operation = "rerank"
    pieces = "search"
    path_suffixes: tuple[str, ...] = ("/v1/rerank", "/v2/rerank")
    asked_keys: frozenset[str] = frozenset({"documents"})

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        if facts.usage is None:
            total = sse.count(sse.at(sse.parsed_object(body), "usage", "total_tokens"))
            facts.usage = None if total is None else {"tokens_in": total, "tokens_out": 0}
        return facts


class _TokensRerank(_Rerank):
    """The same of vendors who bill it by the token."""

    __slots__ = ()

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. The model reads the query once for each document."""
        return RequestFacts(
            measure=partial(_rerank_bound, body), model=sse.text(body.get("model")), max_output_tokens=0
        )


class _Classify(_Pieces):
    """`POST /v1/classify`."""

    __slots__ = ()
    name = "cohere.classify"
    operation = "classify"
    pieces = "classification"
    path_suffixes: tuple[str, ...] = ("/v1/classify",)
    asked_keys: frozenset[str] = frozenset({"inputs"})


class _Parse(_Pieces):
    """`POST /v2/parse`: reads a document's page."""

    __slots__ = ()
    name = "cohere.parse"
    operation = "generate_content"
    pieces = "page"
    path_suffixes: tuple[str, ...] = ("/v2/parse",)


# ---- requests


def _input_bound(body: Mapping[str, Any]) -> InputBound:
    items = next((key for key in ("messages", "chat_history", "documents") if key in body), "prompt")
    tools = bool(body.get("tools") or body.get("response_format"))
    tokens, endless = bounds.input_bound(body, items, _CHAT_MEDIA, tools=tools)
    return tokens, bounds.given(body, _UNBOUNDED) or endless


def _embedding_bound(body: Mapping[str, Any]) -> InputBound:
    images = body.get("images")
    count = len(images) if isinstance(images, bounds.SEQUENCES) else 0
    texts = {key: value for key, value in body.items() if key != "images"}
    tokens, endless = bounds.input_bound(texts, "texts", _EMBED_MEDIA, tools=False)
    by_the_piece = "images are billed by the piece" if "images" in _image_units(body) else None
    return tokens + count * _EMBED_IMAGE_TOKENS, by_the_piece or endless


def _image_units(body: Mapping[str, Any]) -> tuple[str, ...]:
    if not body.get("images") and not any(map(_is_image, _parts(body.get("inputs")))):
        return ()
    return ("images",) if "-v3" in (sse.text(body.get("model")) or "") else ("tokens_image_in",)


def _parts(inputs: object) -> Iterator[Any]:
    for item in inputs if isinstance(inputs, bounds.SEQUENCES) else ():
        content = item.get("content") if isinstance(item, Mapping) else None
        yield from content if isinstance(content, bounds.SEQUENCES) else ()


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"


def _rerank_bound(body: Mapping[str, Any]) -> InputBound:
    documents = body.get("documents")
    count = len(documents) if isinstance(documents, bounds.SEQUENCES) else 1
    query = sse.text(body.get("query")) or ""
    tokens, endless = bounds.input_bound(body, "documents", {}, tools=False)
    return tokens + count * sse.utf8_bytes(query), endless


def _image_of(tokens: int, part: Mapping[str, Any], _model: str) -> bounds.Measured:
    """Bound an image: whatever its size, and wherever it is, it is scaled down."""
    return tokens, None, bounds.without(part, "image_url")


_CHAT_MEDIA: dict[str, bounds.MediaReader] = {"image_url": partial(_image_of, _CHAT_IMAGE_TOKENS)}
_EMBED_MEDIA: dict[str, bounds.MediaReader] = {"image_url": partial(_image_of, _EMBED_IMAGE_TOKENS)}


# ---- answers


def _read_answer(facts: ResponseFacts, answer: Mapping[str, Any], *, generates: bool) -> None:
    """Fill facts from a whole answer, success or error."""
    facts.model = sse.text(answer.get("model"))
    facts.response_id = _id_of(answer)
    facts.usage = _usage(_counts_of(answer), generates=generates)
    facts.finish_reasons = _finish_reasons(answer)
    error = answer if sse.text(answer.get("message")) else sse.error_in(answer)
    facts.error_type, facts.error_message = sse.failure(error)


def _read_end(facts: ResponseFacts, end: Mapping[str, Any]) -> None:
    """Fill facts from the last event of a stream."""
    delta = end.get("delta")
    whole = end.get("response")
    _read_answer(facts, whole if isinstance(whole, dict) else {}, generates=True)
    if isinstance(delta, dict):
        facts.usage = _usage(_counts_of(delta), generates=True)
    facts.response_id = facts.response_id or _id_of(end)
    facts.finish_reasons = _finish_reasons(end) or _finish_reasons(delta) or facts.finish_reasons
    facts.error_type, facts.error_message = sse.failure(sse.at(delta, "error") or end.get("err"))


def _end(stream: bytes) -> Mapping[str, Any] | None:
    """Find the last event, by its type: the text of another may hold these words too."""
    for mark in _ENDS:
        for event in json_lines.newest(stream, mark):
            kind = event.get("type") or event.get("event_type")
            if isinstance(kind, str) and b'"%s"' % kind.encode(errors="replace") == mark:
                return event
    return None


def _is_event(value: Mapping[str, Any]) -> bool:
    return "event_type" in value or "delta" in value


def _id_of(answer: Mapping[str, Any]) -> str | None:
    ids = (sse.text(answer.get(key)) for key in ("generation_id", "response_id", "id"))
    return next(filter(None, ids), None)


def _counts_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what counts usage: `usage` in a chat of version 2, `meta` everywhere else."""
    found = (value for key in ("usage", "meta") if isinstance(value := answer.get(key), dict))
    return next(found, {})


def _usage(counts: Mapping[str, Any], *, generates: bool) -> dict[str, float] | None:
    """Give what is billed; where no such thing is said, as in other clouds, what the model has read and written."""
    billed = counts.get("billed_units")
    if isinstance(billed, dict) and (usage := _tokens(billed, generates=generates) | sse.counts(billed, _COUNTED)):
        return usage
    tokens = counts.get("tokens")
    usage = _tokens(tokens, generates=generates) if isinstance(tokens, dict) else {}
    return usage | sse.counts(counts, _CACHED) if usage else None


def _tokens(counts: Mapping[str, Any], *, generates: bool) -> dict[str, float]:
    """Give input and output, both or neither; the tokens of images are counted beside those of text."""
    text, images = sse.count(counts.get("input_tokens")), sse.count(counts.get("image_tokens"))
    tokens_out = sse.count(counts.get("output_tokens"))
    if (text is None and images is None) or (tokens_out is None and generates):
        return {}
    return {"tokens_in": (text or 0) + (images or 0), "tokens_out": tokens_out or 0}


_CACHED: sse.Parts = (("tokens_cache_read", (("cached_tokens",),)),)


def _finish_reasons(answer: object) -> tuple[str, ...]:
    generations = sse.at(answer, "generations")
    ends = [answer, *(generations if isinstance(generations, list) else ())]
    return tuple(reason for end in ends if (reason := sse.text(sse.at(end, "finish_reason"))))


def _visible(event: Mapping[str, Any]) -> int:
    """Measure the text, the plan and the calls of tools in an event of a stream."""
    message = sse.at(event, "delta", "message")
    spoken: Sequence[Any] = (event.get("text"), sse.at(message, "content"), sse.at(message, "tool_plan"))
    call = event.get("tool_call_delta") or sse.at(message, "tool_calls")
    return sum(map(sse.spoken_bytes, spoken)) + (bounds.walk(call, {}, "")[0] if call else 0)


COHERE_CHAT, COHERE_GENERATE, COHERE_EMBED = _Chat(), _Generate(), _Embed()
COHERE_RERANK, COHERE_CLASSIFY, COHERE_PARSE = _Rerank(), _Classify(), _Parse()
TOKENS_RERANK = _TokensRerank()
COHERE: tuple[Reader, ...] = (
    COHERE_CHAT, COHERE_GENERATE, COHERE_EMBED, COHERE_RERANK, COHERE_CLASSIFY, COHERE_PARSE,
)  # fmt: skip
COHERE_FETCHES: tuple[Fetch, ...] = ()
