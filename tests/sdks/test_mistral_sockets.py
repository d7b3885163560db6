"""mistralai over websockets, against the messages of Mistral's API ("Realtime transcription", "Realtime speech")."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

mistralai = pytest.importorskip("mistralai", reason="the Mistral SDK is not installed")
realtime = pytest.importorskip("mistralai.extra.realtime", reason="this version has nothing in real time")
pytest.importorskip("websockets", reason="websockets is not installed")
pytest.importorskip("aiohttp", reason="aiohttp, by which the server here speaks, is not installed")

from socket_server import CLOSE, DROP, SocketServer, outcome, settled  # noqa: E402

from tollspan.budget import BudgetExceeded, UnboundedCost, budget  # noqa: E402
from tollspan.instrumentation import CALL_SITES, uncovered  # noqa: E402

with contextlib.suppress(ImportError):
    from mistralai import Mistral
with contextlib.suppress(ImportError):
    from mistralai.client import Mistral

HEARER, SPEAKER, TEXT = "voxtral-mini-transcribe-realtime", "voxtral-tts-realtime", ("One ", "river.")
COUNTED = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "prompt_audio_seconds": 3}
SESSION = {"request_id": "r1", "model": HEARER, "audio_format": {"encoding": "pcm_s16le", "sample_rate": 16000}}
VOICE = {"request_id": "r1", "model": SPEAKER, "is_ref_audio": False, "voice": "v", "expressiveness": 0.5}
VOICE |= {"streaming_mode": "responsive", "response_format": "pcm"}


class Answers:
    """Answers when all was said, or refuses what is said first."""

    def __init__(self, delta, done, end="finished"):
        self.delta, self.done, self.end = delta, done, end

    def __call__(self, message):
        kind = message["type"]
        if kind.endswith(".append") and self.end == "refused":
            yield {"type": "error", "error": {"message": {"detail": "no such voice"}, "code": 422}}
        if kind in {"input_audio.end", "input_text.end"}:
            yield self.delta
            if self.end == "finished":
                yield self.done
            elif self.end != "silence":
                yield self.end


def hearing(end="finished"):
    """Transcribes."""
    done = {"type": "transcription.done", "model": HEARER, "text": "One river.", "language": "en", "usage": COUNTED}
    delta = {"type": "transcription.text.delta", "text": "One"}
    return SocketServer(Answers(delta, done, end), [{"type": "session.created", "session": SESSION}])


def speaking(end="finished"):
    """Speaks."""
    done = {"type": "speech.audio.done", "usage": COUNTED}
    delta = {"type": "speech.audio.delta", "audio_data": "AAAA"}
    return SocketServer(Answers(delta, done, end), [{"type": "session.created", "session": VOICE}])


def client(url):
    """The SDK's."""
    return Mistral(api_key="k", server_url=url)


async def pieces(*parts):
    """A stream of what is to be heard or spoken."""
    for part in parts:
        yield part


def transcribed(url):
    """Sound in pieces; gives the types of the events."""

    async def work():
        streamed = client(url).audio.realtime.transcribe_stream(pieces(bytes(100), bytes(100)), HEARER, timeout_ms=5000)
        return [event.model_dump(by_alias=True)["type"] async for event in streamed]

    return asyncio.run(work())


def spoken(url):
    """Text in pieces; gives the types of the events."""

    async def work():
        streamed = client(url).audio.realtime_speech.speak_stream(pieces(*TEXT), SPEAKER, timeout_ms=5000)
        return [event.model_dump(by_alias=True)["type"] async for event in streamed]

    return asyncio.run(work())


@dataclass(frozen=True)
class Case:
    """One way to talk. `site` is the row that covers it, `run` what the application does with the address."""

    id: str
    site: str
    run: Callable[[str], Any]
    server: Callable[..., SocketServer]
    usage: Mapping[str, float]
    model: str
    operation: str


