"""What Mistral bills by the piece: pages read, sound heard or spoken; and its classifiers, which only read.

Source: docs.mistral.ai/api.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._embeddings import OPENAI_EMBEDDINGS

_ANNOTATED = ("bbox_annotation_format", "document_annotation_format")


class _Pieces(Flavour, ABC):
    """Requests whose answer alone tells how many pieces there were."""

    __slots__ = ()
    vendor = "mistral_ai"
    pieces = "pieces"

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. There is no output, and no price of tokens."""
        return RequestFacts(
            measure=lambda: (bounds.REQUEST_TOKENS, f"billed by the {self.pieces}"),
            model=sse.text(body.get("model")),
            stream=body.get("stream") is True,
            max_output_tokens=0,
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts(model=sse.text(answer.get("model")), response_id=sse.text(answer.get("id")))
        facts.usage = self._usage(answer)
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The terminal event has what a whole answer has."""
        if sse.is_whole(received):
            return self.response(received)
        end = self._end(sse.normal(received))
        return ResponseFacts(
            model=sse.text(sse.at(end, "model")), usage=self._usage(end or {}), complete=end is not None
        )

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return self._end(sse.normal(tail)) is not None

    def _end(self, stream: bytes) -> dict[str, Any] | None:
        ends = (event for mark in self.terminal_marks for event in sse.newest(stream, mark))
        kinds = {mark.decode() for mark in self.terminal_marks}
        return next((event for event in ends if sse.text(event.get("type")) in kinds), None)

    @abstractmethod
    def _usage(self, answer: Mapping[str, Any]) -> dict[str, float] | None:
        """The pieces that an answer counts; None where it does not."""


class _Ocr(_Pieces):
    """`POST /v1/ocr`: pages. Those that are annotated as well have another price."""

    __slots__ = ()
    name = "mistral.ocr"
    operation = "generate_content"
    pieces = "page"
    path_suffixes: tuple[str, ...] = ("/v1/ocr", "/azure/ocr")
    asked_keys: frozenset[str] = frozenset({"document"})

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        facts = super().request(body, path)
        if any(body.get(key) for key in _ANNOTATED):
            facts.usage_of = _annotated
        return facts

    def _usage(self, answer: Mapping[str, Any]) -> dict[str, float] | None:
        pages = sse.count(sse.at(answer, "usage_info", "pages_processed"))
        return None if pages is None else {"document_pages": pages}


def _annotated(answer: ResponseFacts) -> dict[str, float] | None:
    return {f"annotated_{key}": count for key, count in answer.usage.items()} if answer.usage else answer.usage


class _Transcriptions(_Pieces):
    """`POST /v1/audio/transcriptions`: seconds. The tokens that its answer tells of beside them are not billed."""

    __slots__ = ()
    name = "mistral.transcriptions"
    operation = "transcription"
    pieces = "second"
    path_suffixes: tuple[str, ...] = ()  # OpenAI's, and the rows say whose they are
    terminal_marks: tuple[bytes, ...] = (b"transcription.done",)

    def _usage(self, answer: Mapping[str, Any]) -> dict[str, float] | None:
        seconds = bounds.number(sse.at(answer, "usage", "prompt_audio_seconds"))
        return None if seconds is None or seconds < 0 else {"audio_seconds": seconds}


class _Speech(_Pieces):
    """`POST /v1/audio/speech`: the characters that are spoken, whatever the answer counts."""

    __slots__ = ()
    name = "mistral.speech"
    operation = "text_to_speech"
    pieces = "character"
    path_suffixes: tuple[str, ...] = ()  # OpenAI's, and the rows say whose they are
    terminal_marks: tuple[bytes, ...] = (b"speech.audio.done",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        facts = super().request(body, path)
        facts.usage_of = partial(_spoken, len(sse.text(body.get("input")) or ""))
        return facts

    def _usage(self, answer: Mapping[str, Any]) -> dict[str, float] | None:
        return None


def _spoken(characters: int, answer: ResponseFacts) -> dict[str, float] | None:
    return {"characters_in": characters} if characters and answer.error_type is None else None


class _Classifiers(Flavour):
    """`POST /v1/classifications` and `/v1/chat/classifications`: input and nothing else."""

    __slots__ = ()
    name = "mistral.classifiers"
    vendor = "mistral_ai"
    operation = "classify"
    path_suffixes: tuple[str, ...] = ("/v1/classifications", "/chat/classifications")
    asked_keys: frozenset[str] = frozenset({"input", "messages"})

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        facts = OPENAI_EMBEDDINGS.request(body, path)
        facts.attributes = {}
        return facts

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Not every answer has a usage."""
        return OPENAI_EMBEDDINGS.response(body)

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there are none."""
        return self.response(received)


class _Moderations(_Classifiers):
    """`POST /v1/moderations`, which is OpenAI's path too, and `/v1/chat/moderations`; Mistral bills both."""

    __slots__ = ()
    name = "mistral.moderations"
    operation = "moderation"
    path_suffixes: tuple[str, ...] = ("/chat/moderations",)


MISTRAL_OCR, MISTRAL_CLASSIFIERS, MISTRAL_MODERATIONS = _Ocr(), _Classifiers(), _Moderations()
MISTRAL_TRANSCRIPTIONS, MISTRAL_SPEECH = _Transcriptions(), _Speech()
MISTRAL_PIECES: tuple[Reader, ...] = (MISTRAL_OCR, MISTRAL_CLASSIFIERS, MISTRAL_MODERATIONS)
