"""Readers: pure functions from the bytes of an API flavour to the facts that admission, ledger and span need.

No SDK, HTTP library or OpenTelemetry is imported here. A new flavour is one module and one entry in `READERS`.
"""

from tollspan.instrumentation._readers._anthropic_messages import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._facts import Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai_chat import OPENAI_CHAT
from tollspan.instrumentation._readers._openai_completions import OPENAI_COMPLETIONS
from tollspan.instrumentation._readers._openai_embeddings import OPENAI_EMBEDDINGS
from tollspan.instrumentation._readers._openai_media import OPENAI_MEDIA
from tollspan.instrumentation._readers._openai_responses import OPENAI_RESPONSES

__all__ = [
    "ANTHROPIC_MESSAGES",
    "OPENAI_CHAT",
    "OPENAI_COMPLETIONS",
    "OPENAI_EMBEDDINGS",
    "OPENAI_MEDIA",
    "OPENAI_RESPONSES",
    "READERS",
    "Reader",
    "RequestFacts",
    "ResponseFacts",
    "reader_for_path",
]

# In this order, because `/chat/completions` ends like `/completions`.
READERS: tuple[Reader, ...] = (
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    ANTHROPIC_MESSAGES,
    OPENAI_EMBEDDINGS,
    OPENAI_COMPLETIONS,
    OPENAI_MEDIA,
)

# Whole paths that are too general to be told by their end: OpenAI's `/threads/{id}/messages` ends in one of them too.
_WHOLE_PATHS: dict[str, Reader] = {"/messages": ANTHROPIC_MESSAGES}


def reader_for_path(path: str) -> Reader | None:
    """Find the reader of the flavour that POST requests to this URL path speak, or None.

    A query string and a trailing slash are ignored.
    """
    bare = path.partition("?")[0].rstrip("/")
    for reader in READERS:
        if bare.endswith(reader.path_suffixes):
            return reader
    return _WHOLE_PATHS.get(bare)
