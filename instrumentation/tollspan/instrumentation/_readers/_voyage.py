"""Voyage AI: embeddings of texts, in their context or with images, and reranking; all tell their total tokens only.

Its embeddings of plain texts have OpenAI's shape and path. Source: docs.voyageai.com, API reference and pricing.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._inline import pixels

# One token for each 560 pixels, of an image of at most 16 million.
_PIXELS_PER_TOKEN = 560
_MOST_IMAGE_TOKENS = math.ceil(16_000_000 / _PIXELS_PER_TOKEN)


class _Voyage(Flavour):
    """What its endpoints share."""

    __slots__ = ()
    name = "voyage.embeddings"
    vendor = "voyageai"
    operation = "embeddings"
    path_suffixes: tuple[str, ...] = ("/multimodalembeddings", "/contextualizedembeddings")
    asked_keys: frozenset[str] = frozenset({"inputs"})

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output to bound."""
        attributes: dict[str, Any] = {}
        if dimensions := sse.count(body.get("output_dimension")):
            attributes["gen_ai.embeddings.dimension.count"] = dimensions
        return RequestFacts(
            measure=partial(self._input_bound, body),
            model=sse.text(body.get("model")),
            max_output_tokens=0,
            attributes=attributes,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Pixels and texts are told apart, but all tokens cost the same."""
        answer = sse.parsed_object(body)
        total = sse.count(sse.at(answer, "usage", "total_tokens"))
        facts = ResponseFacts(model=sse.text(answer.get("model")))
        facts.usage = None if total is None else {"tokens_in": total, "tokens_out": 0}
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer) or answer.get("detail"))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there is none."""
        return self.response(received)

    def _input_bound(self, body: Mapping[str, Any]) -> InputBound:
        return bounds.input_bound(body, "inputs", _MEDIA, tools=False)


class _VoyageEmbeddings(_Voyage):
    """`POST .../embeddings`, where its own SDK sends it."""

    __slots__ = ()
    name = "voyage.embeddings"
    path_suffixes: tuple[str, ...] = ()

    def _input_bound(self, body: Mapping[str, Any]) -> InputBound:
        return bounds.input_bound(body, "input", {}, tools=False)


class _VoyageRerank(_Voyage):
    """`POST .../rerank`. The query is billed with each document."""

    __slots__ = ()
    name = "voyage.rerank"
    operation = "rerank"
    path_suffixes: tuple[str, ...] = ("/v1/rerank",)
    asked_keys: frozenset[str] = frozenset({"documents"})

    def _input_bound(self, body: Mapping[str, Any]) -> InputBound:
        tokens, unbounded = bounds.input_bound(body, "documents", {}, tools=False)
        documents, query = body.get("documents"), body.get("query")
        times = len(documents) if isinstance(documents, bounds.SEQUENCES) else 1
        return tokens + times * (sse.utf8_bytes(query) if isinstance(query, str) else 0), unbounded


def _read_image(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    image = part.get("image_base64")
    size = pixels(image)
    tokens = _MOST_IMAGE_TOKENS if size is None else math.ceil(size[0] * size[1] / _PIXELS_PER_TOKEN)
    return min(tokens, _MOST_IMAGE_TOKENS), None, bounds.without(part, "image_base64")


def _read_remote_image(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    return _MOST_IMAGE_TOKENS, None, bounds.without(part)


def _read_video(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    return 0, "video input", bounds.without(part, "video_base64", "video_url")


_MEDIA: dict[str, bounds.MediaReader] = {
    "image_base64": _read_image,
    "image_url": _read_remote_image,
    "video_base64": _read_video,
    "video_url": _read_video,
}

VOYAGE_EMBEDDINGS = _VoyageEmbeddings()
VOYAGE_MORE_EMBEDDINGS = _Voyage()
VOYAGE_RERANK = _VoyageRerank()
VOYAGE: tuple[Reader, ...] = (VOYAGE_MORE_EMBEDDINGS, VOYAGE_RERANK)
VOYAGE_FETCHES: tuple[Fetch, ...] = ()
