"""The mocks that people test their applications with keep working, and what passes one is recorded like a real call.

One that takes the place of the method that we wrap is the exception: what it answers is not seen, and not recorded.
"""

import asyncio
import contextlib
import json
from importlib import import_module

import pytest
from sdk_calls import KINDS, drive, library_of, listed, make_client, resolved

from tollspan.budget import BudgetExceeded, budget
from tollspan.instrumentation import instrument, uninstrument

URL = "https://api.openai.com/v1/chat/completions"
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "One river."}], "max_tokens": 90}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Danube."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
CHUNKS = [
    {**ANSWER, "object": "chat.completion.chunk", "usage": None, "choices": [{"index": 0, "delta": {"content": text}}]}
    for text in ("Dan", "ube.")
]
CHUNKS.append({**ANSWER, "object": "chat.completion.chunk", "choices": []})
STREAM = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in CHUNKS) + b"data: [DONE]\n\n"
EVENTS = {"content-type": "text/event-stream"}
TINY = "0.000000001 USD"
USED = {"tokens_in": 9, "tokens_out": 3}


def recorded(seen, count=1):
    """Whether so many calls are recorded, with what the mock says that they have used."""
    return [(event.status, event.usage) for event in seen.of("commit")] == [("ok", USED)] * count


def library(name):
    """An HTTP library, or the mock of one."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(params=["httpx2", "httpx"])
def http(request):
    """httpx and its successor, each where it is installed."""
    return library(request.param)


def send(http, *, asynchronous, streams=False, **options):
    """Post with the library itself; gives the content."""

    async def work():
        client = (http.AsyncClient if asynchronous else http.Client)(**options)
        try:
            request = client.build_request("POST", URL, json={**ASK, "stream": streams})
            response = await resolved(client.send(request, stream=streams))
            return await resolved(response.aread() if asynchronous else response.read())
        finally:
            await resolved(client.aclose() if asynchronous else client.close())

    return drive(work(), asynchronous=asynchronous)


# ---- httpx and httpx2


@KINDS
@pytest.mark.parametrize("streams", [False, True])
def test_a_mock_transport(http, seen, *, streams, asynchronous):
    """MockTransport is a transport like any other."""
    content = STREAM if streams else json.dumps(ANSWER).encode()
    transport = http.MockTransport(lambda request: http.Response(200, content=content))
    assert send(http, asynchronous=asynchronous, streams=streams, transport=transport) == content
    assert recorded(seen)


@KINDS
def test_a_mock_transport_is_not_reached_by_what_a_budget_refuses(http, seen, *, asynchronous):
    """What a strict budget has no room for does not come to the mock."""
    came = []
    transport = http.MockTransport(lambda request: came.append(request) or http.Response(200, json=ANSWER))
    with budget(TINY, name="tiny"), pytest.raises(BudgetExceeded):
        send(http, asynchronous=asynchronous, transport=transport)
    assert not came
    assert not seen.of("commit")


@KINDS
def test_a_transport_that_is_patched(http, seen, monkeypatch, *, asynchronous):
    """pytest-httpx puts a function in the place of the real transport's method: below us, so it is seen."""

    def handle(transport, request):
        return http.Response(200, json=ANSWER, request=request)

    async def ahandle(transport, request):
        return http.Response(200, json=ANSWER, request=request)

    monkeypatch.setattr(http.HTTPTransport, "handle_request", handle)
    monkeypatch.setattr(http.AsyncHTTPTransport, "handle_async_request", ahandle)
    assert json.loads(send(http, asynchronous=asynchronous)) == ANSWER
    assert recorded(seen)


@KINDS
def test_a_client_whose_send_is_patched(http, seen, monkeypatch, *, asynchronous):
    """Who patches `send` over us answers in our place: the mock is what counts, and nothing is recorded."""

    def answer(client, request, **options):
        return http.Response(200, json=ANSWER, request=request)

    async def aanswer(client, request, **options):
        return answer(client, request)

    monkeypatch.setattr(http.Client, "send", answer)
    monkeypatch.setattr(http.AsyncClient, "send", aanswer)
    assert json.loads(send(http, asynchronous=asynchronous)) == ANSWER
    monkeypatch.undo()
    assert not seen.events


