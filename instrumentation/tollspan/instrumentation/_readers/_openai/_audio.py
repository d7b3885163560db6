"""OpenAI's audio: speech is billed by the characters of its text, transcription by seconds or by tokens."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat

_MOST_SECONDS = 10**9
_PARTS: sse.Parts = (("tokens_audio_in", (("input_token_details", "audio_tokens"),)),)


class _OpenAIAudio(OpenAIChat):
    """What speech and transcription have in common: forms or JSON asked, text, JSON or sound answered."""

    __slots__ = ()
    asked_keys: frozenset[str] = frozenset({"input", "model"})
    _ends: tuple[str, ...] = ()

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Sound and plain text tell nothing."""
        answer = sse.parsed_object(body) if body.lstrip()[:1] == b"{" else {}
        facts = ResponseFacts(usage=_usage(answer))
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer) if answer else None)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. The terminal event holds the usage, where there is one."""
        if sse.is_whole(received):
            return self.response(received)
        stream = sse.normal(received)
        terminal = self._terminal(stream)
        facts = ResponseFacts(usage=_usage(terminal or {}), complete=terminal is not None)
        errors = (event.get("error") for event in sse.newest(stream, b'"error"', start=-sse.TAIL_BYTES))
        facts.error_type, facts.error_message = sse.failure(next(filter(None, errors), None))
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return self._terminal(sse.normal(tail)) is not None

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`: nothing limits it."""
        return {}

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`: these streams tell it, or nothing does."""
        return None

    def _terminal(self, stream: bytes) -> Mapping[str, Any] | None:
        events = sse.newest(stream, b'"type"', start=-sse.TAIL_BYTES)
        return next((event for event in events if event.get("type") in self._ends), None)


class _OpenAISpeech(_OpenAIAudio):
    """`POST .../audio/speech`: the answer is sound, or events with pieces of it."""

    __slots__ = ()
    name = "openai.speech"
    operation = "text_to_speech"
    asked_keys: frozenset[str] = frozenset({"input"})
    terminal_marks: tuple[bytes, ...] = (b"speech.audio.done",)
    path_suffixes: tuple[str, ...] = ("/audio/speech",)
    _ends: tuple[str, ...] = ("speech.audio.done",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Its text is all that is billed of it; how long the sound will be nobody knows."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=lambda: (bounds.input_bound(asked, "input", {}, tools=False)[0], "speech"),
            model=sse.text(asked.get("model")),
            stream=asked.get("stream_format") == "sse",
            max_output_tokens=0,
            priced=False,
            usage_of=partial(_spoken, len(sse.text(asked.get("input")) or "")),
        )


class _OpenAITranscriptions(_OpenAIAudio):
    """`POST .../audio/transcriptions` and `.../audio/translations`, which take forms."""

    __slots__ = ()
    name = "openai.transcriptions"
    operation = "transcription"
    terminal_marks: tuple[bytes, ...] = (b"transcript.text.done",)
    path_suffixes: tuple[str, ...] = ("/audio/transcriptions", "/audio/translations")
    _ends: tuple[str, ...] = ("transcript.text.done",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. How long the sound is, only its decoder could tell."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=lambda: (bounds.input_bound(asked, "prompt", {}, tools=False)[0], "transcription"),
            model=sse.text(asked.get("model")),
            stream=asked.get("stream") is True,
            max_output_tokens=0,
            priced=False,
        )


OPENAI_SPEECH = _OpenAISpeech()
OPENAI_TRANSCRIPTIONS = _OpenAITranscriptions()


def _usage(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Give tokens or seconds, whichever the answer is billed by."""
    raw = answer.get("usage")
    tokens_in, tokens_out = sse.count(sse.at(raw, "input_tokens")), sse.count(sse.at(raw, "output_tokens"))
    if isinstance(raw, dict) and tokens_in is not None and tokens_out is not None:
        return {"tokens_in": tokens_in, "tokens_out": tokens_out, **sse.counts(raw, _PARTS)}
    seconds = _seconds(sse.at(raw, "seconds"))
    if seconds is None:
        seconds = _seconds(answer.get("duration"))
    return None if seconds is None else {"audio_seconds": seconds}


def _seconds(value: object) -> float | None:
    seconds = bounds.number(value)
    return seconds if seconds is not None and 0 <= seconds < _MOST_SECONDS else None


def _spoken(characters: int, answer: ResponseFacts) -> dict[str, float] | None:
    """Give the usage of spoken text: what the answer tells, else the characters that were spoken."""
    if answer.usage is None and answer.error_type is None and characters:
        return {"characters_in": characters}
    return answer.usage
