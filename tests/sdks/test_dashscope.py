"""dashscope, against the wire formats of Alibaba Cloud's Model Studio (API references on help.aliyun.com).

Its module-level classes send by requests and aiohttp, its `Client` and `AsyncClient` by httpx.
"""

import asyncio
import json
from decimal import Decimal

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply

dashscope = pytest.importorskip("dashscope", reason="the dashscope SDK is not installed")

from dashscope.aigc.image_generation import AioImageGeneration, ImageGeneration  # noqa: E402
from dashscope.aigc.image_synthesis import AioImageSynthesis  # noqa: E402
from dashscope.aigc.video_synthesis import AioVideoSynthesis  # noqa: E402
from dashscope.audio.qwen_asr import QwenTranscription  # noqa: E402
from dashscope.audio.qwen_tts import SpeechSynthesizer  # noqa: E402

from tollspan.budget import BudgetExceeded, budget  # noqa: E402
from tollspan.exporter import pipeline  # noqa: E402
from tollspan.instrumentation import _fetches, uncovered  # noqa: E402

REQUEST = "dashscope.api_entities.http_request:HttpRequest"
TRANSPORT = "dashscope.v2.transport.http"
ASK = [{"role": "user", "content": "One river."}]
SEE = [{"role": "user", "content": [{"image": "https://example.com/river.png"}, {"text": "Which river?"}]}]
KEY = {"api_key": "sk-test"}
REFUSED = {"code": "InvalidParameter", "message": "Range of max_tokens should be [1, 8192]", "request_id": "r-400"}


def frames(*events, kind="result", status=200):
    """Server-sent events as DashScope frames them: a number, a kind, and the status as a comment."""
    return Reply(
        chunks=tuple(
            b"id:%d\nevent:%s\n:HTTP_STATUS/%d\ndata:%s\n\n"
            % (number, kind.encode(), status, json.dumps(event, ensure_ascii=False).encode())
            for number, event in enumerate(events, 1)
        ),
        content_type="text/event-stream;charset=UTF-8",
    )


def answer(usage, **output):
    """A whole answer of any service."""
    return {"output": output, "usage": usage, "request_id": "7574ee8f-38a3-4b1e-9280-11c33ab46e51"}