@KINDS
def test_respx(seen, *, asynchronous):
    """respx sees each request once, and its routes answer; what it answers is recorded."""
    httpx, respx = library("httpx"), library("respx")
    with respx.mock:
        route = respx.post(URL).mock(return_value=httpx.Response(200, json=ANSWER))
        assert json.loads(send(httpx, asynchronous=asynchronous)) == ANSWER
        assert route.call_count == 1
        assert json.loads(route.calls.last.request.content)["model"] == ASK["model"]
    assert recorded(seen)


@KINDS
def test_respx_with_errors(seen, *, asynchronous):
    """An exception that respx raises is the caller's, as without us, and the call is recorded as not billed."""
    httpx, respx = library("httpx"), library("respx")
    with respx.mock:
        respx.post(URL).mock(side_effect=httpx.ConnectError)
        with pytest.raises(httpx.ConnectError):
            send(httpx, asynchronous=asynchronous)
    assert seen.end.event_type == "cancel"


@KINDS
@pytest.mark.parametrize("streams", [False, True])
def test_an_sdk_over_a_mock(provider, seen, *, streams, asynchronous):
    """OpenAI's SDK over a mock transport: the usual way to test without a network. The body is what was asked for."""
    http, bodies = library_of("openai"), []

    def handler(request):
        bodies.append(json.loads(request.content))
        return http.Response(200, content=STREAM, headers=EVENTS) if streams else http.Response(200, json=ANSWER)

    async def work():
        transport = (http.AsyncClient if asynchronous else http.Client)(transport=http.MockTransport(handler))
        client = make_client(provider, "openai", asynchronous=asynchronous, http_client=transport)
        answer = await resolved(client.chat.completions.create(**ASK, stream=streams))
        items = await listed(answer) if streams else [answer]
        await resolved(client.close())
        return items

    items = drive(work(), asynchronous=asynchronous)
    assert len(items) == (2 if streams else 1)
    assert bodies[0]["messages"] == ASK["messages"]
    assert recorded(seen)


# ---- requests


def test_an_adapter_that_is_mounted(seen):
    """An adapter of the application's own answers, streamed or not."""
    requests = library("requests")
    for streams in (False, True):
        with requests.Session() as session:
            session.mount("https://", _adapter(requests, STREAM if streams else json.dumps(ANSWER).encode()))
            response = session.post(URL, json={**ASK, "stream": streams}, stream=streams)
            read = b"".join(response.iter_content(7)) if streams else response.content
            assert read == (STREAM if streams else json.dumps(ANSWER).encode())
    assert recorded(seen, 2)


def _adapter(requests, content):
    urllib3 = import_module("urllib3")
    io = import_module("io")

    class Adapter(requests.adapters.BaseAdapter):
        def send(self, request, **options):
            raw = urllib3.HTTPResponse(body=io.BytesIO(content), status=200, preload_content=False)
            return requests.adapters.HTTPAdapter().build_response(request, raw)

        def close(self):
            pass

    return Adapter()


def test_responses(seen):
    """The library `responses`: its answers come, are counted by it, and are recorded."""
    requests, responses = library("requests"), library("responses")
    with responses.RequestsMock() as mocked:
        mocked.post(URL, json=ANSWER)
        assert requests.post(URL, json=ASK, timeout=9).json() == ANSWER
        assert len(mocked.calls) == 1
    assert recorded(seen)


def test_responses_streamed(seen):
    """A stream that `responses` gives is read line by line, as without us."""
    requests, responses = library("requests"), library("responses")
    with responses.RequestsMock() as mocked:
        mocked.post(URL, body=STREAM, headers=EVENTS)
        with requests.post(URL, json={**ASK, "stream": True}, stream=True, timeout=9) as response:
            lines = [line for line in response.iter_lines() if line]
    assert lines == STREAM.split(b"\n\n")[:-1]
    assert recorded(seen)


def test_responses_with_an_error(seen):
    """An exception that `responses` raises is the caller's."""
    requests, responses = library("requests"), library("responses")
    with responses.RequestsMock() as mocked:
        mocked.post(URL, body=requests.ConnectionError("no"))
        with pytest.raises(requests.ConnectionError, match="no"):
            requests.post(URL, json=ASK, timeout=9)
    assert seen.end.status == "error"


