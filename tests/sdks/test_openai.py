"""openai, against the wire formats of OpenAI's API reference (platform.openai.com/docs/api-reference)."""

import importlib
import io
from dataclasses import replace
from decimal import Decimal

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply, sse

from tollspan.budget import budget

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
openai = pytest.importorskip("openai", reason="the openai SDK is not installed")

MODEL = "gpt-4o-mini"
ASK = [{"role": "user", "content": "One river."}]
USAGE = {"tokens_in": 100, "tokens_out": 50, "tokens_cache_read": 40, "tokens_reasoning": 30}
_CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
_RESPONSE_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 150,
}
_IMAGE_USAGE = {
    "input_tokens": 70,
    "input_tokens_details": {"image_tokens": 20, "text_tokens": 50},
    "output_tokens": 272,
    "total_tokens": 342,
}
IMAGE_USAGE = {"tokens_in": 70, "tokens_out": 272, "tokens_image_in": 20, "tokens_image_out": 272}
_HEAD = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL}
_CHUNK = _HEAD | {"object": "chat.completion.chunk"}
_ANSWER = {"role": "assistant", "content": '{"name":"Danube"}'}

CHAT = Reply(_HEAD | {"choices": [{"index": 0, "message": _ANSWER, "finish_reason": "stop"}], "usage": _CHAT_USAGE})
CHAT_STREAM = sse(
    _CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    _CHUNK | {"choices": [{"index": 0, "delta": {"content": "Dan"}}]},
    _CHUNK | {"choices": [{"index": 0, "delta": {"content": "ube"}}]},
    _CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    _CHUNK | {"choices": [], "usage": _CHAT_USAGE},
    done=True,
)
_TEXT = _HEAD | {"object": "text_completion"}
COMPLETION = Reply(_TEXT | {"choices": [{"index": 0, "text": "Danube", "finish_reason": "stop"}], "usage": _CHAT_USAGE})
COMPLETION_STREAM = sse(
    _TEXT | {"choices": [{"index": 0, "text": "Dan", "finish_reason": None}]},
    _TEXT | {"choices": [{"index": 0, "text": "ube", "finish_reason": "stop"}]},
    _TEXT | {"choices": [], "usage": _CHAT_USAGE},
    done=True,
)
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": '{"name":"Danube"}', "annotations": []}],
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1700000000,
    "status": "completed",
    "model": MODEL,
    "output": [_MESSAGE],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": _RESPONSE_USAGE,
}
_BEGUN = RESPONSE | {"status": "in_progress", "output": [], "usage": None}
_PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
RESPONSE_STREAM = sse(
    {"type": "response.created", "sequence_number": 0, "response": _BEGUN},
    {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": 0,
        "item": _MESSAGE | {"content": [], "status": "in_progress"},
    },
    {
        "type": "response.content_part.added",
        "sequence_number": 2,
        **_PLACE,
        "part": {"type": "output_text", "text": "", "annotations": []},
    },
    {"type": "response.output_text.delta", "sequence_number": 3, **_PLACE, "delta": "Dan", "logprobs": []},
    {"type": "response.completed", "sequence_number": 4, "response": RESPONSE},
)
COMPACTED = {"id": "resp_2", "object": "response.compaction", "created_at": 1, "output": [], "usage": _RESPONSE_USAGE}
EMBEDDINGS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
IMAGES = {"created": 1700000000, "data": [{"b64_json": "aGk="}], "quality": "high", "size": "1024x1024"}
_IMAGE = IMAGES["data"][0] | {"created_at": 1, "background": "opaque", "output_format": "png", "quality": "high"}
VIDEO = {
    "id": "video_1",
    "object": "video",
    "created_at": 1700000000,
    "model": "sora-2",
    "status": "queued",
    "progress": 0,
    "seconds": "4",
    "size": "1280x720",
}


def image_stream(kind):
    """Two pieces of an image, and the image."""
    piece = {"type": f"{kind}.partial_image", "partial_image_index": 0, "size": "1024x1024", **_IMAGE}
    return sse(
        piece,
        piece | {"partial_image_index": 1},
        {"type": f"{kind}.completed", "size": "1024x1024", "usage": _IMAGE_USAGE, **_IMAGE},
    )