def said(content, reason, **message):
    """What a model says: a whole message, or a part of one."""
    return {"finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}


USAGE = {
    "input_tokens": 30,
    "output_tokens": 9,
    "total_tokens": 39,
    "prompt_tokens_details": {"cached_tokens": 20},
    "output_tokens_details": {"reasoning_tokens": 5},
}
COUNTED = {"tokens_in": 30, "tokens_out": 9, "tokens_cache_read": 20, "tokens_reasoning": 5}
CHAT = Reply(answer(USAGE, choices=[said("Danube.", "stop", reasoning_content="Rivers...")]))
CHAT_STREAM = frames(
    answer(USAGE | {"output_tokens": 2, "total_tokens": 32}, choices=[said("", "null", reasoning_content="Riv")]),
    answer(USAGE | {"output_tokens": 7, "total_tokens": 37}, choices=[said("Dan", "null")]),
    answer(USAGE, choices=[said("ube.", "stop")]),
)
TEXT = Reply(answer({"input_tokens": 8, "output_tokens": 3}, text="Danube.", finish_reason="stop"))
SEEN = {
    "input_tokens": 1271,
    "output_tokens": 9,
    "total_tokens": 1280,
    "image_tokens": 1247,
    "input_tokens_details": {"image_tokens": 1247, "text_tokens": 24},
    "output_tokens_details": {"text_tokens": 9},
}
SIGHT = Reply(answer(SEEN, choices=[said([{"text": "The Danube."}], "stop")]))
SIGHT_STREAM = frames(
    answer(SEEN | {"output_tokens": 3}, choices=[said([{"text": "The "}], "null")]),
    answer(SEEN | {"output_tokens": 6}, choices=[said([{"text": "Dan"}], "null")]),
    answer(SEEN, choices=[said([{"text": "ube."}], "stop")]),
)
SPOKEN = {
    "input_tokens": 14,
    "output_tokens": 115,
    "total_tokens": 129,
    "input_tokens_details": {"text_tokens": 14},
    "output_tokens_details": {"audio_tokens": 115, "text_tokens": 0},
}
SPEECH = Reply(answer(SPOKEN, audio={"data": "", "url": "http://x/1.wav", "id": "audio_1"}, finish_reason="stop"))
VECTORS = Reply(answer({"total_tokens": 12}, embeddings=[{"text_index": 0, "embedding": [0.1]}]))
FUSED = {"input_tokens": 10, "image_tokens": 896, "image_count": 1, "duration": 0}
FUSED_VECTORS = Reply(answer(FUSED, embeddings=[{"index": 0, "embedding": [0.1], "type": "image"}]))
RANKED = Reply(answer({"total_tokens": 79}, results=[{"index": 0, "relevance_score": 0.9}]))
BEGUN = Reply(answer(None, task_id="0385dc79-5ff8-4d82-bcb6-f1e5f7d334c6", task_status="PENDING"))
DRAWN = Reply(
    answer(
        {"image_count": 2, "size": "1280*1280", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        choices=[said([{"type": "image", "image": "https://x/1.png"}], "stop")],
        finished=True,
    )
)
APPLICATION = Reply(
    answer(
        {"models": [{"model_id": "qwen-plus", "input_tokens": 120, "output_tokens": 40}]},
        text="Danube.",
        finish_reason="stop",
        session_id="s-1",
    )
)
READ_ALOUD = Reply(
    answer({"characters": 10}, audio={"url": "https://x/1.mp3", "id": "a", "expires_at": 1}, finish_reason="stop")
)


def shown(result):
    """What a caller sees of an answer, but for headers that name the time; refusals are answers, too."""
    if result.status_code != 200:
        raise RuntimeError(f"{result.status_code} {result.code}")
    return {key: value for key, value in result.items() if key != "headers"}


class _Module:
    """The module, as the client of its own classes."""

    def __init__(self, url, *, asynchronous):
        dashscope.base_http_api_url = f"{url}/api/v1"
        self.aclose = dashscope.close_shared_aio_session if asynchronous else None


def _case(name, run, reply, usage, model, *, asynchronous=False, **more):
    return Case(
        name=name,
        site=f"{REQUEST}.{'aio_call' if asynchronous else 'call'}",
        client=lambda url: _Module(url, asynchronous=asynchronous),
        run=lambda _client: run(),
        reply=reply,
        usage=usage,
        provider="dashscope",
        model=model,
        asynchronous=asynchronous,
        refusal=Reply(REFUSED, status=400),
        **{"bounded": False, "shown": shown, **more},
    )


def _chat(cls, **more):
    return lambda: cls.call("qwen-plus", messages=ASK, result_format="message", max_tokens=50, **KEY, **more)


def _see(cls, **more):
    return lambda: cls.call("qwen-vl-max", messages=SEE, **KEY, **more)


GENERATION, AIO_GENERATION = dashscope.Generation, dashscope.AioGeneration
CONVERSATION, AIO_CONVERSATION = dashscope.MultiModalConversation, dashscope.AioMultiModalConversation
CONTENTS = [{"text": "river"}, {"image": "https://example.com/river.png"}]
EMBEDDED = {"operation": "embeddings"}
RERANKED = {"operation": "rerank"}
MEDIA = {"operation": "generate_content"}


def _pair(name, sync, aio, reply, usage, model, **more):  # noqa: PLR0917 - a row has its columns
    """A case for each of a class and its twin."""
    yield _case(name, sync, reply, usage, model, **more)
    yield _case(name, aio, reply, usage, model, asynchronous=True, **more)


MODULE_LEVEL = [
    *_pair("chat", _chat(GENERATION), _chat(AIO_GENERATION), CHAT, COUNTED, "qwen-plus"),
    *_pair(
        "chat stream",
        _chat(GENERATION, stream=True, incremental_output=True, enable_thinking=True),
        _chat(AIO_GENERATION, stream=True, incremental_output=True, enable_thinking=True),
        CHAT_STREAM,
        COUNTED,
        "qwen-plus",
        streams=True,
    ),
    *_pair(
        "chat stream that is merged",
        _chat(GENERATION, stream=True, incremental_output=False),
        _chat(AIO_GENERATION, stream=True, incremental_output=False),
        CHAT_STREAM,
        COUNTED,
        "qwen-plus",
        streams=True,
    ),
    *_pair(
        "chat stream that only a header asks for",
        _chat(GENERATION, stream=True),
        _chat(AIO_GENERATION, stream=True),
        CHAT_STREAM,
        COUNTED,
        "qwen-plus",
        streams=True,
    ),
    _case(
        "prompt",
        lambda: GENERATION.call("qwen-turbo", prompt="One river.", **KEY),
        TEXT,
        {"tokens_in": 8, "tokens_out": 3},
        "qwen-turbo",
    ),
    *_pair(
        "sight", _see(CONVERSATION), _see(AIO_CONVERSATION), SIGHT, {"tokens_in": 1271, "tokens_out": 9}, "qwen-vl-max"
    ),
    *_pair(
        "sight stream",
        _see(CONVERSATION, stream=True, incremental_output=True),
        _see(AIO_CONVERSATION, stream=True, incremental_output=True),
        SIGHT_STREAM,
        {"tokens_in": 1271, "tokens_out": 9},
        "qwen-vl-max",
        streams=True,
    ),
    _case(
        "speech",
        lambda: SpeechSynthesizer.call("qwen-tts", "One river.", voice="Cherry", **KEY),
        SPEECH,
        {"tokens_in": 14, "tokens_out": 115, "tokens_audio_out": 115},
        "qwen-tts",
    ),
    _case(
        "speech by HTTP",
        lambda: dashscope.HttpSpeechSynthesizer.call("cosyvoice-v3", "One river.", voice="longxiaochun", **KEY),
        READ_ALOUD,
        {"characters_in": 10},
        "cosyvoice-v3",
        shown=lambda result: shown(result.response),
        **MEDIA,
    ),
    _case(
        "embeddings",
        lambda: dashscope.TextEmbedding.call("text-embedding-v4", "river", **KEY),
        VECTORS,
        {"tokens_in": 12, "tokens_out": 0},
        "text-embedding-v4",
        **EMBEDDED,
    ),
    *_pair(
        "embeddings of images",
        lambda: dashscope.MultiModalEmbedding.call("multimodal-embedding-v1", CONTENTS, **KEY),
        lambda: dashscope.AioMultiModalEmbedding.call("multimodal-embedding-v1", CONTENTS, **KEY),
        FUSED_VECTORS,
        {"tokens_in": 906, "tokens_out": 0, "tokens_image_in": 896},
        "multimodal-embedding-v1",
        **EMBEDDED,
    ),
    _case(
        "embeddings of a file",
        lambda: dashscope.BatchTextEmbedding.async_call("text-embedding-async-v2", "https://x/texts.txt", **KEY),
        BEGUN,
        None,
        "text-embedding-async-v2",
        **EMBEDDED,
    ),
    *_pair(
        "rerank",
        lambda: dashscope.TextReRank.call("gte-rerank-v2", "river", ["Danube", "Alps"], **KEY),
        lambda: dashscope.AioTextReRank.call("gte-rerank-v2", "river", ["Danube", "Alps"], **KEY),
        RANKED,
        {"tokens_in": 79, "tokens_out": 0},
        "gte-rerank-v2",
        **RERANKED,
    ),
    *_pair(
        "image task",
        lambda: dashscope.ImageSynthesis.async_call("wan2.2-t2i-flash", "a river", n=2, **KEY),
        lambda: AioImageSynthesis.async_call("wan2.2-t2i-flash", "a river", n=2, **KEY),
        BEGUN,
        None,
        "wan2.2-t2i-flash",
        **MEDIA,
    ),
    *_pair(
        "image at once",
        lambda: ImageGeneration.call("wan2.6-image", messages=SEE, n=2, **KEY),
        lambda: AioImageGeneration.call("wan2.6-image", messages=SEE, n=2, **KEY),
        DRAWN,
        {"images": 2},
        "wan2.6-image",
    ),
    *_pair(
        "image task by messages",
        lambda: ImageGeneration.async_call("wan2.6-image", messages=SEE, **KEY),
        lambda: AioImageGeneration.async_call("wan2.6-image", messages=SEE, **KEY),
        BEGUN,
        None,
        "wan2.6-image",
        **MEDIA,
    ),
    *_pair(
        "video task",
        lambda: dashscope.VideoSynthesis.async_call("wan2.2-t2v-plus", "a river", **KEY),
        lambda: AioVideoSynthesis.async_call("wan2.2-t2v-plus", "a river", **KEY),
        BEGUN,
        None,
        "wan2.2-t2v-plus",
        **MEDIA,
    ),
    _case(
        "transcription task",
        lambda: dashscope.Transcription.async_call("paraformer-v2", ["https://x/1.mp3"], **KEY),
        BEGUN,
        None,
        "paraformer-v2",
        **MEDIA,
    ),
    _case(
        "qwen transcription task",
        lambda: QwenTranscription.async_call("qwen3-asr-flash-filetrans", "https://x/1.mp3", **KEY),
        BEGUN,
        None,
        "qwen3-asr-flash-filetrans",
        **MEDIA,
    ),
    _case(
        "application",
        lambda: dashscope.Application.call("app-1", prompt="One river.", **KEY),
        APPLICATION,
        {"tokens_in": 120, "tokens_out": 40},
        "qwen-plus",
    ),
]


def _client(url, *, asynchronous):
    made = dashscope.AsyncClient if asynchronous else dashscope.Client
    return made(base_url=f"{url}/api/v1", protocol="native", max_retries=0, **KEY)


def _of_client(name, run, reply, usage, model, **more):
    """A case for each of Client and AsyncClient."""
    for asynchronous in (False, True):
        method = "open_stream" if more.get("streams") else "request"
        yield Case(
            name=f"client {name}",
            site=f"{TRANSPORT}:{'Async' if asynchronous else 'Sync'}Transport.{method}",
            client=lambda url, asynchronous=asynchronous: _client(url, asynchronous=asynchronous),
            run=run,
            reply=reply,
            usage=usage,
            provider="dashscope",
            model=model,
            asynchronous=asynchronous,
            refusal=Reply(REFUSED, status=400),
            **{"bounded": False, **more},
        )


def _headless(result):
    """The same of an answer to a client."""
    return repr(result.model_copy(update={"headers": {}}))


CLIENTS = [
    *_of_client(
        "chat",
        lambda c: c.chat.completions.create(model="qwen-plus", messages=ASK, max_tokens=50),
        CHAT,
        COUNTED,
        "qwen-plus",
        shown=_headless,
    ),
    *_of_client(
        "chat stream",
        lambda c: c.chat.completions.create(model="qwen-plus", messages=ASK, max_tokens=50, stream=True),
        CHAT_STREAM,
        COUNTED,
        "qwen-plus",
        streams=True,
    ),
    *_of_client(
        "embeddings",
        lambda c: c.embeddings.create(model="text-embedding-v4", input="river"),
        VECTORS,
        {"tokens_in": 12, "tokens_out": 0},
        "text-embedding-v4",
        shown=_headless,
        **EMBEDDED,
    ),
    *_of_client(
        "rerank",
        lambda c: c.rerank.create(model="gte-rerank-v2", query="river", documents=["Danube", "Alps"]),
        RANKED,
        {"tokens_in": 79, "tokens_out": 0},
        "gte-rerank-v2",
        shown=_headless,
        **RERANKED,
    ),
    *_of_client(
        "image task",
        lambda c: c.images.jobs.create(model="wan2.2-t2i-flash", prompt="a river"),
        BEGUN,
        None,
        "wan2.2-t2i-flash",
        shown=_headless,
        **MEDIA,
    ),
    *_of_client(
        "video task",
        lambda c: c.videos.jobs.create(model="wan2.2-t2v-plus", prompt="a river"),
        BEGUN,
        None,
        "wan2.2-t2v-plus",
        shown=_headless,
        **MEDIA,
    ),
    *_of_client(
        "application",
        lambda c: c.apps.completions.create(app_id="app-1", prompt="One river."),
        APPLICATION,
        {"tokens_in": 120, "tokens_out": 40},
        "qwen-plus",
        shown=_headless,
    ),
]

CASES = [*MODULE_LEVEL, *CLIENTS]


@pytest.fixture(autouse=True)
def _address(monkeypatch):
    """Where the module-level classes send to is a variable of the module; tasks are new to this process."""
    _fetches._counted.clear()
    monkeypatch.setattr(dashscope, "base_http_api_url", "http://127.0.0.1:9/api/v1")


# ---- tasks, whose usage is told when they are fetched

TASK = "0385dc79-5ff8-4d82-bcb6-f1e5f7d334c6"
SUBMITTED = {"submit_time": "2025-09-29 14:18:52.331", "end_time": "2025-09-29 14:18:57.290"}
STARTED = 1759126732.331  # the time of Beijing


def task(status, usage=None, **output):
    """What a task answers when it is asked for (Model Studio, "Manage asynchronous tasks")."""
    body = {"request_id": "r-2", "output": {"task_id": TASK, "task_status": status, **SUBMITTED, **output}}
    return body if usage is None else body | {"usage": usage}


def tasks(*polls):
    """A server that begins a task, and then answers its polls, the last one again and again."""
    left = list(polls)
    return lambda asked: BEGUN if asked.method == "POST" else Reply(left.pop(0) if len(left) > 1 else left[0])


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """Give prices, as `[[price]]` tables."""

    def give(**models):
        lines = [
            line
            for model, rates in models.items()
            for line in ("[[price]]", f'model = "{model}*"', *(f"{key} = {rate}" for key, rate in rates.items()))
        ]
        (tmp_path / "prices.toml").write_text("\n".join(lines))
        monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "prices.toml"))

    return give


