"""Google's embeddings: input tokens only, which not every model tells."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._gemini._bounds import content_bound, is_text, units_in
from tollspan.instrumentation._readers._gemini._names import failure, model_in
from tollspan.instrumentation._readers._gemini._usage import token_usage

_ITEMS = ("requests", "instances")
_DIMENSIONS = "outputDimensionality"
_SETTINGS = ("parameters", "embedContentConfig")


class _GeminiEmbeddings(Flavour):
    """`POST .../models/{model}:embedContent` and `:batchEmbedContents`; of Vertex AI's older models, `:predict`."""

    __slots__ = ()
    name = "gemini.embeddings"
    vendor = "gcp.gemini"
    operation = "embeddings"
    asked_keys = frozenset({"content", "requests"})
    names_model = False
    path_suffixes: tuple[str, ...] = (":embedContent", ":batchEmbedContents")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output to bound."""
        model = model_in(path)
        items = next((key for key in _ITEMS if isinstance(body.get(key), list)), "content")
        dimensions = _dimensions(body)
        return RequestFacts(
            measure=partial(content_bound, body, items, model, tools=False),
            model=model,
            max_output_tokens=0,
            attributes={} if dimensions is None else {"gen_ai.embeddings.dimension.count": dimensions},
            find_units=partial(units_in, body),
            is_text=partial(is_text, body),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts(usage=token_usage(answer.get("usageMetadata")) or _predicted(answer.get("predictions")))
        facts.error_type, facts.error_message = failure(answer)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there are none."""
        return self.response(received)


GEMINI_EMBEDDINGS = _GeminiEmbeddings()


def _predicted(predictions: object) -> dict[str, float] | None:
    """Add up the tokens that each prediction tells; None where one tells none."""
    listed = predictions if isinstance(predictions, list) else []
    counts = [sse.count(sse.at(item, "embeddings", "statistics", "token_count")) for item in listed]
    known = [count for count in counts if count is not None]
    return {"tokens_in": sum(known), "tokens_out": 0} if known and len(known) == len(counts) else None


def _dimensions(body: Mapping[str, Any]) -> int | None:
    requests = body.get("requests")
    first = requests[0] if isinstance(requests, list) and requests else None
    places = (body, *(body.get(key) for key in _SETTINGS), first, sse.at(first, "embedContentConfig"))
    counts = (sse.count(sse.at(place, _DIMENSIONS)) for place in places)
    return next((count for count in counts if count), None)