def _openai(url, *, asynchronous):
    made = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return made(base_url=f"{url}/v1", api_key="sk-test", max_retries=0)


def _azure(url, *, asynchronous):
    made = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
    return made(azure_endpoint=url, api_key="test", api_version="2024-10-21", max_retries=0)


def entered(manager_of, items=lambda entered: entered):
    """A generator over what a manager gives when it is entered, of either kind."""

    def run(client):
        manager = manager_of(client)
        if not hasattr(manager, "__aenter__"):
            return _stepped(manager, items)
        return _astepped(manager, items)

    return run


def _stepped(manager, items):
    with manager as inside:
        yield from items(inside)


async def _astepped(manager, items):
    async with manager as inside:
        async for item in items(inside):
            yield item


def river():
    """A model for structured answers; made anew, as in a test of an application."""
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("River", name=(str, ...))


def png():
    """A file of an image, to be read."""
    return ("a.png", io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"\0" * 32), "image/png")


def wav():
    """A file of sound."""
    return ("a.wav", b"RIFF" + b"\0" * 64, "audio/wav")


def cases(name, site, run, reply, usage=None, **more):
    """The same case with a sync and with an async client."""
    module, method = site.split(":")
    for asynchronous in (False, True):
        client = more.get("client", _openai)
        yield Case(
            name=name,
            site=f"openai.resources.{module}:{'Async' if asynchronous else ''}{method}",
            client=lambda url, make=client, asynchronous=asynchronous: make(url, asynchronous=asynchronous),
            run=run,
            reply=reply if isinstance(reply, Reply) else Reply(reply),
            usage=usage,
            provider="openai",
            asynchronous=asynchronous,
            **{"model": MODEL} | {key: value for key, value in more.items() if key != "client"},
        )