def _image(**options):
    return dashscope.ImageSynthesis.call("wan2.2-t2i-flash", "a river", n=2, **KEY, **options)


TASKS = {
    "images": (
        _image,
        {"image_count": 2},
        {"images": 2},
        {"wan": {"images_kcount": "40"}},
        "0.08",
    ),
    "a video": (
        lambda: dashscope.VideoSynthesis.call("wan2.6-t2v", "a river", **KEY),
        {"duration": 10, "input_video_duration": 5, "output_video_duration": 5, "video_count": 1, "SR": 720},
        {"video_seconds": 10, "video_seconds:720p": 10},
        {"wan": {"video_hours": "36"}},
        "0.10",
    ),
    "an older video": (
        lambda: dashscope.VideoSynthesis.call("wan2.1-t2v-turbo", "a river", **KEY),
        {"video_duration": 5, "video_ratio": "1280*720", "video_count": 1},
        {"video_seconds": 5},
        {"wan": {"video_hours": "36"}},
        "0.05",
    ),
    "a transcription": (
        lambda: dashscope.Transcription.call("paraformer-v2", ["https://x/1.mp3"], **KEY),
        {"duration": 360},
        {"audio_seconds": 360},
        {"paraformer": {"audio_hours": "0.5"}},
        "0.05",
    ),
    "a transcription of qwen": (
        lambda: QwenTranscription.call("qwen3-asr-flash-filetrans", "https://x/1.mp3", **KEY),
        {"seconds": 360},
        {"audio_seconds": 360},
        {"qwen3-asr": {"audio_hours": "0.5"}},
        "0.05",
    ),
    "embeddings": (
        lambda: dashscope.BatchTextEmbedding.call("text-embedding-async-v2", "https://x/texts.txt", **KEY),
        {"total_tokens": 1_000_000},
        {"tokens_in": 1_000_000, "tokens_out": 0},
        {"text": {"input_mtok": "0.1"}},
        "0.1",
    ),
}


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_costs_what_its_end_tells(server, instrumented, prices, kind):
    """A method that begins a task and waits for it is one commit, and its usage and cost come with the last poll."""
    run, usage, counted, rates, cost = TASKS[kind]
    prices(**rates)
    server.reply = tasks(task("SUCCEEDED", usage))
    _Module(server.url, asynchronous=False)
    with instrumented() as seen:
        assert run().output.task_status == "SUCCEEDED"
        commit, *adjusts = seen.of("commit", "cancel", "adjust")
        assert pipeline().ledger.verify() == []
    assert (commit.event_type, commit.usage, commit.response_id) == ("commit", {}, TASK)
    (adjust,) = adjusts
    assert (adjust.usage, adjust.model, adjust.call_id) == (counted, commit.model, commit.call_id)
    assert (adjust.cost_actual_usd, adjust.cost_source) == (Decimal(cost), "override")


