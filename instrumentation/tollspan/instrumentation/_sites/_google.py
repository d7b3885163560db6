"""Google's google-genai, with an API key and on Vertex AI.

Chats, automatic function calling and automatic continuation send through the two private methods: what they run of the
caller's in between is no part of a call. Live sessions are seen at their websocket: see `_sockets`.
"""

from collections.abc import Iterator

from tollspan.instrumentation._readers import Reader
from tollspan.instrumentation._readers._gemini._embeddings import GEMINI_EMBEDDINGS
from tollspan.instrumentation._sites._site import CallSite

_MODELS = "google.genai.models"
_INTERACTIONS = "google.genai._gaos.interactions"
_STAINLESS = "google.genai._interactions.resources.interactions"


def _both(
    since: str, module: str, name: str, *, until: str | None = None, reader: Reader | None = None
) -> Iterator[CallSite]:
    vendor = "gcp.gemini"
    yield CallSite("google-genai", since, module, name, "sends", reader, vendor=vendor, until=until)
    yield CallSite("google-genai", since, module, f"Async{name}", "async sends", reader, vendor=vendor, until=until)


GOOGLE: tuple[CallSite, ...] = (
    *_both("1.0", _MODELS, "Models._generate_content"),
    *_both("1.0", _MODELS, "Models._generate_content_stream"),
    *_both("1.0", _MODELS, "Models.embed_content", reader=GEMINI_EMBEDDINGS),
    *_both("1.0", _MODELS, "Models.generate_images"),
    *_both("1.0", _MODELS, "Models.edit_image"),
    *_both("1.0", _MODELS, "Models.upscale_image"),
    *_both("1.29", _MODELS, "Models.recontext_image"),
    *_both("1.31", _MODELS, "Models.segment_image"),
    *_both("1.3", _MODELS, "Models.generate_videos"),
    *_both("1.0", _MODELS, "Models.count_tokens"),
    *_both("1.0", _MODELS, "Models.compute_tokens"),
    *_both("2.9", _INTERACTIONS, "Interactions.create"),
    *_both("1.55", _STAINLESS, "InteractionsResource.create", until="2.9"),
)
"""Google's Gemini API and Vertex AI."""
