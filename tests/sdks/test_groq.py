"""groq, against the wire format of its API (console.groq.com, API reference: "Chat", "Audio", and embeddings)."""

from dataclasses import replace

import pytest
from contract import *  # noqa: F403
from contract import Case, attempts_of_one_call, driven, fully, read
from wire_server import Reply, sse

from tollspan.budget import budget

groq = pytest.importorskip("groq", reason="the groq SDK is not installed")

USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25, "queue_time": 0.03, "total_time": 0.02}
_ONE = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "llama-3.3-70b-versatile"}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}


def _choice(**delta):
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


_WHOLE = Reply(
    _ONE
    | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Danube."}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
_STREAM = sse(
    _CHUNK | {"choices": [_choice(role="assistant", content="")], "x_groq": {"id": "req_1"}},
    _CHUNK | {"choices": [_choice(content="Dan")]},
    _CHUNK | {"choices": [_choice(content="ube.")]},
    _CHUNK | {"choices": [_choice() | {"finish_reason": "stop"}], "x_groq": {"id": "req_1", "usage": USAGE}},
    done=True,
)


def _client(url, *, asynchronous, max_retries=0):
    made = groq.AsyncGroq if asynchronous else groq.Groq
    return made(base_url=url, api_key="gsk-test", max_retries=max_retries)


def _case(name, site, run, reply, usage, *, asynchronous, model=_ONE["model"], **more):
    module, _, method = site.partition(":")
    return Case(
        name=name,
        site=f"groq.resources.{module}:{'Async' if asynchronous else ''}{method}",
        client=lambda url: _client(url, asynchronous=asynchronous),
        run=run,
        reply=reply,
        usage=usage,
        provider="groq",
        model=model,
        asynchronous=asynchronous,
        **more,
    )


def _chat(client, **more):
    asked = {"model": _ONE["model"], "messages": [{"role": "user", "content": "One river."}], "max_tokens": 50}
    return client.chat.completions.create(**asked, **more)


_USED = {"tokens_in": 18, "tokens_out": 7}
_EMBEDDED = {
    "object": "list", "model": "nomic-embed-text-v1_5", "usage": {"prompt_tokens": 4, "total_tokens": 4},
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
}  # fmt: skip
_HEARD = {"task": "transcribe", "language": "en", "duration": 8.25, "text": "Danube.", "x_groq": {"id": "req_1"}}
_SOUND = {"file": ("a.wav", b"RIFF"), "model": "whisper-large-v3"}
_CHAT = "chat.completions:Completions.create"


def _cases(*, asynchronous):
    same = {"asynchronous": asynchronous}
    sound = same | {"bounded": False, "operation": "transcription", "model": "whisper-large-v3"}
    return [
        _case("chat", _CHAT, _chat, _WHOLE, _USED, **same),
        _case("chat stream", _CHAT, lambda c: _chat(c, stream=True), _STREAM, _USED, streams=True, **same),
        _case(
            "embeddings", "embeddings:Embeddings.create",
            lambda c: c.embeddings.create(model="nomic-embed-text-v1_5", input="one"), Reply(_EMBEDDED),
            {"tokens_in": 4, "tokens_out": 0}, operation="embeddings", model="nomic-embed-text-v1_5", bounded=False,
            **same,
        ),
        _case(
            "transcription", "audio.transcriptions:Transcriptions.create",
            lambda c: c.audio.transcriptions.create(**_SOUND, response_format="verbose_json"), Reply(_HEARD),
            {"audio_seconds": 8.25}, **sound,
        ),
        _case(
            "transcription in short", "audio.transcriptions:Transcriptions.create",
            lambda c: c.audio.transcriptions.create(**_SOUND), Reply({"text": "Danube."}), None, **sound,
        ),
        _case(
            "translation", "audio.translations:Translations.create",
            lambda c: c.audio.translations.create(**_SOUND, response_format="verbose_json"), Reply(_HEARD),
            {"audio_seconds": 8.25}, **sound,
        ),
        _case(
            "speech", "audio.speech:Speech.create",
            lambda c: c.audio.speech.create(model="playai-tts", input="Danube.", voice="Fritz-PlayAI"),
            Reply(b"RIFF....WAVE", content_type="audio/wav"), {"characters_in": 7}, operation="text_to_speech",
            model="playai-tts", bounded=False, shown=lambda answer: answer.http_response.status_code, **same,
        ),
    ]  # fmt: skip


CASES = [case for asynchronous in (False, True) for case in _cases(asynchronous=asynchronous)]
CHATS = [case for case in CASES if case.operation == "chat"]


@pytest.mark.parametrize("way", CHATS, ids=lambda way: way.id)
def test_the_retries_of_the_sdk_are_attempts_of_one_call(way, server, instrumented):
    """Each attempt is seen, and the call is one commit."""
    busy = Reply({"error": {"message": "busy", "type": "internal"}}, status=503, headers={"retry-after-ms": "1"})
    patient = replace(way, client=lambda url: _client(url, asynchronous=way.asynchronous, max_retries=1))
    attempts_of_one_call(patient, server, instrumented, busy)


@pytest.mark.parametrize("way", CHATS, ids=lambda way: way.id)
def test_a_budget_limits_the_output(way, server, instrumented):
    """What a budget has left buys so much output and no more: that is what the server is told."""
    server.reply = way.reply
    asked = {"model": _ONE["model"], "messages": [{"role": "user", "content": "One river."}], "stream": way.streams}
    unlimited = replace(way, run=lambda client: client.chat.completions.create(**asked))
    with instrumented() as seen:
        with budget("0.0005 USD", name="small"):
            driven(unlimited, server, fully(way))
        assert 0 < server.asked[-1].json["max_tokens"] < 1_000
        assert seen.end.cost_actual_usd > 0


_FAILED = {"error": {"message": "Tool call validation failed", "type": "invalid_request_error", "status_code": 400}}


@pytest.mark.parametrize("way", [case for case in CHATS if case.streams], ids=lambda way: way.id)
def test_an_error_in_a_stream_ends_it(way, server, instrumented):
    """The SDK raises it without reading on or closing; the call is settled all the same, while that is still known."""
    began, *_ = way.reply.chunks
    server.reply = replace(way.reply, chunks=(began, sse(_FAILED).chunks[0]))
    with instrumented() as seen:
        with pytest.raises(groq.APIError, match="validation failed") as kept:
            driven(way, server, read)
        assert (seen.end.event_type, seen.end.status, seen.end.error_type) == (
            "commit", "error", "invalid_request_error",
        )  # fmt: skip
        assert kept.tb  # whoever keeps the exception keeps the stream
