"""Readers: pure functions from the bytes of an API flavour to the facts that admission, ledger and span need.

No SDK, HTTP library or OpenTelemetry is imported here. A new flavour is one module and one entry in `READERS`.
"""

from functools import lru_cache

from tollspan.instrumentation._readers._anthropic._complete import ANTHROPIC_COMPLETE
from tollspan.instrumentation._readers._anthropic._messages import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._batches import BATCH_FETCHES
from tollspan.instrumentation._readers._bedrock import BEDROCK, BEDROCK_FETCHES
from tollspan.instrumentation._readers._cohere import COHERE, COHERE_FETCHES
from tollspan.instrumentation._readers._dashscope import DASHSCOPE, DASHSCOPE_FETCHES
from tollspan.instrumentation._readers._facts import Fetch, Flavour, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._free import FREE, FREE_FETCHES
from tollspan.instrumentation._readers._gemini import GEMINI, GEMINI_FETCHES
from tollspan.instrumentation._readers._huggingface import HUGGINGFACE, HUGGINGFACE_FETCHES
from tollspan.instrumentation._readers._mistral import MISTRAL, MISTRAL_FETCHES
from tollspan.instrumentation._readers._ollama import OLLAMA, OLLAMA_FETCHES
from tollspan.instrumentation._readers._openai._chat import OPENAI_CHAT, TELLING_CHAT
from tollspan.instrumentation._readers._openai._completions import OPENAI_COMPLETIONS
from tollspan.instrumentation._readers._openai._embeddings import OPENAI_EMBEDDINGS
from tollspan.instrumentation._readers._openai._media import OPENAI_MEDIA
from tollspan.instrumentation._readers._openai._responses import OPENAI_RESPONSES
from tollspan.instrumentation._readers._openai._videos import VIDEO_FETCHES
from tollspan.instrumentation._readers._replicate import REPLICATE, REPLICATE_FETCHES
from tollspan.instrumentation._readers._voyage import VOYAGE, VOYAGE_FETCHES
from tollspan.instrumentation._readers._watsonx import WATSONX, WATSONX_FETCHES
from tollspan.instrumentation._readers._writer import WRITER
from tollspan.instrumentation._readers._xai import XAI, XAI_FETCHES

__all__ = [
    "ANTHROPIC_MESSAGES",
    "FETCHES",
    "OPENAI_CHAT",
    "OPENAI_COMPLETIONS",
    "OPENAI_EMBEDDINGS",
    "OPENAI_RESPONSES",
    "READERS",
    "TELLING_CHAT",
    "Fetch",
    "Flavour",
    "Reader",
    "RequestFacts",
    "ResponseFacts",
    "reader_for_path",
]

# Where the ends of two paths are alike, as `/chat/completions` and `/completions`, the longest one counts.
READERS: tuple[Reader, ...] = (
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    ANTHROPIC_MESSAGES,
    *WATSONX,
    OPENAI_EMBEDDINGS,
    OPENAI_COMPLETIONS,
    *OPENAI_MEDIA,
    ANTHROPIC_COMPLETE,
    *GEMINI,
    *BEDROCK,
    *DASHSCOPE,
    *COHERE,
    *OLLAMA,
    *MISTRAL,
    *VOYAGE,
    *REPLICATE,
    *HUGGINGFACE,
    *WRITER,
    *XAI,
    *FREE,
)

FETCHES: tuple[Fetch, ...] = (
    Fetch(r".*/responses/[^/]+/?", OPENAI_RESPONSES, lambda body: (OPENAI_RESPONSES.stream(body),)),
    *BATCH_FETCHES,
    *VIDEO_FETCHES,
    *GEMINI_FETCHES,
    *BEDROCK_FETCHES,
    *DASHSCOPE_FETCHES,
    *COHERE_FETCHES,
    *OLLAMA_FETCHES,
    *MISTRAL_FETCHES,
    *VOYAGE_FETCHES,
    *REPLICATE_FETCHES,
    *HUGGINGFACE_FETCHES,
    *WATSONX_FETCHES,
    *XAI_FETCHES,
    *FREE_FETCHES,
)
"""In this order."""

# Whole paths that are too general to be told by their end: OpenAI's `/threads/{id}/messages` ends in one of them too.
_WHOLE_PATHS: dict[str, Reader] = {"/messages": ANTHROPIC_MESSAGES}


@lru_cache(maxsize=512)
def reader_for_path(path: str) -> Reader | None:
    """Find the reader of the flavour that POST requests to this URL path speak, or None.

    A query string and a trailing slash are ignored.
    """
    bare = path.partition("?")[0].rstrip("/")
    readers = [reader for reader in READERS if reader.path_part in bare]
    ends = [(suffix, reader) for reader in readers for suffix in reader.path_suffixes if bare.endswith(suffix)]
    _, longest = max(ends, key=lambda end: len(end[0]), default=("", _WHOLE_PATHS.get(bare)))
    return longest
