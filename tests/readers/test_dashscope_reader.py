"""Alibaba Cloud's DashScope. Wire formats: Model Studio's API references, as named at each fixture."""

import base64
import json
import struct

import pytest

from tollspan.instrumentation._readers import FETCHES, READERS, reader_for_path

DASHSCOPE = {reader.name: reader for reader in READERS if reader.vendor == "dashscope"}
CHAT, EMBEDDINGS, TASKS = (DASHSCOPE[f"dashscope.{name}"] for name in ("generation", "embeddings", "tasks"))
(FETCH,) = [fetch for fetch in FETCHES if fetch.reader is TASKS]
SERVICES = "https://dashscope.aliyuncs.com/api/v1/services"
STARTED = 1759126732.331


def answer(usage=None, **output):
    """The envelope of every answer."""
    return json.dumps({"output": output, "usage": usage, "request_id": "r-1"}).encode()


def stream(*events, kind="result", status=200):
    """Events as DashScope frames them ("DashScope API reference", streaming)."""
    return b"".join(
        b"id:%d\nevent:%s\n:HTTP_STATUS/%d\ndata:%s\n\n" % (number, kind.encode(), status, event)
        for number, event in enumerate(events, 1)
    )


def said(text, reason="null", **more):
    """A choice with a part of a message."""
    return {"finish_reason": reason, "message": {"role": "assistant", "content": text}, **more}


def used(tokens_out, **more):
    """A usage, which each event has as it is so far."""
    return {"input_tokens": 30, "output_tokens": tokens_out, "total_tokens": 30 + tokens_out, **more}


# ---- usage, service by service


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        # "DashScope API reference": text, thinking, search
        (used(9), {"tokens_in": 30, "tokens_out": 9}),
        (
            used(9, output_tokens_details={"reasoning_tokens": 5, "text_tokens": 4}),
            {"tokens_in": 30, "tokens_out": 9, "tokens_reasoning": 5},
        ),
        (
            used(9, plugins={"search": {"count": 2, "strategy": "turbo"}}),
            {"tokens_in": 30, "tokens_out": 9, "web_searches": 2},
        ),
        # "Context cache": implicit and explicit
        (
            used(9, prompt_tokens_details={"cached_tokens": 20}),
            {"tokens_in": 30, "tokens_out": 9, "tokens_cache_read": 20},
        ),
        (
            used(
                9,
                prompt_tokens_details={
                    "cached_tokens": 0,
                    "cache_creation_input_tokens": 25,
                    "cache_creation": {"ephemeral_5m_input_tokens": 25},
                    "cache_type": "ephemeral",
                },
            ),
            {"tokens_in": 30, "tokens_out": 9, "tokens_cache_write": 25, "tokens_cache_write_5m": 25},
        ),
        # Qwen-VL: images are billed as text
        (
            used(9, image_tokens=24, input_tokens_details={"image_tokens": 24, "text_tokens": 6}),
            {"tokens_in": 30, "tokens_out": 9},
        ),
        # Qwen-Omni: each kind has its price
        (
            used(
                9,
                input_tokens_details={"audio_tokens": 10, "image_tokens": 8, "video_tokens": 6, "text_tokens": 6},
                output_tokens_details={"audio_tokens": 7, "text_tokens": 2},
            ),
            {
                "tokens_in": 30,
                "tokens_out": 9,
                "tokens_audio_in": 10,
                "tokens_audio_out": 7,
                "tokens_image_in": 8,
                "tokens_video_in": 6,
            },
        ),
        # Qwen-Audio counts audio outside of its input tokens
        (
            {"input_tokens": 33, "output_tokens": 10, "audio_tokens": 85},
            {"tokens_in": 118, "tokens_out": 10, "tokens_audio_in": 85},
        ),
        # Qwen3-ASR, speech and images are billed by the second, the character and the image
        ({"seconds": 7, "output_tokens_details": {"text_tokens": 6}}, {"audio_seconds": 7}),
        ({"characters": 195, "input_tokens": 0, "output_tokens": 0}, {"characters_in": 195}),
        ({"image_count": 1, "size": "1488*704", "input_tokens": 10867, "output_tokens": 2}, {"images": 1}),
        ({"image_count": 1, "width": 1328, "height": 1328}, {"images": 1}),
        # "Text rerank" and "Text embedding"
        ({"total_tokens": 79}, {"tokens_in": 79, "tokens_out": 0}),
    ],
)
def test_a_usage(raw, usage):
    """Totals count every token, parts are parts, and what is billed by the piece has no tokens."""
    assert CHAT.response(answer(raw, choices=[said("x", "stop")])).usage == usage