_CHATS = {"model": MODEL, "messages": ASK, "max_tokens": 50}
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_ASKED = {"model": MODEL, "input": "One river.", "max_output_tokens": 50}
_COMPLETIONS = "chat.completions.completions:Completions"
CHATS = [
    *cases("chat", f"{_COMPLETIONS}.create", lambda c: c.chat.completions.create(**_CHATS), CHAT, USAGE),
    *cases(
        "chat stream",
        f"{_COMPLETIONS}.create",
        lambda c: c.chat.completions.create(**_CHATS, **_STREAMED),
        CHAT_STREAM,
        USAGE,
        streams=True,
    ),
    *cases(
        "chat parse",
        f"{_COMPLETIONS}.parse",
        lambda c: c.chat.completions.parse(**_CHATS, response_format=river()),
        CHAT,
        USAGE,
        shown=lambda answer: answer.choices[0].message.parsed.name,
    ),
    *cases(
        "chat stream helper",
        f"{_COMPLETIONS}.create",
        entered(lambda c: c.chat.completions.stream(**_CHATS, stream_options={"include_usage": True})),
        CHAT_STREAM,
        USAGE,
        streams=True,
    ),
    *cases(
        "chat raw",
        f"{_COMPLETIONS}.create",
        lambda c: c.chat.completions.with_raw_response.create(**_CHATS),
        CHAT,
        USAGE,
        shown=lambda raw: (raw.http_response.status_code, raw.parse()),
    ),
    *cases(
        "chat raw stream",
        f"{_COMPLETIONS}.create",
        entered(
            lambda c: c.chat.completions.with_streaming_response.create(**_CHATS, **_STREAMED),
            lambda response: response.iter_lines(),
        ),
        CHAT_STREAM,
        USAGE,
        streams=True,
        cuttable=False,
    ),
    *cases(
        "chat with options",
        f"{_COMPLETIONS}.create",
        lambda c: c.with_options(timeout=20).chat.completions.create(**_CHATS),
        CHAT,
        USAGE,
    ),
    *cases(
        "azure chat",
        f"{_COMPLETIONS}.create",
        lambda c: c.chat.completions.create(**_CHATS),
        CHAT,
        USAGE,
        client=_azure,
    ),
    *cases(
        "azure chat stream",
        f"{_COMPLETIONS}.create",
        lambda c: c.chat.completions.create(**_CHATS, **_STREAMED),
        CHAT_STREAM,
        USAGE,
        client=_azure,
        streams=True,
    ),
    *cases(
        "completion",
        "completions:Completions.create",
        lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt=["One", "Two"], max_tokens=50),
        COMPLETION,
        USAGE,
        operation="text_completion",
    ),
    *cases(
        "completion stream",
        "completions:Completions.create",
        lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt="One", max_tokens=50, **_STREAMED),
        COMPLETION_STREAM,
        USAGE,
        streams=True,
        operation="text_completion",
    ),
    *cases(
        "embeddings",
        "embeddings:Embeddings.create",
        lambda c: c.embeddings.create(model="text-embedding-3-small", input="One", encoding_format="float"),
        EMBEDDINGS,
        {"tokens_in": 8, "tokens_out": 0},
        model="text-embedding-3-small",
        operation="embeddings",
    ),
]
_RESPONSES = "responses.responses:Responses"
_BETA = "beta.responses.responses:Responses"
RESPONSES = [
    *cases("response", f"{_RESPONSES}.create", lambda c: c.responses.create(**_ASKED), RESPONSE, USAGE),
    *cases(
        "response stream",
        f"{_RESPONSES}.create",
        lambda c: c.responses.create(**_ASKED, stream=True),
        RESPONSE_STREAM,
        USAGE,
        streams=True,
    ),
    *cases(
        "response parse",
        f"{_RESPONSES}.parse",
        lambda c: c.responses.parse(**_ASKED, text_format=river()),
        RESPONSE,
        USAGE,
        shown=lambda answer: answer.output_parsed.name,
    ),
    *cases(
        "response stream helper",
        f"{_RESPONSES}.create",
        entered(lambda c: c.responses.stream(**_ASKED)),
        RESPONSE_STREAM,
        USAGE,
        streams=True,
    ),
    *cases("compact", f"{_RESPONSES}.compact", lambda c: c.responses.compact(model=MODEL, input="x"), COMPACTED, USAGE),
    *cases(
        "decision",
        "decisions:Decisions.create",
        lambda c: c.decisions.create(model="gpt-6-luna", input="x", questions=[{"type": "predicate", "text": "A?"}]),
        {"model": "gpt-6-luna", "answers": [{"type": "predicate", "probability": 0.5}], "usage": _RESPONSE_USAGE},
        USAGE,
        model="gpt-6-luna",
    ),
    *cases("beta response", f"{_BETA}.create", lambda c: c.beta.responses.create(**_ASKED), RESPONSE, USAGE),
    *cases(
        "beta response stream",
        f"{_BETA}.create",
        lambda c: c.beta.responses.create(**_ASKED, stream=True),
        RESPONSE_STREAM,
        USAGE,
        streams=True,
    ),
    *cases(
        "beta compact", f"{_BETA}.compact", lambda c: c.beta.responses.compact(model=MODEL, input="x"), COMPACTED, USAGE
    ),
]

_DRAWING = {"operation": "image_generation", "model": "gpt-image-2", "bounded": False}
_DRAW = {"model": "gpt-image-2", "prompt": "a river"}
IMAGE_CASES = [
    *cases(
        "image",
        "images:Images.generate",
        lambda c: c.images.generate(**_DRAW),
        IMAGES | {"usage": _IMAGE_USAGE},
        IMAGE_USAGE,
        **_DRAWING,
    ),
    *cases(
        "image stream",
        "images:Images.generate",
        lambda c: c.images.generate(**_DRAW, stream=True, partial_images=1),
        image_stream("image_generation"),
        IMAGE_USAGE,
        streams=True,
        **_DRAWING,
    ),
    *cases(
        "images by the piece",
        "images:Images.generate",
        lambda c: c.images.generate(model="dall-e-3", prompt="a river", n=2, size="1024x1792", quality="hd"),
        {"created": 1, "data": [{"url": "http://x/1"}, {"url": "http://x/2"}]},
        {"images": 2, "images:1024x1792:hd": 2},
        **_DRAWING | {"model": "dall-e-3"},
    ),
    *cases(
        "image edit",
        "images:Images.edit",
        lambda c: c.images.edit(**_DRAW, image=png()),
        IMAGES | {"usage": _IMAGE_USAGE},
        IMAGE_USAGE,
        **_DRAWING,
    ),
    *cases(
        "image edit stream",
        "images:Images.edit",
        lambda c: c.images.edit(**_DRAW, image=png(), stream=True, partial_images=1),
        image_stream("image_edit"),
        IMAGE_USAGE,
        streams=True,
        **_DRAWING,
    ),
    *cases(
        "image variation",
        "images:Images.create_variation",
        lambda c: c.images.create_variation(image=png(), model="dall-e-2", size="256x256"),
        {"created": 1, "data": [{"url": "http://x/1"}]},
        {"images": 1, "images:256x256": 1},
        **_DRAWING | {"model": "dall-e-2"},
    ),
]