HEARS = "mistralai.extra.realtime.transcription:RealtimeTranscription.connect"
SPEAKS = "mistralai.extra.realtime.speech:RealtimeSpeech.connect"
CASES = [
    Case("transcription", HEARS, transcribed, hearing, {"audio_seconds": 3}, HEARER, "transcription"),
    Case("speech", SPEAKS, spoken, speaking, {"characters_in": len("".join(TEXT))}, SPEAKER, "text_to_speech"),
]
if not hasattr(realtime, "RealtimeSpeech"):
    CASES.pop()


def talk(case, end="finished", run=outcome):
    """Run a case against a server that ends in this way; gives what came of it, and the server."""
    with case.server(end) as server:
        return run(case, f"http://127.0.0.1:{server.port}"), server


def test_a_session(case, instrumented):
    """What comes is as without us; one commit has exactly what is billed, and one span."""
    bare, _ = talk(case)
    assert not isinstance(bare, tuple), bare
    with instrumented() as seen:
        assert talk(case)[0] == bare
        found = settled(seen)
        (span,) = seen.spans
    assert (found.event_type, found.status, found.error_type) == ("commit", "ok", None)
    assert (found.provider, found.model, found.operation) == ("mistral_ai", case.model, case.operation)
    assert dict(found.usage) == case.usage
    assert 0 < found.timing["ttft_ms"] <= found.timing["total_ms"]
    assert span.attributes["gen_ai.request.model"] == case.model
    assert not uncovered


def test_a_refusal_costs_nothing(case, instrumented):
    """An error before anything came of it is a cancel."""
    bare, _ = talk(case, "refused")
    with instrumented() as seen:
        assert talk(case, "refused")[0] == bare
        assert settled(seen).event_type == "cancel"


@pytest.mark.parametrize("end", [DROP, CLOSE])
def test_a_connection_that_is_lost(case, end, instrumented):
    """Nobody can tell what has been billed: one estimate, as an error."""
    bare, _ = talk(case, end)
    with instrumented() as seen:
        assert talk(case, end)[0] == bare
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "error")


def test_a_strict_budget_refuses_before_anything_is_said(case, instrumented):
    """The refusal comes out of the stream that the caller reads, and not into a task that nobody hears."""

    def refused(case, url):
        with budget("1 USD", name="strict"), pytest.raises(UnboundedCost):
            case.run(url)

    with instrumented() as seen:
        _, server = talk(case, run=refused)
        assert server.heard == []
        assert settled(seen).event_type == "cancel"


def test_a_budget_that_is_told_what_to_hold(case, instrumented, monkeypatch):
    """It holds that for the session; one that has no room for the next one refuses it."""
    monkeypatch.setenv("TOLLSPAN_HOLD_USD", "0.5")

    def twice(case, url):
        with budget("0.6 USD", name="one session"):
            first = case.run(url)
            with budget("0.1 USD", name="none"), pytest.raises(BudgetExceeded):
                case.run(url)
        return first

    bare, _ = talk(case)
    with instrumented() as seen:
        assert talk(case, run=twice)[0] == bare
        assert [event.event_type for event in seen.of("commit", "cancel")] == ["commit", "cancel"]
        assert seen.open_holds == 0


def test_a_session_that_is_left(instrumented):
    """What was said is an estimate; where nothing was said, it is a cancel."""

    async def work(url, *said):
        async with await client(url).audio.realtime.connect(HEARER) as connection:
            for sound in said:
                await connection.send_audio(sound)

    with instrumented() as seen, hearing("silence") as server:
        asyncio.run(work(f"http://127.0.0.1:{server.port}"))
        assert settled(seen).event_type == "cancel"
        asyncio.run(work(f"http://127.0.0.1:{server.port}", bytes(100)))
        (found,) = seen.of("commit")
    assert found.status == "cancelled"


def test_the_row_is_in_the_table(case):
    """The method that a case calls has its row."""
    assert case.site in {f"{site.module}:{site.name}" for site in CALL_SITES}