@pytest.mark.parametrize(
    "raw",
    [
        *(None, {}, [], "many", {"input_tokens": "30", "output_tokens": 9}, {"input_tokens": 30, "output_tokens": -1}),
        *({"input_tokens": True, "output_tokens": 1}, {"image_count": 0}, {"seconds": float("inf")}, {"models": [{}]}),
    ],
)
def test_what_is_no_usage_is_none(raw):
    """What cannot be read is unknown, and never 0."""
    assert CHAT.response(answer(raw, text="x", finish_reason="stop")).usage is None


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"total_tokens": 26}, {"tokens_in": 26, "tokens_out": 0}),
        # "Multimodal embedding": in older models images are outside of the input tokens
        (
            {"input_tokens": 10, "image_tokens": 896, "image_count": 1, "duration": 0},
            {"tokens_in": 906, "tokens_out": 0, "tokens_image_in": 896},
        ),
        (
            {
                "input_tokens": 906,
                "input_tokens_details": {"image_tokens": 896, "text_tokens": 10},
                "image_tokens": 896,
                "image_count": 1,
                "output_tokens": 1,
                "total_tokens": 907,
            },
            {"tokens_in": 906, "tokens_out": 1, "tokens_image_in": 896},
        ),
    ],
)
def test_embeddings(raw, usage):
    """Embeddings count what was put in, images at a price of their own."""
    facts = EMBEDDINGS.response(answer(raw, embeddings=[]))
    assert (facts.usage, facts.response_id) == (usage, "r-1")


def test_an_application_has_the_usage_of_its_models():
    """The first model is that of the call; the others are billed at their own prices ("Application calls")."""
    models = [
        {"model_id": "qwen-plus", "input_tokens": 10, "output_tokens": 2},
        {"model_id": "qwen-max", "input_tokens": 5, "output_tokens": 1},
        {"model_id": "qwen-plus", "input_tokens": 3, "output_tokens": 1},
    ]
    facts = DASHSCOPE["dashscope.application"].response(answer({"models": models}, text="x", finish_reason="stop"))
    assert (facts.model, facts.usage) == ("qwen-plus", {"tokens_in": 13, "tokens_out": 3})
    assert facts.others == (("qwen-max", {"tokens_in": 5, "tokens_out": 1}),)


# ---- streams


PARTS = [answer(used(2), choices=[said("Dan")]), answer(used(4), choices=[said("ube")])]
LAST = answer(used(5), choices=[said(".", "stop")])


def test_a_stream_has_the_usage_of_its_last_event():
    """Each event has the usage so far, and only the one with a finish reason is the end."""
    facts = CHAT.stream(stream(*PARTS, LAST))
    assert (facts.usage, facts.complete, facts.finish_reasons) == ({"tokens_in": 30, "tokens_out": 5}, True, ("stop",))
    assert facts.response_id == "r-1"


def test_a_part_of_a_stream_has_no_usage():
    """A cut stream has used what it tells and perhaps more: that is no usage, and its tokens so far are known."""
    facts = CHAT.stream(stream(*PARTS))
    assert (facts.usage, facts.complete, facts.finish_reasons) == (None, False, ())
    assert facts.visible_output_bytes == 4


def test_a_part_of_a_stream_without_usage_is_measured():
    """Some models tell their usage at the end alone: then the text so far is measured, thoughts and calls included."""
    call = {"function": {"name": "river", "arguments": "{}"}}
    thought = {"message": {"content": [{"text": "D\u00fc"}], "reasoning_content": "Riv", "tool_calls": [call]}}
    assert CHAT.stream(stream(answer(None, choices=[thought]))).visible_output_bytes == 3 + 3 + 5 + 2


