"""replicate, against the wire format of its predictions (replicate.com/docs, reference of the HTTP API)."""

import itertools

import pytest
from contract import *  # noqa: F403
from contract import Case, driven, read
from wire_server import Reply

replicate = pytest.importorskip("replicate", reason="replicate is not installed")

MODEL = "meta/meta-llama-3-8b-instruct"
METRICS = {"predict_time": 0.5, "total_time": 0.6, "input_token_count": 18, "output_token_count": 7}
USAGE = {"tokens_in": 18, "tokens_out": 7}
_NUMBERS = itertools.count()


def _prediction(name, status, **more):
    return {
        "id": name,
        "model": MODEL,
        "version": "0" * 64,
        "input": {"prompt": "One river."},
        "output": ["Dan", "ube."] if status == "succeeded" else None,
        "logs": "",
        "error": None,
        "status": status,
        "created_at": "2026-01-01T00:00:00.5Z",
        "urls": {"get": f"https://api.replicate.com/v1/predictions/{name}", "cancel": "https://api.replicate.com/c"},
    } | more


_DONE = Reply(_prediction("abc", "succeeded", metrics=METRICS), status=201)


def _client(url):
    return replicate.Client(api_token="r8-test", base_url=url)


def _shown(value):
    return value.output if hasattr(value, "output") else repr(value)


def _case(name, site, run, *, asynchronous):
    return Case(
        name=name,
        site=f"replicate.{site}",
        client=_client,
        run=run,
        reply=_DONE,
        usage=USAGE,
        provider="replicate",
        model=MODEL,
        operation="generate_content",
        asynchronous=asynchronous,
        refusal=Reply({"title": "no", "detail": "no", "status": 422}, status=422),
        shown=_shown,
        bounded=False,  # nobody lists its prices
    )


_ASK = {"prompt": "One river."}
CASES = [
    _case("run", "client:Client.run", lambda c: c.run(MODEL, _ASK), asynchronous=False),
    _case("run", "client:Client.async_run", lambda c: c.async_run(MODEL, _ASK), asynchronous=True),
    _case(
        "model",
        "model:ModelsPredictions.create",
        lambda c: c.models.predictions.create(MODEL, _ASK),
        asynchronous=False,
    ),
    _case(
        "model",
        "model:ModelsPredictions.async_create",
        lambda c: c.models.predictions.async_create(MODEL, _ASK),
        asynchronous=True,
    ),
    _case(
        "version",
        "prediction:Predictions.create",
        lambda c: c.predictions.create(version="0" * 64, input=_ASK),
        asynchronous=False,
    ),
    _case(
        "version",
        "prediction:Predictions.async_create",
        lambda c: c.predictions.async_create(version="0" * 64, input=_ASK),
        asynchronous=True,
    ),
    _case(
        "deployment",
        "deployment:DeploymentsPredictions.create",
        lambda c: c.deployments.predictions.create("owner/name", _ASK),
        asynchronous=False,
    ),
    _case(
        "deployment",
        "deployment:DeploymentsPredictions.async_create",
        lambda c: c.deployments.predictions.async_create("owner/name", _ASK),
        asynchronous=True,
    ),
]


def _polled(name):
    """Start with nothing, and be done at the second poll."""
    states = iter(["starting", "processing", "succeeded", "succeeded"])

    def reply(asked):
        status = next(states)
        more = {"metrics": METRICS} if status == "succeeded" else {}
        return Reply(_prediction(name, status, **more), status=201 if asked.method == "POST" else 200)

    return reply


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_prediction_that_is_polled_for_counts_once(server, instrumented, monkeypatch, asynchronous):
    """Usage that comes with a poll is counted once, and takes the place of the estimate of the start."""
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0")
    server.reply = _polled(f"polled-{next(_NUMBERS)}")

    async def use(result):
        return result

    case = next(case for case in CASES if case.name == "run" and case.asynchronous is asynchronous)
    with instrumented() as seen:
        assert driven(case, server, use) == ["Dan", "ube."]
        event, adjusts = seen.end, seen.of("adjust")
    assert event.usage == {}
    assert [adjust.usage for adjust in adjusts if adjust.usage] == [USAGE]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_stream_is_one_call(server, instrumented, asynchronous):
    """A streamed prediction is started by one request and read by another one: that is one commit."""
    lines = b"event: output\nid: 1\ndata: Danube.\n\nevent: done\nid: 2\ndata: {}\n\n"
    name = f"streamed-{next(_NUMBERS)}"

    def reply(asked):
        if asked.method == "GET":
            return Reply(chunks=(lines,), content_type="text/event-stream")
        urls = {"stream": f"{server.url}/stream/{name}", "get": "https://api.replicate.com/g", "cancel": ""}
        return Reply(_prediction(name, "starting", urls=urls), status=201)

    server.reply = reply
    run = replicate.Client.async_stream if asynchronous else replicate.Client.stream
    case = _case("stream", "", lambda client: run(client, MODEL, input=_ASK), asynchronous=asynchronous)

    async def use(result):
        return [str(item) for item in await read(result)]

    with instrumented() as seen:
        assert driven(case, server, use)[0] == "Danube."
        event = seen.end
    assert (event.event_type, event.model, event.reason) != ("cancel", None, None)


def test_a_failed_prediction_says_so(server, instrumented):
    """A prediction that ends with an error is a commit with that error: the machine's time is billed."""
    server.reply = Reply(_prediction("failed-1", "failed", error="out of memory"), status=201)
    with instrumented() as seen:
        with pytest.raises(replicate.exceptions.ModelError):
            _client(server.url).run(MODEL, _ASK)
        event = seen.end
    assert (event.event_type, event.status) == ("commit", "error")
