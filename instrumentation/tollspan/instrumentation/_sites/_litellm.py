"""litellm: its functions, its router, and its streams, some of which send only when their first part is asked for.

Its functions are taken from `litellm` into which they are imported, and from where they are defined: others, its router
among them, take them from either. What one of these sends by another, or by a vendor's SDK, is one call all the same.
"""

from collections.abc import Iterator

from tollspan.instrumentation._sites._site import CallSite

_FUNCTIONS = {
    "litellm.main": ("completion", "text_completion", "embedding", "transcription", "speech"),
    "litellm.images.main": ("image_generation", "image_edit"),
    "litellm.rerank_api.main": ("rerank",),
    "litellm.responses.main": ("responses",),
}
_ROUTER = (
    "completion", "acompletion", "text_completion", "atext_completion", "embedding", "aembedding", "image_generation",
    "aimage_generation", "atranscription", "aspeech", "arerank",
)  # fmt: skip
_STREAM = "litellm.litellm_core_utils.streaming_handler"


def _rows() -> Iterator[CallSite]:
    for module, names in _FUNCTIONS.items():
        for name in names:
            for place in (module, "litellm"):
                yield CallSite("litellm", _SINCE, place, name, "sends")
                yield CallSite("litellm", _SINCE, place, f"a{name}", "async sends")


_SINCE = "1.75"

LITELLM: tuple[CallSite, ...] = (
    *_rows(),
    *(
        CallSite("litellm", _SINCE, "litellm.router", f"Router.{name}", "async sends" if name[0] == "a" else "sends")
        for name in _ROUTER
    ),
    CallSite("litellm", _SINCE, _STREAM, "CustomStreamWrapper.__next__", "sends"),
    CallSite("litellm", _SINCE, _STREAM, "CustomStreamWrapper.__anext__", "async sends"),
)