def test_several_choices_each_have_their_output():
    """Each event of several choices has the output of one of them; all of them have the same input."""
    events = [
        answer(used(2), choices=[said("a", index=0)]),
        answer(used(7), choices=[said("b", index=1)]),
        answer(used(3), choices=[said("a", "stop", index=0)]),
    ]
    assert CHAT.stream(stream(*events)).complete is False
    facts = CHAT.stream(stream(*events, answer(used(8), choices=[said("b", "length", index=1)])))
    assert (facts.usage, facts.finish_reasons) == ({"tokens_in": 30, "tokens_out": 11}, ("stop", "length"))


def test_a_deep_research_ends_without_a_finish_reason():
    """Its answer has phases, of which the last one finishes ("Qwen-Deep-Research")."""
    parts = [
        answer(used(4), message={"phase": "answer", "status": "typing", "content": "D", "extra": {}}),
        answer(used(9), message={"phase": "answer", "status": "finished", "content": "", "extra": {}}),
    ]
    assert CHAT.stream(stream(*parts[:1])).complete is False
    assert CHAT.stream(stream(*parts)).usage == {"tokens_in": 30, "tokens_out": 9}


@pytest.mark.parametrize("kept", [b"", stream(*PARTS)])
def test_the_end_is_seen_in_the_last_bytes(kept):
    """The event with a finish reason and a usage is the end, whatever stands before it."""
    assert CHAT.is_complete(kept + stream(LAST))
    assert any(mark in LAST for mark in CHAT.terminal_marks)
    assert not CHAT.is_complete(stream(*PARTS))
    assert not CHAT.is_complete(kept + stream(LAST)[:-20])
    assert not CHAT.is_complete(stream(answer(used(3), choices=[said("a", "stop", index=1)])))


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_stream_that_was_not_asked_for_in_the_body(end):
    """A body does not tell that its answer is a stream: as a whole answer it is read alike."""
    received = stream(*PARTS, LAST).replace(b"\n", end)
    assert CHAT.response(received).usage == CHAT.stream(received).usage == {"tokens_in": 30, "tokens_out": 5}


# ---- errors


ERROR = json.dumps({"code": "InvalidParameter", "message": "Range of max_tokens", "request_id": "r-2"}).encode()


@pytest.mark.parametrize("body", [ERROR, stream(ERROR, kind="error", status=400)], ids=["json", "framed"])
def test_an_error(body):
    """An error is an object, which the body of a 400 may frame as an event, too."""
    for facts in (CHAT.response(body), CHAT.stream(body)):
        assert (facts.error_type, facts.error_message) == ("InvalidParameter", "Range of max_tokens")
        assert (facts.response_id, facts.usage) == ("r-2", None)


def test_a_refusal_as_the_first_event_costs_nothing():
    """A stream that begins with an error of the caller's was not billed; one that ends with an error may be."""
    assert CHAT.stream(stream(ERROR, kind="error", status=400)).cost_usd == 0
    assert CHAT.stream(stream(ERROR, kind="error", status=500)).cost_usd is None
    late = CHAT.stream(stream(*PARTS) + stream(ERROR, kind="error", status=400))
    assert (late.cost_usd, late.usage, late.error_type) == (None, None, "InvalidParameter")


def test_an_error_of_a_gateway():
    """A model that is not known is told as OpenAI tells it."""
    facts = CHAT.response(
        b'{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}'
    )
    assert (facts.error_type, facts.error_message) == ("invalid_request_error", "no such model")


# ---- tasks


def task(status, usage=None, **output):
    """What a task answers ("Manage asynchronous tasks")."""
    times = {"submit_time": "2025-09-29 14:18:52.331", "scheduled_time": "2025-09-29 14:18:52.395"}
    return answer(usage, task_id="t-1", task_status=status, **times, **output)