_SPEAKING = {"operation": "text_to_speech", "model": "tts-1", "bounded": False}
_HEARING = {"operation": "transcription", "model": "gpt-4o-transcribe", "bounded": False}
_SPEECH = {"model": "tts-1", "input": "The Danube flöws.", "voice": "alloy"}
_HEARD_USAGE = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"audio_tokens": 10, "text_tokens": 4},
    "output_tokens": 5,
    "total_tokens": 19,
}
HEARD_USAGE = {"tokens_in": 14, "tokens_out": 5, "tokens_audio_in": 10}
_SPOKEN_EVENTS = sse(
    {"type": "speech.audio.delta", "audio": "aGk="},
    {"type": "speech.audio.delta", "audio": "aG8="},
    {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}},
)
_HEARD_EVENTS = sse(
    {"type": "transcript.text.delta", "delta": "The "},
    {"type": "transcript.text.delta", "delta": "Danube"},
    {"type": "transcript.text.done", "text": "The Danube", "usage": _HEARD_USAGE},
)


def heard(name, reply, usage, **asked):
    """A transcription, with the options that make the answer what it is."""
    options = {"model": _HEARING["model"]} | asked
    shown = {"model": options["model"]} | ({"streams": True} if "stream" in asked else {})
    return cases(
        name,
        "audio.transcriptions:Transcriptions.create",
        lambda c: c.audio.transcriptions.create(file=wav(), **options),
        reply,
        usage,
        **_HEARING | shown,
    )


AUDIO_CASES = [
    *cases(
        "speech",
        "audio.speech:Speech.create",
        lambda c: c.audio.speech.create(**_SPEECH),
        Reply(b"ID3" + bytes(range(256)) * 8, content_type="audio/mpeg"),
        {"characters_in": 17},
        shown=lambda sound: sound.content,
        **_SPEAKING,
    ),
    *cases(
        "speech read in pieces",
        "audio.speech:Speech.create",
        entered(lambda c: c.audio.speech.with_streaming_response.create(**_SPEECH), lambda sound: sound.iter_bytes()),
        Reply(chunks=(b"ID3" * 100, b"\0" * 100, b"\1" * 100), content_type="audio/mpeg"),
        {"characters_in": 17},
        streams=True,
        **_SPEAKING,
    ),
    *cases(
        "speech events",
        "audio.speech:Speech.create",
        entered(
            lambda c: c.audio.speech.with_streaming_response.create(
                **_SPEECH | {"model": "gpt-4o-mini-tts"}, stream_format="sse"
            ),
            lambda events: events.iter_lines(),
        ),
        _SPOKEN_EVENTS,
        {"tokens_in": 14, "tokens_out": 101},
        streams=True,
        **_SPEAKING | {"model": "gpt-4o-mini-tts"},
    ),
    *heard("transcription", {"text": "The Danube", "usage": _HEARD_USAGE}, HEARD_USAGE),
    *heard("transcription stream", _HEARD_EVENTS, HEARD_USAGE, stream=True),
    *heard(
        "transcription by the second",
        {"text": "The Danube", "usage": {"type": "duration", "seconds": 3}},
        {"audio_seconds": 3},
        model="whisper-1",
    ),
    *heard(
        "verbose transcription",
        {"text": "The Danube", "duration": 2.5, "language": "english"},
        {"audio_seconds": 2.5},
        model="whisper-1",
        response_format="verbose_json",
    ),
    *heard(
        "transcription as text",
        Reply(b"1\n00:00:00,000 --> 00:00:02,500\nThe Danube\n", content_type="text/plain"),
        None,
        model="whisper-1",
        response_format="srt",
    ),
    *cases(
        "translation",
        "audio.translations:Translations.create",
        lambda c: c.audio.translations.create(file=wav(), model="whisper-1", response_format="verbose_json"),
        {"text": "The Danube", "duration": 2.5, "language": "english"},
        {"audio_seconds": 2.5},
        **_HEARING | {"model": "whisper-1"},
    ),
]

