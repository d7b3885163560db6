"""together, against the wire format of its API (docs.together.ai, API reference)."""

from dataclasses import replace

import pytest
from contract import *  # noqa: F403
from contract import Case, attempts_of_one_call, driven, fully
from wire_server import Reply, sse

from tollspan.budget import budget

together = pytest.importorskip("together", minversion="2", reason="the together SDK is not installed")

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25, "cached_tokens": 4}
USED = {"tokens_in": 18, "tokens_out": 7, "tokens_cache_read": 4}
_ONE = {"id": "oFf-1", "object": "chat.completion", "created": 1700000000, "model": MODEL, "prompt": []}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}
_ASK = {"model": MODEL, "messages": [{"role": "user", "content": "One river."}]}


def _choice(text, **more):
    return {"index": 0, "text": text, "delta": {"role": "assistant", "content": text}} | more


_WHOLE = Reply(
    _ONE
    | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Danube."}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
_STREAM = sse(
    _CHUNK | {"choices": [_choice("Dan")], "usage": None},
    _CHUNK | {"choices": [_choice("ube")], "usage": None},
    _CHUNK | {"choices": [_choice(".", finish_reason="stop")], "usage": USAGE},
    done=True,
)
_WRITTEN = Reply(
    _ONE | {"object": "text.completion", "choices": [{"text": "Danube.", "finish_reason": "stop"}], "usage": USAGE}
)
_EMBEDDED = {
    "object": "list", "model": "BAAI/bge-base-en-v1.5",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
}  # fmt: skip
_DRAWN = {
    "id": "oFf-2", "object": "list", "model": "black-forest-labs/FLUX.1-schnell",
    "data": [{"index": 0, "type": "url", "url": "https://a/1"}, {"index": 1, "type": "url", "url": "https://a/2"}],
}  # fmt: skip
_RANKED = {
    "id": "oFf-3", "object": "rerank", "model": "Salesforce/Llama-Rank-V1",
    "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "one"}}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 0, "total_tokens": 40},
}  # fmt: skip
_HEARD = {"language": "en", "duration": 8.25, "text": "Danube.", "segments": []}


def _client(url, *, asynchronous, max_retries=0):
    made = together.AsyncTogether if asynchronous else together.Together
    return made(base_url=url, api_key="test", max_retries=max_retries)


def _case(name, site, run, reply, usage, *, asynchronous, model=MODEL, **more):
    module, _, method = site.partition(":")
    return Case(
        name=name,
        site=f"together.resources.{module}:{'Async' if asynchronous else ''}{method}",
        client=lambda url: _client(url, asynchronous=asynchronous),
        run=run,
        reply=reply,
        usage=usage,
        provider="together",
        model=model,
        asynchronous=asynchronous,
        **more,
    )


def _cases(*, asynchronous):
    same = {"asynchronous": asynchronous}
    text = same | {"operation": "text_completion"}
    pieces = same | {"bounded": False}
    chat, completion = "chat.completions:CompletionsResource.create", "completions:CompletionsResource.create"
    return [
        _case("chat", chat, lambda c: c.chat.completions.create(**_ASK), _WHOLE, USED, **same),
        _case(
            "chat stream", chat, lambda c: c.chat.completions.create(**_ASK, stream=True), _STREAM, USED,
            streams=True, **same,
        ),
        _case(
            "completion", completion, lambda c: c.completions.create(model=MODEL, prompt="One river."), _WRITTEN, USED,
            **text,
        ),
        _case(
            "completion stream", completion,
            lambda c: c.completions.create(model=MODEL, prompt="One river.", stream=True), _STREAM, USED,
            streams=True, **text,
        ),
        _case(
            "embeddings", "embeddings:EmbeddingsResource.create",
            lambda c: c.embeddings.create(model="BAAI/bge-base-en-v1.5", input="one"), Reply(_EMBEDDED), None,
            operation="embeddings", model="BAAI/bge-base-en-v1.5", **pieces,
        ),
        _case(
            "images", "images:ImagesResource.generate",
            lambda c: c.images.generate(model=_DRAWN["model"], prompt="a river", n=2), Reply(_DRAWN), {"images": 2},
            operation="image_generation", model=_DRAWN["model"], **pieces,
        ),
        _case(
            "rerank", "rerank:RerankResource.create",
            lambda c: c.rerank.create(model="Salesforce/Llama-Rank-V1", query="q", documents=["one"]), Reply(_RANKED),
            {"tokens_in": 40, "tokens_out": 0}, operation="rerank", model="Salesforce/Llama-Rank-V1", **pieces,
        ),
        _case(
            "speech", "audio.speech:SpeechResource.create",
            lambda c: c.audio.speech.create(model="cartesia/sonic", input="Danube.", voice="laidback woman"),
            Reply(b"RIFF....WAVE", content_type="audio/wav"), {"characters_in": 7}, operation="text_to_speech",
            model="cartesia/sonic", shown=lambda answer: answer.http_response.status_code, **pieces,
        ),
        _case(
            "transcription", "audio.transcriptions:TranscriptionsResource.create",
            lambda c: c.audio.transcriptions.create(
                file=("a.wav", b"RIFF"), model="openai/whisper-large-v3", response_format="verbose_json"
            ),
            Reply(_HEARD), {"audio_seconds": 8.25}, operation="transcription", model="openai/whisper-large-v3",
            **pieces,
        ),
        _case(
            "translation", "audio.translations:TranslationsResource.create",
            lambda c: c.audio.translations.create(
                file=("a.wav", b"RIFF"), model="openai/whisper-large-v3", response_format="verbose_json"
            ),
            Reply(_HEARD), {"audio_seconds": 8.25}, operation="transcription", model="openai/whisper-large-v3",
            **pieces,
        ),
    ]  # fmt: skip


CASES = [case for asynchronous in (False, True) for case in _cases(asynchronous=asynchronous)]
TEXTS = [case for case in CASES if case.operation in ("chat", "text_completion")]


@pytest.mark.parametrize("way", TEXTS, ids=lambda way: way.id)
def test_the_retries_of_the_sdk_are_attempts_of_one_call(way, server, instrumented):
    """Each attempt is seen, and the call is one commit."""
    busy = Reply({"error": {"message": "busy", "type": "internal"}}, status=503, headers={"retry-after-ms": "1"})
    patient = replace(way, client=lambda url: _client(url, asynchronous=way.asynchronous, max_retries=1))
    attempts_of_one_call(patient, server, instrumented, busy)


@pytest.mark.parametrize("way", TEXTS, ids=lambda way: way.id)
def test_a_budget_limits_the_output(way, server, instrumented):
    """What a budget has left buys so much output and no more: that is what the server is told, whatever its default."""
    server.reply = way.reply
    with instrumented() as seen:
        with budget("0.001 USD", name="small"):
            driven(way, server, fully(way))
        assert 16 < server.asked[-1].json["max_tokens"] < 1_200
        assert seen.end.cost_actual_usd > 0