def test_the_begin_of_a_task_has_its_id():
    """The id by which a task is fetched is that of its begin."""
    facts = TASKS.response(answer(None, task_id="t-1", task_status="PENDING"))
    assert (facts.response_id, facts.usage, TASKS.fetchable) == ("t-1", None, True)


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"image_count": 4}, {"images": 4}),
        ({"video_duration": 5, "video_ratio": "1280*720", "video_count": 1}, {"video_seconds": 5}),
        ({"video_duration": 10.23, "video_ratio": "standard"}, {"video_seconds": 10.23}),
        # what was put in is billed as well ("Wan reference to video")
        (
            {"duration": 10.0, "input_video_duration": 5, "output_video_duration": 5, "video_count": 1, "SR": 720},
            {"video_seconds": 10, "video_seconds:720p": 10},
        ),
        ({"duration": 9}, {"audio_seconds": 9}),
        ({"seconds": 9}, {"audio_seconds": 9}),
        ({"total_tokens": 384}, {"tokens_in": 384, "tokens_out": 0}),
    ],
)
def test_a_task_that_has_succeeded(raw, usage):
    """Its usage counts from when it was submitted, by the clock of Beijing."""
    (facts,) = FETCH.read(task("SUCCEEDED", raw))
    assert (facts.usage, facts.response_id, facts.created) == (usage, "t-1", STARTED)


@pytest.mark.parametrize("status", ["FAILED", "CANCELED"])
def test_a_task_that_has_failed(status):
    """It is not billed."""
    (facts,) = FETCH.read(task(status, {"image_count": 0}, code="InternalError", message="no"))
    assert (facts.cost_usd, facts.usage, facts.error_message) == (0, None, "no")


@pytest.mark.parametrize(
    "body",
    [
        *(task(status, {"image_count": 1}) for status in ("PENDING", "RUNNING", "UNKNOWN")),
        task("SUCCEEDED"),
        b"",
        b"{}",
        b'{"task_id": "t-1", "status": "SUCCEEDED"}',
        b'{"output": {"task_status": "SUCCEEDED"}, "usage": {"image_count": 1}}',
    ],
)
def test_what_is_no_end_of_a_task(body):
    """A task that goes on, and other services with such paths, count nothing."""
    assert list(FETCH.read(body)) == []


# ---- requests


def conversation(*parts, model="qwen-plus", **parameters):
    """A request of one message."""
    return {"model": model, "input": {"messages": [{"role": "user", "content": list(parts)}]}, "parameters": parameters}


def png(width, height):
    """The header of an image, as a `data:` URL."""
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return "data:image/png;base64," + base64.b64encode(head + bytes(90_000)).decode()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/aigc/text-generation/generation", "generation"),
        ("/aigc/multimodal-generation/generation", "generation"),
        ("/embeddings/text-embedding/text-embedding", "embeddings"),
        ("/embeddings/multimodal-embedding/multimodal-embedding", "embeddings"),
        ("/rerank/text-rerank/text-rerank", "rerank"),
        ("/aigc/text2image/image-synthesis", "tasks"),
        ("/aigc/image2image/image-synthesis", "tasks"),
        ("/aigc/image-generation/generation", "tasks"),
        ("/aigc/video-generation/video-synthesis", "tasks"),
        ("/aigc/image2video/video-synthesis", "tasks"),
        ("/audio/asr/transcription", "tasks"),
        ("/audio/tts/SpeechSynthesizer", "speech"),
    ],
)
def test_paths(path, name):
    """Each service is known by its path."""
    assert reader_for_path(f"{SERVICES}{path}") is DASHSCOPE[f"dashscope.{name}"]


def test_a_request_tells_what_it_asks_for():
    """Parameters become attributes of OpenTelemetry's conventions."""
    facts = CHAT.request(conversation({"text": "x"}, temperature=0.5, top_p=0.9, seed=7, n=2, incremental_output=True))
    assert facts.attributes == {
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True,
    }
    assert (facts.model, facts.stream, facts.choices, facts.unbounded) == ("qwen-plus", True, 2, None)


@pytest.mark.parametrize(
    ("model", "parameters", "limit"),
    [
        ("qwen-plus", {}, None),
        ("qwen-plus", {"max_tokens": 50}, 50),
        ("qwen-plus", {"max_tokens": 50, "enable_thinking": True, "thinking_budget": 100}, 150),
        ("qwen-plus", {"max_tokens": 50, "enable_thinking": True}, 50 + 81_920),
        ("qwen3-32b", {"max_tokens": 50}, 50 + 81_920),
        ("qwen3-32b", {"max_tokens": 50, "enable_thinking": False}, 50),
        ("qwq-plus", {"max_tokens": 50, "enable_thinking": False}, 50 + 81_920),
        ("qwen3-30b-a3b-instruct-2507", {"max_tokens": 50}, 50),
        ("qwen2.5-72b", {"max_tokens": 50}, 50),
    ],
)
def test_thinking_is_outside_of_the_maximum(model, parameters, limit):
    """The maximum does not bound what a model thinks, which has a bound of its own ("Deep thinking")."""
    assert CHAT.request(conversation({"text": "x"}, model=model, **parameters)).max_output_tokens == limit


