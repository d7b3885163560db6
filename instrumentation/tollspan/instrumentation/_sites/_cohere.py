"""cohere, with its clients of versions 1 and 2; `embed` of many texts sends them in parts, and each part is a call."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tollspan.instrumentation._readers import Reader
from tollspan.instrumentation._readers._cohere import (
    COHERE_CHAT,
    COHERE_CLASSIFY,
    COHERE_EMBED,
    COHERE_GENERATE,
    COHERE_PARSE,
    COHERE_RERANK,
)
from tollspan.instrumentation._readers._openai._audio import OPENAI_TRANSCRIPTIONS
from tollspan.instrumentation._sites._site import CallSite, Keywords
from tollspan.instrumentation._urls import parsed_url

_V1 = (
    ("chat", "5.0", COHERE_CHAT),
    ("generate", "5.0", COHERE_GENERATE),
    ("embed", "5.0", COHERE_EMBED),
    ("rerank", "5.0", COHERE_RERANK),
    ("classify", "5.0", COHERE_CLASSIFY),
    ("summarize", "5.0", COHERE_GENERATE),
)
_V2 = (
    ("chat", "5.8", COHERE_CHAT),
    ("embed", "5.9", COHERE_EMBED),
    ("rerank", "5.9", COHERE_RERANK),
    ("parse", "7.1", COHERE_PARSE),
)
_STREAMS = frozenset({"chat", "generate"})
_AUDIO = "cohere.audio.transcriptions.client"
_RAW_SINCE = "5.17"


@dataclass(frozen=True, slots=True)
class _Form(Keywords):
    """The keyword arguments are the fields of a form, in which the wire finds no model."""

    def url(self, instance: Any) -> Any:
        """See `Form.url`."""
        return parsed_url(instance.with_raw_response._client_wrapper.get_base_url())  # noqa: SLF001 - as in `Keywords`


def _sending(module: str, cls: str, method: str, since: str, reader: Reader) -> Iterator[CallSite]:
    """A method and its async twin; with `_stream` at the end of its name, both give what sends when it is read."""
    yield CallSite("cohere", since, module, f"{cls}.{method}", "sends", reader, vendor="cohere")
    yield CallSite("cohere", since, module, f"Async{cls}.{method}", "async sends", reader, vendor="cohere")
    if method in _STREAMS:
        for name in (cls, f"Async{cls}"):
            yield CallSite("cohere", since, module, f"{name}.{method}_stream", "sends", reader, vendor="cohere")


def _raw(module: str, cls: str, method: str, since: str, reader: Reader) -> Iterator[CallSite]:
    """The same of `with_raw_response`, to which the other methods go since there is such a thing."""
    yield from _sending(module, cls, method, since if since.startswith("7") else _RAW_SINCE, reader)


COHERE: tuple[CallSite, ...] = (
    *(site for row in _V1 for site in _sending("cohere.base_client", "BaseCohere", *row)),
    *(site for row in _V2 for site in _sending("cohere.v2.client", "V2Client", *row)),
    *(site for row in _V1 for site in _raw("cohere.raw_base_client", "RawBaseCohere", *row)),
    *(site for row in _V2 for site in _raw("cohere.v2.raw_client", "RawV2Client", *row)),
    CallSite("cohere", "5.21", _AUDIO, "TranscriptionsClient.create", "call", OPENAI_TRANSCRIPTIONS, _Form(), "cohere"),
    CallSite(
        "cohere", "5.21", _AUDIO, "AsyncTranscriptionsClient.create", "async call", OPENAI_TRANSCRIPTIONS, _Form(),
        "cohere",
    ),
)  # fmt: skip
