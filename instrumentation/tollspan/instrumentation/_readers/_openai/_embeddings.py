"""OpenAI's embeddings: input tokens only."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat


class _OpenAIEmbeddings(OpenAIChat):
    """`POST .../embeddings`; also Voyage, whose usage has a total and nothing else."""

    __slots__ = ()
    name = "openai.embeddings"
    operation = "embeddings"
    path_suffixes: tuple[str, ...] = ("/embeddings",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output to bound."""
        asked = bounds.effective(body)
        attributes = {}
        if dimensions := sse.count(asked.get("dimensions")):
            attributes["gen_ai.embeddings.dimension.count"] = dimensions
        return RequestFacts(
            measure=partial(bounds.input_bound, asked, "input", {}, tools=False),
            model=sse.text(asked.get("model")),
            max_output_tokens=0,
            attributes=attributes,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        if facts.usage is None:
            total = sse.count(sse.at(sse.parsed_object(body), "usage", "total_tokens"))
            facts.usage = None if total is None else {"tokens_in": total, "tokens_out": 0}
        return facts

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`: nothing limits what is not there."""
        return {}


OPENAI_EMBEDDINGS = _OpenAIEmbeddings()
