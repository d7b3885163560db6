"""What tells the span of a call to a model from all others, at a glance: it is asked of every span there is."""

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

MARKERS = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.system",
        "langsmith.span.kind",
        "llm.request.type",
        "openinference.span.kind",
    }
)
"""Every span of a call to a model has one of these when it ends."""

# What tells such a span when it starts. OpenInference names its kind later.
START_PREFIXES = ("gen_ai.", "llm.", "openinference.span.kind", "embedding.")
# By the conventions a name is an operation and a model. LiteLLM and Mistral's SDK give nothing but a name.
START_OPERATIONS = ("chat ", "embeddings ", "generate_content ", "text_completion ")
START_NAMES = (
    # OpenLLMetry, of LangChain's calls and of the responses API.
    ".chat",
    ".completion",
    "openai.response",
    "litellm_request",
    # Mistral's SDK: the names of its requests.
    "_completions_post",
    "_embeddings_post",
    "_ocr_post",
    "stream_agents",
    "stream_chat",
    "stream_fim",
    "_conversations_append",
    "_conversations_append_stream",
    "_conversations_restart",
    "_conversations_restart_stream",
    "_conversations_start",
    "_conversations_start_stream",
)

_NO_ATTRIBUTES: Mapping[str, Any] = {}


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    """The attributes of a span, as a dict where the SDK lets us at it: the public view costs 3 us to look through."""
    try:
        return span._attributes._dict  # type: ignore[no-any-return,union-attr] # noqa: SLF001 - as said
    except AttributeError:
        return span.attributes or _NO_ATTRIBUTES


def is_marked(attributes: Mapping[str, Any]) -> bool:
    """Whether a span that has ended may be of a call to a model. Most are not, so this is quick."""
    return not MARKERS.isdisjoint(attributes)


def is_inference_start(name: str, attributes: Iterable[str]) -> bool:
    """Whether a span that is about to start with this name and these attributes may be of a call to a model."""
    return (
        name.endswith(START_NAMES)
        or name.startswith(START_OPERATIONS)
        or any(attribute.startswith(START_PREFIXES) for attribute in attributes)
    )
