"""Writer's writer-sdk."""

from tollspan.instrumentation._readers._writer import WRITER_CHAT, WRITER_COMPLETIONS
from tollspan.instrumentation._sites._site import CallSite, Keywords, both

WRITER: tuple[CallSite, ...] = (
    *both(
        "writer-sdk", "1.0", "writerai.resources.chat", "ChatResource.chat", WRITER_CHAT, Keywords(), vendor="writer"
    ),
    *both(
        "writer-sdk", "1.0", "writerai.resources.completions", "CompletionsResource.create", WRITER_COMPLETIONS,
        vendor="writer",
    ),
)  # fmt: skip