_FILMING = {"operation": "video_generation", "model": "sora-2", "bounded": False}
VIDEO_CASES = [
    *cases(
        "video",
        "videos:Videos.create",
        lambda c: c.videos.create(prompt="a river", model="sora-2", seconds="4", size="1280x720"),
        VIDEO,
        **_FILMING,
    ),
    *cases(
        "video edit",
        "videos:Videos.edit",
        lambda c: c.videos.edit(prompt="bluer", video=("a.mp4", b"film")),
        VIDEO,
        **_FILMING,
    ),
    *cases(
        "video extension",
        "videos:Videos.extend",
        lambda c: c.videos.extend(prompt="on", seconds="4", video=("a.mp4", b"film")),
        VIDEO,
        **_FILMING,
    ),
]


MODERATION = {"id": "modr-1", "model": "omni-moderation-latest", "results": []}
_COUNT = {"object": "response.input_tokens", "input_tokens": 11}
FREE = [
    *cases(
        "moderation",
        "moderations:Moderations.create",
        lambda c: c.moderations.create(input="One river.", model="omni-moderation-latest"),
        MODERATION,
        operation="moderation",
        free=True,
        model="omni-moderation-latest",
    ),
    *cases(
        "count",
        "responses.input_tokens:InputTokens.count",
        lambda c: c.responses.input_tokens.count(model=MODEL, input="One river."),
        _COUNT,
        operation="count_tokens",
        free=True,
    ),
    *cases(
        "beta count",
        "beta.responses.input_tokens:InputTokens.count",
        lambda c: c.beta.responses.input_tokens.count(model=MODEL, input="One river."),
        _COUNT,
        operation="count_tokens",
        free=True,
    ),
]
CASES = [*CHATS, *RESPONSES, *IMAGE_CASES, *AUDIO_CASES, *VIDEO_CASES, *FREE]


def asked_of(server, reply, call):
    """What a sync client gets for one call."""
    server.reply = reply if isinstance(reply, Reply) else Reply(reply)
    client = _openai(server.url, asynchronous=False)
    try:
        return call(client)
    finally:
        client.close()


def test_a_video_from_another_one(server, instrumented):
    """A remix has a path that could be that of any service; it counts all the same."""
    with instrumented() as seen:
        asked_of(server, VIDEO, lambda c: c.videos.remix("video_0", prompt="bluer"))
        assert (seen.end.operation, seen.end.model, seen.end.response_id) == ("video_generation", "sora-2", "video_1")


@pytest.mark.parametrize("surface", ["chat", "responses", "embeddings"])
def test_a_cost_that_a_proxy_of_litellm_states_is_the_cost(server, instrumented, surface):
    """LiteLLM's proxy knows what it has paid, and says so in a header."""
    calls = {
        "chat": (CHAT, lambda c: c.chat.completions.create(**_CHATS)),
        "responses": (Reply(RESPONSE), lambda c: c.responses.create(**_ASKED)),
        "embeddings": (Reply(EMBEDDINGS), lambda c: c.embeddings.create(model="m", input="x", encoding_format="float")),
    }
    reply, call = calls[surface]
    with instrumented() as seen:
        asked_of(server, replace(reply, headers={"x-litellm-response-cost": "1.5e-05"}), call)
        assert (seen.end.cost_actual_usd, seen.end.cost_source) == (Decimal("0.000015"), "provider")


