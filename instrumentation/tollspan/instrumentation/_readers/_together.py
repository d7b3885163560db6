"""Together's completions, which are OpenAI's but for what holds where a request does not say."""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import RequestFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat
from tollspan.instrumentation._readers._openai._completions import OPENAI_COMPLETIONS


class _TogetherCompletions(OpenAIChat):
    """`POST /v1/completions`. A stream tells its usage unasked, and the SDK takes no `stream_options`."""

    __slots__ = ()
    name = "together.completions"
    vendor = "together"
    operation = "text_completion"
    path_suffixes: tuple[str, ...] = ()  # OpenAI's, and the rows say whose they are

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Without a maximum, OpenAI's default of a few tokens does not hold here."""
        facts = OPENAI_COMPLETIONS.request(body, path)
        facts.max_output_tokens = sse.count(bounds.effective(body).get("max_tokens"))
        return facts

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`."""
        return None


TOGETHER_COMPLETIONS = _TogetherCompletions()
