"""google-genai, against the wire format of Gemini (ai.google.dev/api) and of Vertex AI (cloud.google.com, REST)."""

import asyncio
import base64
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from contract import *  # noqa: F403
from contract import Case, driven, read
from wire_server import Reply, sse

from tollspan.budget import BudgetExceeded, budget
from tollspan.instrumentation import uncovered

genai = pytest.importorskip("google.genai", reason="google-genai is not installed")
httpx2 = pytest.importorskip("httpx2", reason="httpx2 is not installed, which google-genai sends by")
from google.auth.credentials import Credentials  # noqa: E402
from google.genai import types  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:Warning")

MODEL, EMBEDDER, PAINTER, FILMER = "gemini-2.5-flash", "gemini-embedding-001", "imagen-4.0-generate-001", "veo-3.1"
_SPOKEN = [{"modality": "TEXT", "tokenCount": 90}, {"modality": "AUDIO", "tokenCount": 10}]
COUNTED = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 30,
    "toolUsePromptTokenCount": 5,
    "totalTokenCount": 155,
    "promptTokensDetails": _SPOKEN,
}
USED = {"tokens_in": 105, "tokens_out": 50, "tokens_cache_read": 40, "tokens_reasoning": 30, "tokens_audio_in": 10}
EMBEDDED = {"tokens_in": 7, "tokens_out": 0}
_NAMED = {"modelVersion": MODEL, "responseId": "r1"}
_REFUSAL = Reply({"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}, status=400)


def _answer(*parts, reason="STOP", counted=COUNTED, **more):
    content = {"role": "model", "parts": [{"text": part} if isinstance(part, str) else part for part in parts]}
    candidate = {"content": content, "index": 0, **({"finishReason": reason} if reason else {}), **more}
    return {"candidates": [candidate], "usageMetadata": counted, **_NAMED}


_EARLY = {"promptTokenCount": 100, "thoughtsTokenCount": 30, "totalTokenCount": 130}
_WHOLE = Reply(_answer("Danube."))
_STREAM = sse(_answer("Dan", reason=None, counted=_EARLY), _answer("ube", reason=None, counted=_EARLY), _answer("."))
_PIXEL = base64.b64encode(b"\x89PNG").decode()
_FINISHED = {
    "id": "v1_1",
    "object": "interaction",
    "status": "completed",
    "model": MODEL,
    "created": "2026-05-13T19:57:43Z",
    "updated": "2026-05-13T19:57:43Z",
    "service_tier": "standard",
    "usage": {
        "total_input_tokens": 100,
        "total_cached_tokens": 40,
        "total_output_tokens": 20,
        "total_thought_tokens": 30,
        "total_tool_use_tokens": 5,
        "total_tokens": 155,
        "input_tokens_by_modality": [{"modality": "text", "tokens": 90}, {"modality": "audio", "tokens": 10}],
    },
}
_INTERACTION = Reply(
    _FINISHED | {"steps": [{"type": "model_output", "content": [{"type": "text", "text": "Danube."}]}]}
)
_BEGUN = {"id": "v1_1", "object": "interaction", "status": "in_progress", "model": MODEL}
_INTERACTION_STREAM = sse(
    {"event_type": "interaction.created", "interaction": _BEGUN},
    {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
    {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Danube."}},
    {"event_type": "step.stop", "index": 0},
    {"event_type": "interaction.completed", "interaction": _FINISHED},
    done=True,
)


class _Anyone(Credentials):
    """Credentials that need nobody."""

    def __init__(self):
        super().__init__()
        self.token = "a"

    def refresh(self, request):
        """There is nothing to refresh."""


def _client(url, *, vertex=False, **options):
    http = types.HttpOptions(base_url=url, **options)
    if vertex:
        return genai.Client(vertexai=True, project="p", location="l", credentials=_Anyone(), http_options=http)
    return genai.Client(api_key="k", http_options=http)


def _aiohttp(url, *, vertex=False):
    return _client(url, vertex=vertex).aio


def _async_httpx(url, *, vertex=False):
    return _client(url, vertex=vertex, httpx_async_client=httpx2.AsyncClient()).aio


# Before there was this option, async clients sent as sync ones do.
_ASYNC_CLIENTS = (_aiohttp, _async_httpx) if "httpx_async_client" in types.HttpOptions.model_fields else (_aiohttp,)


def _shown(item):
    return item.model_dump(exclude={"sdk_http_response"}) if hasattr(item, "model_dump") else item


_CONFIG = {"max_output_tokens": 500}
_ASKED = {"model": MODEL, "contents": "One river.", "config": _CONFIG}
_SURFACES = {
    "generate": (
        "models:Models._generate_content",
        lambda c: c.models.generate_content(**_ASKED),
        _WHOLE,
        {"usage": USED},
    ),
    "generate stream": (
        "models:Models._generate_content_stream",
        lambda c: c.models.generate_content_stream(**_ASKED),
        _STREAM,
        {"usage": USED, "streams": True},
    ),
    "chat": (
        "models:Models._generate_content",
        lambda c: c.chats.create(model=MODEL, config=_CONFIG).send_message("One river."),
        _WHOLE,
        {"usage": USED},
    ),
    "chat stream": (
        "models:Models._generate_content_stream",
        lambda c: c.chats.create(model=MODEL, config=_CONFIG).send_message_stream("One river."),
        _STREAM,
        {"usage": USED, "streams": True},
    ),
    "embed": (
        "models:Models.embed_content",
        lambda c: c.models.embed_content(model=EMBEDDER, contents=["One river.", "Another."]),
        Reply({"embeddings": [{"values": [0.5]}] * 2, "usageMetadata": {"promptTokenCount": 7}}),
        {"usage": EMBEDDED, "model": EMBEDDER, "operation": "embeddings"},
    ),
    "embed untold": (
        "models:Models.embed_content",
        lambda c: c.models.embed_content(model=EMBEDDER, contents="One river."),
        Reply({"embeddings": [{"values": [0.5]}]}),
        {"usage": None, "model": EMBEDDER, "operation": "embeddings"},
    ),
    "count tokens": (
        "models:Models.count_tokens",
        lambda c: c.models.count_tokens(model=MODEL, contents="One river."),
        Reply({"totalTokens": 3}),
        {"usage": None, "operation": "count_tokens", "free": True},
    ),
    "interaction": (
        "_gaos.interactions:Interactions.create",
        lambda c: c.interactions.create(model=MODEL, input="One river."),
        _INTERACTION,
        {"usage": USED, "operation": "chat"},
    ),
    "interaction stream": (
        "_gaos.interactions:Interactions.create",
        lambda c: c.interactions.create(model=MODEL, input="One river.", stream=True),
        _INTERACTION_STREAM,
        {"usage": USED, "operation": "chat", "streams": True},
    ),
}
_PAINTED = Reply({"predictions": [{"bytesBase64Encoded": _PIXEL, "mimeType": "image/png"}]})
_PICTURE = types.Image(image_bytes=b"\x89PNG", mime_type="image/png")
_VERTEX_SURFACES = {
    "vertex generate": _SURFACES["generate"],
    "vertex generate stream": _SURFACES["generate stream"],
    "vertex predicted embedding": (
        "models:Models.embed_content",
        lambda c: c.models.embed_content(model="text-embedding-005", contents=["One river."]),
        Reply({"predictions": [{"embeddings": {"values": [0.5], "statistics": {"token_count": 7}}}]}),
        {"usage": EMBEDDED, "model": "text-embedding-005", "operation": "embeddings", "bounded": False},
    ),
    "vertex embedding": (
        "models:Models.embed_content",
        lambda c: c.models.embed_content(model="gemini-embedding-2", contents="One river."),
        Reply({"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}}),
        {"usage": EMBEDDED, "model": "gemini-embedding-2", "operation": "embeddings"},
    ),
    "vertex images": (
        "models:Models.generate_images",
        lambda c: c.models.generate_images(model=PAINTER, prompt="A river.", config={"number_of_images": 3}),
        Reply(
            {
                "predictions": [
                    {"bytesBase64Encoded": _PIXEL, "mimeType": "image/png"},
                    {"bytesBase64Encoded": _PIXEL, "mimeType": "image/png"},
                    {"raiFilteredReason": "Filtered."},
                ]
            }
        ),
        {"usage": {"images": 2}, "model": PAINTER, "operation": "image_generation", "bounded": False},
    ),
    "vertex videos": (
        "models:Models.generate_videos",
        lambda c: c.models.generate_videos(
            model=FILMER, prompt="A river.", config={"duration_seconds": 6, "number_of_videos": 2}
        ),
        Reply({"name": f"projects/p/locations/l/publishers/google/models/{FILMER}/operations/o1"}),
        {
            "usage": {"video_seconds": 12, "video_seconds:720p": 12},
            "model": FILMER,
            "operation": "video_generation",
            "bounded": False,
        },
    ),
    "vertex edit": (
        "models:Models.edit_image",
        lambda c: c.models.edit_image(
            model=PAINTER,
            prompt="A river.",
            reference_images=[types.RawReferenceImage(reference_id=1, reference_image=_PICTURE)],
        ),
        _PAINTED,
        {"usage": {"images": 1}, "model": PAINTER, "operation": "image_generation", "bounded": False},
    ),
    "vertex upscale": (
        "models:Models.upscale_image",
        lambda c: c.models.upscale_image(model=PAINTER, image=_PICTURE, upscale_factor="x2"),
        _PAINTED,
        {
            "usage": {"images": 1, "images:upscale": 1},
            "model": PAINTER,
            "operation": "image_generation",
            "bounded": False,
        },
    ),
    "vertex recontext": (
        "models:Models.recontext_image",
        lambda c: c.models.recontext_image(
            model="virtual-try-on-001", source=types.RecontextImageSource(person_image=_PICTURE, prompt="A coat.")
        ),
        _PAINTED,
        {"usage": {"images": 1}, "model": "virtual-try-on-001", "operation": "image_generation", "bounded": False},
    ),
    "vertex segment": (
        "models:Models.segment_image",
        lambda c: c.models.segment_image(
            model="image-segmentation-001", source=types.SegmentImageSource(image=_PICTURE, prompt="A coat.")
        ),
        _PAINTED,
        {"usage": {"images": 1}, "model": "image-segmentation-001", "operation": "image_generation", "bounded": False},
    ),
    "vertex interaction": _SURFACES["interaction"],
}


def _case(name, *, vertex, make=None):
    site, run, reply, more = (_VERTEX_SURFACES if vertex else _SURFACES)[name]
    make_client = make or _client
    return Case(
        name=f"{name}{' httpx' if make is _async_httpx else ''}",
        site=f"google.genai.{site if make is None else re.sub(r':', ':Async', site)}",
        client=lambda url: make_client(url, vertex=vertex),
        run=run,
        reply=reply,
        refusal=_REFUSAL,
        shown=_shown,
        asynchronous=make is not None,
        **{"provider": "gcp.gemini", "model": MODEL, "operation": "generate_content"} | more,
    )


CASES = [
    _case(name, vertex=vertex, make=make)
    for vertex, surfaces in ((False, _SURFACES), (True, _VERTEX_SURFACES))
    for name in surfaces
    for make in (None, *_ASYNC_CLIENTS)
    if make is not _async_httpx or "interaction" not in name  # which go by httpx anyway
]


def _called(name):
    return Reply(_answer({"functionCall": {"name": name, "args": {}}}))


def _in_turn(*replies):
    left = list(replies)
    return lambda _asked: left.pop(0)


def _filmed(*, done):
    """An operation that is fetched: under way, or at its end with two videos, of which it tells no seconds."""
    name = f"projects/p/locations/l/publishers/google/models/{FILMER}/operations/o1"
    videos = [{"gcsUri": f"gs://b/{number}.mp4", "mimeType": "video/mp4"} for number in range(2)]
    kind = "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse"
    return Reply({"name": name, **({"done": True, "response": {"@type": kind, "videos": videos}} if done else {})})


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_videos_that_are_fetched_are_counted_once(asynchronous, server, instrumented):
    """The request tells the seconds, and the operation does not, however often it is fetched: one commit."""
    server.reply = _in_turn(*(_filmed(done=done) for done in (False, False, True, True)))
    asked = {"model": FILMER, "prompt": "A river.", "config": {"duration_seconds": 6, "number_of_videos": 2}}

    async def fetched(client):
        operation = await client.models.generate_videos(**asked)
        for _ in range(3):
            operation = await client.operations.get(operation)
        return operation

    def fetched_at_once(client):
        operation = client.models.generate_videos(**asked)
        for _ in range(3):
            operation = client.operations.get(operation)
        return operation

    with instrumented() as seen:
        client = _client(server.url, vertex=True)
        operation = asyncio.run(fetched(client.aio)) if asynchronous else fetched_at_once(client)
        assert len(operation.response.generated_videos) == 2
        found, (span,) = seen.end, seen.spans
    assert (found.event_type, found.status, found.model) == ("commit", "ok", FILMER)
    assert dict(found.usage) == {"video_seconds": 12, "video_seconds:720p": 12}
    assert span.attributes["gen_ai.operation.name"] == "video_generation"
    assert not uncovered


def _plain(make, run):
    """A call of which only the request matters."""
    how = {"client": make, "run": run, "asynchronous": make is not _client}
    return Case(name="", site="", reply=None, usage=None, provider="", model=None, **how)


def test_each_request_of_automatic_function_calling_is_a_call(server, instrumented):
    """A method that runs the caller's functions sends several requests, each of which is billed."""
    server.reply = _in_turn(_called("depth"), _WHOLE)

    def depth() -> str:
        """How deep it is."""
        return "Eight metres."

    with instrumented() as seen:
        client = _client(server.url)
        answer = client.models.generate_content(model=MODEL, contents="x", config={"tools": [depth]})
        commits = seen.of("commit")
    assert answer.text == "Danube."
    assert [commit.usage for commit in commits] == [USED, USED]
    assert len({commit.call_id for commit in commits}) == 2
    assert not uncovered


def test_what_a_function_of_the_caller_asks_is_no_part_of_the_call(server, instrumented):
    """A function that the model calls may ask models itself, several at once, or meet a budget of its own."""
    client, refused = _client(server.url), []
    server.reply = _in_turn(_called("ask"), _WHOLE, _WHOLE, _WHOLE)

    async def ask() -> str:
        """Ask somebody else."""
        asked = (client.aio.models.generate_content(model=MODEL, contents="y") for _ in range(2))
        texts = [answer.text for answer in await asyncio.gather(*asked)]
        with budget("0.000000001 USD", name="tiny"):
            try:
                await client.aio.models.generate_content(model=MODEL, contents="z")
            except BudgetExceeded as error:
                refused.append(error)
        return "".join(texts)

    async def work():
        answer = await client.aio.models.generate_content(model=MODEL, contents="x", config={"tools": [ask]})
        await client.aio.aclose()
        return answer

    with instrumented() as seen:
        assert asyncio.run(work()).text == "Danube."
        assert len(seen.of("commit")) == 4
        assert seen.open_holds == 0
    assert len(refused) == 1
    assert len(server.asked) == 4
    assert not uncovered


@pytest.mark.parametrize("streams", [False, True])
def test_each_request_of_an_automatic_continuation_is_a_call(server, instrumented, streams):
    """What the SDK continues by itself, in a new request, is billed anew."""
    if not hasattr(types.FinishReason, "CONTINUATION"):
        pytest.skip("this version does not continue by itself")
    first = _answer("Dan", reason="CONTINUATION", continuationToken="dG9r")
    client = _client(server.url)
    server.reply = _in_turn(sse(first), sse(_answer("ube."))) if streams else _in_turn(Reply(first), _WHOLE)
    with instrumented() as seen:
        answered = (client.models.generate_content_stream if streams else client.models.generate_content)(**_ASKED)
        assert len(list(answered)) if streams else answered.text
        assert [commit.usage for commit in seen.of("commit")] == [USED, USED]
    assert not uncovered


def test_attempts_of_one_request_are_one_call(server, instrumented):
    """What the SDK repeats by itself is another attempt of the same call."""
    busy = Reply({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}, status=503)
    server.reply = _in_turn(busy, _WHOLE)
    options = types.HttpRetryOptions(attempts=2, initial_delay=0.0, jitter=0.0)
    with instrumented() as seen:
        client = _client(server.url, retry_options=options)
        assert client.models.generate_content(**_ASKED).text == "Danube."
        assert seen.end.attempts == 2
        assert len(seen.of("retry")) == 1


@pytest.mark.parametrize("make", [_client, *_ASYNC_CLIENTS])
def test_a_repetition_that_a_budget_has_no_room_for_is_not_sent(server, instrumented, make):
    """A gateway's error may have been billed, so its repetition needs a hold of its own; refused, nothing is sent."""
    server.reply = Reply(b"bad gateway", status=502, content_type="text/plain")
    options = types.HttpRetryOptions(attempts=5, initial_delay=0.0, jitter=0.0)
    config = _CONFIG | {"http_options": types.HttpOptions(retry_options=options)}
    case = _plain(make, lambda client: client.models.generate_content(model=MODEL, contents="x", config=config))

    async def nothing(_result):
        raise AssertionError("there is no answer")

    with instrumented() as seen:
        with budget("0.002 USD", name="one attempt"), pytest.raises(BudgetExceeded):
            driven(case, server, nothing)
        assert seen.open_holds == 0
    assert len(server.asked) == 1


@pytest.mark.parametrize("make", [_client, *_ASYNC_CLIENTS])
def test_a_budget_limits_the_output_on_the_wire(server, instrumented, make):
    """Where the model's maximum does not fit, the request asks for what the budget can pay; its own settings stay."""
    server.reply = _WHOLE
    config = {"temperature": 0.5}
    case = _plain(make, lambda client: client.models.generate_content(model=MODEL, contents="x", config=config))

    async def text(answer):
        return answer.text

    with instrumented(), budget("0.01 USD", name="small"):
        assert driven(case, server, text) == "Danube."
    (asked,) = server.asked
    sent = asked.json["generationConfig"]
    assert sent["temperature"] == 0.5
    assert 0 < sent["maxOutputTokens"] < 5_000


def test_an_interaction_in_the_background_counts_when_it_is_fetched(server, instrumented):
    """One that runs in the background tells its usage once it is done, and counts once however often it is fetched."""
    server.reply = Reply(_BEGUN | {"created": _FINISHED["created"]})
    with instrumented() as seen:
        client = _client(server.url)
        client.interactions.create(model=MODEL, input="One river.", background=True)
        assert seen.end.estimated
        client.interactions.get(id="v1_1")
        server.reply = _INTERACTION
        client.interactions.get(id="v1_1")
        client.interactions.get(id="v1_1")
        counted = [event for event in seen.of("commit", "adjust") if event.usage]
    assert [event.usage for event in counted] == [USED]


@pytest.mark.parametrize("make", [_client, _aiohttp])
def test_an_automatic_continuation_of_an_interaction_is_a_call(server, instrumented, make):
    """Each hop of an interaction that the SDK continues by itself is a call, in a stream as well."""
    hop = _FINISHED | {"status": "requires_continuation", "continuation_token": "t1"}
    first = sse({"event_type": "interaction.created", "interaction": _BEGUN})
    last = sse({"event_type": "interaction.completed", "interaction": hop}, done=True)
    server.reply = _in_turn(
        Reply(chunks=first.chunks + last.chunks, content_type="text/event-stream"), _INTERACTION_STREAM
    )
    case = _plain(make, lambda client: client.interactions.create(model=MODEL, input="One river.", stream=True))
    with instrumented() as seen:
        driven(case, server, read)
        commits = seen.of("commit")
    if len(server.asked) == 1:
        pytest.skip("this version does not continue by itself")
    assert [commit.usage for commit in commits] == [USED, USED]
    assert not uncovered


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("vertex", [False, True], ids=["gemini", "vertex"])
@pytest.mark.parametrize("make", [_client, *_ASYNC_CLIENTS])
def test_google_is_asked_how_many_tokens_a_call_has(server, instrumented, monkeypatch, make, *, vertex, streams):
    """With `count_tokens`, a strict hold has what `countTokens` says, in the words of Gemini or of Vertex AI."""
    monkeypatch.setenv("TOLLSPAN_COUNT_TOKENS", "true")
    answer = sse(_answer("Danube.")) if streams else _WHOLE
    server.reply = lambda asked: Reply({"totalTokens": 100}) if ":countTokens" in asked.path else answer
    used = {"model": MODEL, "contents": "One river. " * 900, "config": _CONFIG}

    def run(client):
        return client.models.generate_content_stream(**used) if streams else client.models.generate_content(**used)

    with instrumented() as seen:
        with budget("5 USD", name="b"):
            driven(replace(_plain(make, run), client=lambda url: make(url, vertex=vertex)), server, read)
        (hold,) = seen.of("precheck_hold")
        assert seen.end.cost_actual_usd <= hold.cost_est_usd < Decimal("0.0025")
        assert seen.end.attempts == 1
    counting, asked = server.asked
    assert counting.path.endswith(f"/models/{MODEL}:countTokens")
    body = counting.json if vertex else counting.json["generateContentRequest"]
    assert body["contents"] == asked.json["contents"]
    assert counting.headers.get("x-goog-api-key") == asked.headers.get("x-goog-api-key")
    assert counting.headers.get("authorization") == asked.headers.get("authorization")
    assert not uncovered