@pytest.mark.parametrize(
    ("model", "parameters", "tokens", "limits"),
    [
        ("qwen-plus", {}, 100, {"max_tokens": 100}),
        ("qwen-plus", {"max_tokens": 30}, 100, {"max_tokens": 30}),
        ("qwen3-32b", {}, 100, {"max_tokens": 50, "thinking_budget": 50}),
        ("qwen3-32b", {"thinking_budget": 20}, 100, {"max_tokens": 80, "thinking_budget": 20}),
        ("qwen3-32b", {"thinking_budget": 500}, 100, {"max_tokens": 1, "thinking_budget": 99}),
    ],
)
def test_an_output_limit(model, parameters, tokens, limits):
    """What is said and thought together is within the limit; other parameters stay."""
    body = conversation({"text": "x"}, model=model, seed=7, **parameters)
    changed = CHAT.with_output_limit(body, tokens)
    assert changed == {"parameters": {"seed": 7, **parameters, **limits}}
    assert CHAT.request(body | changed).max_output_tokens <= tokens


@pytest.mark.parametrize(
    ("part", "most"),
    [
        ({"text": "x" * 1000}, 1_300),
        ({"text": "\u6cb3" * 1000}, 3_300),
        ({"image": png(280, 280)}, 1_700),
        ({"image": png(4000, 4000)}, 16_800),
        ({"image": "https://example.com/river.png"}, 16_800),
        ({"image": png(280, 280), "max_pixels": 16_777_216}, 16_800),
        ({"video": ["https://example.com/1.png"] * 4}, 66_000),
        ({"audio": "data:audio/mp3;base64," + "A" * 40_000}, 2_400),
    ],
)
def test_an_input_is_bounded(part, most):
    """Text counts its bytes; an image has a maximum wherever it is; nothing is far above what it may be billed."""
    facts = CHAT.request(conversation(part, model="qwen-vl-max"))
    least = {"text": len(part.get("text", "")), "image": 102, "audio": 250}.get(next(iter(part)), 4)
    assert least <= facts.input_tokens_bound <= most
    assert facts.unbounded is None


@pytest.mark.parametrize(
    "body",
    [
        conversation({"video": "https://example.com/1.mp4"}),
        conversation({"audio": "https://example.com/1.mp3"}),
        conversation({"text": "x"}, enable_search=True),
        conversation({"text": "x"}, tools=[{"type": "web_search"}]),
        conversation({"text": "x"}, model="qwen-deep-research"),
        conversation({"text": "x"}, model="qwen-image-plus"),
        conversation({"text": "x"}, model="wan2.6-image"),
        {"model": "qwen3-tts-flash", "input": {"text": "x", "voice": "Cherry"}},
        {"model": "qwen-long", "input": {"messages": [{"role": "system", "content": "fileid://file-fe-1"}]}},
    ],
)
def test_what_has_no_bound(body):
    """Media of unknown length, hosted tools, files of the server and what is billed by the piece say so."""
    assert CHAT.request(body).unbounded


def test_a_ranking_counts_its_query_with_each_document():
    """The query is read again with each of the documents."""
    body = {"model": "gte-rerank-v2", "input": {"query": "q" * 100, "documents": ["d"] * 50}}
    assert 50 * 100 < DASHSCOPE["dashscope.rerank"].request(body).input_tokens_bound < 15_000


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": [[[[[[[[1]]]]]]]]}, {"parameters": 7, "input": "x"}])
@pytest.mark.parametrize("name", DASHSCOPE)
def test_odd_requests_do_no_harm(name, body):
    """A body of any shape is read as far as it goes."""
    facts = DASHSCOPE[name].request({"model": 5, **body})
    assert facts.model is None
    assert facts.input_tokens_bound >= 0
    assert DASHSCOPE[name].with_output_limit(body, 10) is not None