def test_requests_mock(seen):
    """The library `requests_mock` puts itself in the place of `send`: its answers come; whether they are recorded
    depends on who was imported first, and none is twice."""
    requests, requests_mock = library("requests"), library("requests_mock")
    with requests_mock.Mocker() as mocked:
        mocked.post(URL, json=ANSWER)
        assert requests.post(URL, json=ASK, timeout=9).json() == ANSWER
        assert mocked.call_count == 1
    assert not seen.events or recorded(seen)


# ---- aiohttp


async def post_by_aiohttp(aiohttp):
    """Ask by aiohttp; gives the answer."""
    async with aiohttp.ClientSession() as session, session.post(URL, json=ASK) as response:
        return await response.json()


@contextlib.contextmanager
def answered_by_aioresponses(aiohttp):
    """Requests are answered by aioresponses, which takes the place of the method that we wrap."""
    aioresponses = library("aioresponses")
    with aioresponses.aioresponses() as mocked:
        mocked.post(URL, payload=ANSWER, repeat=True)
        try:
            mocked_response = asyncio.run(post_by_aiohttp(aiohttp))
        except TypeError as error:
            pytest.skip(f"this aioresponses does not work with this aiohttp, without us: {error}")
        assert mocked_response == ANSWER
        yield mocked


@contextlib.contextmanager
def answered_by_a_function(aiohttp):
    """Requests are answered by a function in the place of the method that we wrap, as aioresponses does it."""

    class Response:
        status, headers, _body, content = 200, {}, None, None

        async def __aenter__(self):
            return self

        async def __aexit__(self, *exc):
            self.release()

        def release(self):
            pass

        close = release

        async def json(self):
            return ANSWER

    async def request(session, method, url, **kwargs):
        return Response()

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(aiohttp.ClientSession, "_request", request)
        yield


MOCKS = pytest.mark.parametrize("mock", [answered_by_aioresponses, answered_by_a_function])


@MOCKS
def test_a_mock_in_place_of_the_method_that_we_wrap(instrumented, mock):
    """Where the mock comes after us, its answers come, and nothing is recorded."""
    aiohttp = library("aiohttp")
    with instrumented() as seen:
        with mock(aiohttp):
            assert asyncio.run(post_by_aiohttp(aiohttp)) == ANSWER
        assert not seen.events


@MOCKS
def test_instrumenting_inside_of_a_mock(instrumented, mock):
    """Where the mock was there first, we wrap it: its answers come, and all is as it was when both are gone."""
    aiohttp = library("aiohttp")
    before = vars(aiohttp.ClientSession)["_request"]
    with mock(aiohttp), instrumented() as seen:
        assert asyncio.run(post_by_aiohttp(aiohttp)) == ANSWER
        assert seen.end.event_type == "commit"
    assert vars(aiohttp.ClientSession)["_request"] is before


def test_a_mock_that_outlives_the_instrumentation():
    """Where a mock puts our wrapper back after we have gone, that is idle, and a new instrumentation works."""
    aiohttp = library("aiohttp")
    instrument()
    ours = vars(aiohttp.ClientSession)["_request"]
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(aiohttp.ClientSession, "_request", lambda *args, **kwargs: None)
        uninstrument()
    assert vars(aiohttp.ClientSession)["_request"] is ours

    async def refused():
        async with aiohttp.ClientSession() as session:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                await session.post("http://127.0.0.1:9/v1/chat/completions", json=ASK)

    asyncio.run(refused())
    aiohttp.ClientSession._request = ours.__wrapped__


# ---- botocore


def test_the_stubber_of_botocore(seen):
    """botocore's Stubber answers before anything is sent: its answers come, no usage is made up, and no hold stays."""
    boto3, stub = library("boto3"), library("botocore.stub")
    client = boto3.client("bedrock-runtime", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    answer = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Danube."}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12},
        "metrics": {"latencyMs": 1},
    }
    asked = {"modelId": "amazon.nova-lite-v1:0", "messages": [{"role": "user", "content": [{"text": "One river."}]}]}
    with stub.Stubber(client) as stubber:
        stubber.add_response("converse", answer, asked)
        assert client.converse(**asked)["output"] == answer["output"]
        stubber.add_client_error("converse", "ThrottlingException", http_status_code=429)
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(**asked)
        stubber.assert_no_pending_responses()
    assert not any(event.usage for event in seen.events)
    assert len(seen.of("commit")) <= 1
    assert seen.open_holds == 0