def test_a_task_that_another_process_has_begun(server, instrumented):
    """A task whose begin nobody here has seen counts when it is fetched, once, at the time when it was submitted."""
    server.reply = tasks(task("RUNNING"), task("SUCCEEDED", {"image_count": 2}))
    _Module(server.url, asynchronous=False)
    with instrumented() as seen:
        for _ in range(4):
            dashscope.ImageSynthesis.fetch(TASK, **KEY)
        (event,) = seen.of("commit", "cancel", "adjust")
    assert (event.event_type, event.usage, event.provider) == ("commit", {"images": 2}, "dashscope")
    assert event.timestamp == pytest.approx(STARTED, abs=0.01)


@pytest.mark.parametrize("status", ["FAILED", "CANCELED"])
def test_a_task_that_fails_costs_nothing(server, instrumented, status):
    """A failed task is not billed: what was estimated for it is taken back."""
    server.reply = tasks(task(status, code="InternalError", message="no"))
    _Module(server.url, asynchronous=False)
    with instrumented() as seen:
        assert _image().output.task_status == status
        commit, adjust = seen.of("commit", "cancel", "adjust")
    assert (commit.cost_actual_usd, adjust.cost_actual_usd) == (None, 0)


def test_async_tasks_too(server, instrumented):
    """The async classes poll by another library, and are counted alike."""
    server.reply = tasks(task("SUCCEEDED", {"image_count": 2}))

    async def draw():
        module = _Module(server.url, asynchronous=True)
        await AioImageSynthesis.call("wan2.2-t2i-flash", "a river", n=2, **KEY)
        await module.aclose()

    with instrumented() as seen:
        asyncio.run(draw())
        commit, adjust = seen.of("commit", "cancel", "adjust")
    assert (commit.usage, adjust.usage, adjust.model) == ({}, {"images": 2}, "wan2.2-t2i-flash")


