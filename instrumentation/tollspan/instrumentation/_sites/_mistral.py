"""mistralai: before 2.0 in the package itself, since then in `mistralai.client`; and its twins for Azure and Vertex AI.

Each method has a twin with `_async` at the end of its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tollspan.instrumentation._readers import OPENAI_EMBEDDINGS, OPENAI_RESPONSES, Reader
from tollspan.instrumentation._readers._mistral import MISTRAL_CHAT, MISTRAL_CONVERSATIONS, MISTRAL_FIM
from tollspan.instrumentation._readers._mistral._pieces import (
    MISTRAL_CLASSIFIERS,
    MISTRAL_MODERATIONS,
    MISTRAL_OCR,
    MISTRAL_SPEECH,
    MISTRAL_TRANSCRIPTIONS,
)
from tollspan.instrumentation._sites._site import CallSite, Form, Keywords
from tollspan.instrumentation._urls import parsed_url

_NEVER = "2.0"
# Methods, their reader, and the first versions that have them: of 1.x (`_NEVER`: none has) and after that.
_METHODS: tuple[tuple[str, tuple[str, ...], Reader | None, str, str], ...] = (
    ("chat:Chat", ("complete", "stream"), MISTRAL_CHAT, "1.0", "2.0"),
    ("agents:Agents", ("complete", "stream"), MISTRAL_CHAT, "1.0", "2.0"),
    ("fim:Fim", ("complete", "stream"), MISTRAL_FIM, "1.0", "2.0"),
    ("embeddings:Embeddings", ("create",), OPENAI_EMBEDDINGS, "1.0", "2.0"),
    (
        "conversations:Conversations",
        ("start", "append", "restart", "start_stream", "append_stream", "restart_stream"),
        MISTRAL_CONVERSATIONS,
        "1.8",
        "2.0",
    ),
    ("ocr:Ocr", ("process",), MISTRAL_OCR, "1.8", "2.0"),
    ("classifiers:Classifiers", ("moderate", "moderate_chat"), MISTRAL_MODERATIONS, "1.2", "2.0"),
    ("classifiers:Classifiers", ("classify", "classify_chat"), MISTRAL_CLASSIFIERS, "1.8", "2.0"),
    ("speech:Speech", ("complete",), MISTRAL_SPEECH, _NEVER, "2.1"),
    ("responses:Responses", ("create",), OPENAI_RESPONSES, _NEVER, "3.4"),
    ("responses:Responses", ("count_input_tokens",), None, _NEVER, "3.4"),
)
_CLOUDS = (
    ("azure", "chat:Chat", MISTRAL_CHAT, "1.0"),
    ("azure", "ocr:Ocr", MISTRAL_OCR, "1.9"),
    ("gcp", "chat:Chat", MISTRAL_CHAT, "1.0"),
    ("gcp", "fim:Fim", MISTRAL_FIM, "1.0"),
)


@dataclass(frozen=True, slots=True)
class _Fields(Keywords):
    """The keyword arguments are the fields of a form, in which the wire finds no model."""

    streams: bool = False

    def url(self, instance: Any) -> Any:
        """See `Form.url`."""
        return parsed_url(instance.sdk_configuration.get_server_details()[0])

    def body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """See `Form.body`."""
        return kwargs | {"stream": True} if self.streams else kwargs


def _sending(  # noqa: PLR0917 - a row has its columns
    package: str, where: str, method: str, reader: Reader | None, since: str, until: str | None
) -> Iterator[CallSite]:
    module, _, cls = where.partition(":")
    rest = (reader, Keywords(), "mistral_ai", until)
    yield CallSite("mistralai", since, f"{package}.{module}", f"{cls}.{method}", "sends", *rest)
    yield CallSite("mistralai", since, f"{package}.{module}", f"{cls}.{method}_async", "async sends", *rest)


def _of_forms(package: str, method: str, since: str, until: str | None) -> Iterator[CallSite]:
    module, name = f"{package}.transcriptions", f"Transcriptions.{method}"
    form: Form = _Fields(streams=method == "stream")
    rest = (MISTRAL_TRANSCRIPTIONS, form, "mistral_ai", until)
    yield CallSite("mistralai", since, module, name, "call", *rest)
    yield CallSite("mistralai", since, module, f"{name}_async", "async call", *rest)


@dataclass(frozen=True, slots=True)
class _Session(Keywords):
    """The first argument is the model, and the URL stands in another one, or is that of the SDK."""

    def url(self, instance: Any) -> Any:
        """See `Form.url`. Nothing public tells it."""
        return parsed_url(instance._sdk_config.get_server_details()[0])  # noqa: SLF001

    def body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """See `Form.body`."""
        return {"model": kwargs.get("model", args[0] if args else None), "stream": True}


def _sessions() -> Iterator[CallSite]:
    """What is transcribed and spoken in real time, by websockets."""
    for name, reader, since in (("Transcription", MISTRAL_TRANSCRIPTIONS, "1.12"), ("Speech", MISTRAL_SPEECH, "3.6")):
        path = f"/v1/audio/{'speech' if reader is MISTRAL_SPEECH else 'transcriptions'}/realtime"
        module, form = f"mistralai.extra.realtime.{name.lower()}", _Session(path)
        yield CallSite(
            "mistralai", since, module, f"Realtime{name}.connect", "async connects", reader, form, "mistral_ai"
        )


def _rows() -> Iterator[CallSite]:
    for where, methods, reader, before, after in _METHODS:
        for method in methods:
            yield from _sending("mistralai.client", where, method, reader, after, None)
            if before != _NEVER:
                yield from _sending("mistralai", where, method, reader, before, "2.0")
    for method in ("complete", "stream"):
        yield from _of_forms("mistralai.client", method, "2.0", None)
        yield from _of_forms("mistralai", method, "1.9", "2.0")
    for cloud, where, reader, before in _CLOUDS:
        for method in ("process",) if reader is MISTRAL_OCR else ("complete", "stream"):
            yield from _sending(f"mistralai.{cloud}.client", where, method, reader, "2.0", None)
            yield from _sending(f"mistralai_{cloud}", where, method, reader, before, "2.0")
    yield from _sessions()


MISTRAL: tuple[CallSite, ...] = tuple(_rows())
