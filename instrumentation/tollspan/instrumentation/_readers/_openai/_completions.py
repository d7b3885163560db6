"""OpenAI's legacy completions: one prompt, or a list of them, and text instead of messages."""

from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import RequestFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat

_DEFAULT_OUTPUT = 16
"""Output tokens of a request that names no maximum (OpenAI's API reference, `max_tokens` of completions)."""


class _OpenAICompletions(OpenAIChat):
    """`POST .../completions`. Answers and usage have the shape of chat completions."""

    __slots__ = ()
    name = "openai.completions"
    operation = "text_completion"
    path_suffixes: tuple[str, ...] = ("/completions",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Each prompt has its own outputs, and `best_of` generates more than are shown."""
        facts = super().request(body)
        asked = bounds.effective(body)
        prompts = asked.get("prompt")
        several = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
        outputs = max(facts.choices, sse.count(asked.get("best_of")) or 1)
        facts.choices = outputs * (len(prompts) if several and isinstance(prompts, list) else 1)
        if facts.max_output_tokens is None:
            facts.max_output_tokens = _DEFAULT_OUTPUT
        return facts

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. What names no maximum has a small one, which is not raised."""
        named = super().request(arguments).max_output_tokens is not None
        return super().with_output_limit(arguments, tokens if named else min(tokens, _DEFAULT_OUTPUT))


OPENAI_COMPLETIONS = _OpenAICompletions()