# ---- budgets


RATES = {"qwen": {"input_mtok": "1", "output_mtok": "10", "max_output_tokens": 8192, "context_window": 131072}}


def _ask(asynchronous, **options):
    async def work():
        module = _Module("", asynchronous=True)
        dashscope.base_http_api_url = options.pop("address")
        result = await AIO_GENERATION.call("qwen-plus", messages=ASK, **KEY, **options)
        items = [item async for item in result] if options.get("stream") else result
        await module.aclose()
        return items

    if asynchronous:
        return asyncio.run(work())
    dashscope.base_http_api_url = options.pop("address")
    result = GENERATION.call("qwen-plus", messages=ASK, **KEY, **options)
    return list(result) if options.get("stream") else result


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_budget_limits_the_output_on_the_wire(server, instrumented, prices, *, asynchronous, stream):
    """Where the model's maximum does not fit into a strict budget, the request is sent with the most that does."""
    prices(**RATES)
    server.reply = CHAT_STREAM if stream else CHAT
    with instrumented() as seen, budget("0.01 USD", name="small") as entry:
        _ask(asynchronous, address=f"{server.url}/api/v1", stream=stream)
        assert seen.end.usage == COUNTED
        assert seen.open_holds == 0
    (asked,) = server.asked
    assert 100 < asked.json["parameters"]["max_tokens"] < 1000
    assert asked.json["input"] == {"messages": ASK}
    assert float(entry.spent) == pytest.approx(30e-6 + 90e-6)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_budget_is_not_exceeded(server, instrumented, prices, *, asynchronous):
    """A budget that has no room for the smallest answer refuses before anything is sent."""
    prices(**RATES)
    with instrumented(), budget("0.00001 USD", name="tiny"), pytest.raises(BudgetExceeded):
        _ask(asynchronous, address=f"{server.url}/api/v1", max_tokens=50)
    assert not server.asked


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_only_a_header_asks_for(server, instrumented, *, asynchronous):
    """Nothing in the request's body tells that it asks for a stream: the answer does, and its first bytes are timed."""
    server.reply = CHAT_STREAM
    with instrumented() as seen:
        assert len(_ask(asynchronous, address=f"{server.url}/api/v1", stream=True)) == 3
        event = seen.end
    assert "stream" not in server.asked[0].json["parameters"]
    assert "ttft_ms" in event.timing


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_as_the_first_event(server, instrumented, *, asynchronous):
    """A stream may be refused by an event of an answer with status 200: that costs nothing."""
    server.reply = frames(REFUSED, kind="error", status=400)
    with instrumented() as seen:
        (only,) = _ask(asynchronous, address=f"{server.url}/api/v1", stream=True)
        event = seen.end
    assert only.code == "InvalidParameter"
    assert (event.status, event.error_type, event.cost_actual_usd) == ("error", "InvalidParameter", 0)


def test_what_is_free_is_not_counted(server, instrumented):
    """Counting tokens costs nothing, and is no call of a model."""
    server.reply = Reply(answer({"input_tokens": 5}, token_ids=[1, 2, 3, 4, 5], tokens=["a"]))
    _Module(server.url, asynchronous=False)
    with instrumented() as seen:
        assert dashscope.Tokenization.call("qwen-plus", messages=ASK, **KEY).usage == {"input_tokens": 5}
        assert seen.events == []
    assert not uncovered