def test_a_price_of_ones_own_goes_before_the_cost_that_a_proxy_states(server, instrumented, tmp_path, monkeypatch):
    """What a contract says is known to the user alone; the proxy states its list price."""
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "*"\ninput_mtok = 1000\noutput_mtok = 0\n')
    monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "prices.toml"))
    reply = replace(CHAT, headers={"x-litellm-response-cost": "1.5e-05"})
    with instrumented() as seen:
        asked_of(server, reply, lambda c: c.chat.completions.create(**_CHATS))
        assert seen.end.cost_actual_usd == Decimal(seen.end.usage["tokens_in"]) / 1000
        assert seen.end.cost_source == "override"


@pytest.mark.parametrize("stated", ["0", "0.0", "None", "", "-1", "nan", "inf"])
def test_a_proxy_that_has_no_price_states_none(server, instrumented, stated):
    """It says 0 of models that it does not know: then the usage is priced here."""
    with instrumented() as seen:
        reply = replace(CHAT, headers={"x-litellm-response-cost": stated})
        asked_of(server, reply, lambda c: c.chat.completions.create(**_CHATS))
        assert seen.end.cost_source.startswith("genai-prices")
        assert seen.end.cost_actual_usd > 0


def test_what_tools_have_used_is_counted(server, instrumented):
    """Searches have prices of their own, and the image tool a model of its own."""
    output = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "web_search_call", "id": "ws_2", "status": "completed", "action": {"type": "open_page", "url": "x"}},
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["x"]},
        _MESSAGE,
    ]
    tools = [{"type": "web_search"}, {"type": "image_generation", "model": "gpt-image-2"}]
    drawn = {"input_tokens": 10, "output_tokens": 272, "output_tokens_details": {"image_tokens": 272}}
    answer = RESPONSE | {"output": output, "tools": tools}
    with instrumented() as seen:
        asked_of(server, answer, lambda c: c.responses.create(**_ASKED))
        plain = seen.end
    assert plain.usage == USAGE | {"web_searches": 1, "storage_searches": 1}
    told = answer | {"tool_usage": {"web_search": {"num_requests": 3}, "image_gen": drawn}}
    with instrumented() as seen:
        asked_of(server, told, lambda c: c.responses.create(**_ASKED))
        usage, cost = seen.events[-1].usage, seen.events[-1].cost_actual_usd
    drawing = {"tokens_in@gpt-image-2": 10, "tokens_out@gpt-image-2": 272, "tokens_image_out@gpt-image-2": 272}
    assert usage == USAGE | {"web_searches": 3, "storage_searches": 1} | drawing
    assert cost > plain.cost_actual_usd


def test_other_requests_pass(server, instrumented):
    """Files, vector stores, models, conversations and tunings leave no event, under a budget with no room too."""
    server.reply = Reply({"id": "x_1", "object": "x", "data": []})
    calls = [
        lambda c: c.files.create(file=("a.txt", b"x"), purpose="user_data"),
        lambda c: c.files.retrieve("file-1"),
        lambda c: c.vector_stores.create(name="x"),
        lambda c: c.vector_stores.search("vs_1", query="x"),
        lambda c: c.conversations.create(),
        lambda c: c.models.retrieve("m"),
        lambda c: c.fine_tuning.jobs.create(model="m", training_file="file-1"),
        lambda c: c.responses.cancel("resp_1"),
        lambda c: c.responses.delete("resp_1"),
    ]
    with instrumented() as seen, budget("0.000000001 USD", name="tiny"):
        for call in calls:
            asked_of(server, server.reply, call)
        assert seen.events == []
        assert len(server.asked) == len(calls)


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/audio/transcriptions"])
def test_a_form_without_the_sdk_is_counted_too(server, instrumented, path):
    """A raw request with a form tells nothing, not even its model; its answer tells the usage."""
    http = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
    usage = _IMAGE_USAGE if "images" in path else _HEARD_USAGE
    server.reply = Reply({"text": "x", "data": [{}], "usage": usage})
    with instrumented() as seen, http.Client() as client:
        client.post(server.url + path, files={"file": ("a", b"x")})
        assert (seen.end.usage["tokens_in"], seen.end.category) == (usage["input_tokens"], "uncovered")
