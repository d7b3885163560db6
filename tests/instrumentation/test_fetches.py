"""Answers that are fetched again: a background response counts once, with the usage that a poll brings."""

import importlib
import inspect
import json

import openai
import pytest

from tollspan.budget import budget
from tollspan.exporter import pipeline
from tollspan.instrumentation import _fetches
from tollspan.ledger import Balance

CREATED = 1_790_000_000
USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 100},
    "total_tokens": 1500,
}
COST = 1000 * 150 + 500 * 600  # nano-USD of gpt-4o-mini


def a_response(status="completed", response_id="resp_abc", **fields):
    """A response object of the API; its usage comes with its completion."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": "gpt-4o-mini",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "background": True,
        "usage": USAGE if status == "completed" else None,
    } | fields


class Kept:
    """A provider that keeps its responses: a background one is complete from the third poll on."""

    def __init__(self):
        self.polls = 0

    def __call__(self, request):
        if request.method == "POST":
            background = json.loads(request.content).get("background")
            return library().Response(200, json=a_response("queued" if background else "completed"))
        self.polls += 1
        if "stream" in request.url.query.decode():
            event = {"type": "response.completed", "sequence_number": 1, "response": a_response()}
            text = f"event: response.completed\ndata: {json.dumps(event)}\n\n"
            return library().Response(200, text=text, headers={"content-type": "text/event-stream"})
        return library().Response(200, json=a_response("queued" if self.polls < 3 else "completed"))


@pytest.fixture
def client(instrumented):
    _fetches._counted.clear()
    with instrumented(), make_client_of(Kept()) as client:
        yield client


def library():
    """The HTTP library that this version of the SDK is built on."""
    return importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])


def make_client_of(answer):
    transport = library().MockTransport(answer)
    return openai.OpenAI(api_key="x", http_client=library().Client(transport=transport))


def events():
    """All events of the ledger."""
    pipeline().ledger.flush()
    return pipeline().ledger.tail()


def spend():
    """Nano-USD of all events."""
    return sum(event.spend_usd or 0 for event in events()) * 10**9


def ask(client, **options):
    # Older versions of the SDK know no background, but send what they are given.
    return client.responses.create(model="gpt-4o-mini", input="Hello", max_output_tokens=2000, extra_body=options)


def stream_of(client, ident):
    """Read an answer that is kept as a stream, where this version of the SDK can."""
    if "stream" not in inspect.signature(client.responses.retrieve).parameters:
        pytest.skip("this version of the SDK fetches no streams")
    return list(client.responses.retrieve(ident, stream=True))


def test_a_background_response_counts_once_at_what_it_cost(client):
    """The call is an estimate until a poll finds it complete; then adjusts make it exact, and further polls nothing."""
    answer = ask(client, background=True)
    (commit,) = events()
    assert (commit.event_type, commit.estimated, commit.usage) == ("commit", True, {})
    for _ in range(6):
        client.responses.retrieve(answer.id)
    assert [event.event_type for event in events()] == ["commit", "adjust", "adjust"]
    assert events()[-1].usage == {"tokens_in": 1000, "tokens_out": 500, "tokens_reasoning": 100}
    assert spend() == COST
    (row,) = pipeline().ledger.report()
    assert (row.calls, row.tokens_in, row.tokens_out, row.cost_estimated_usd) == (1, 1000, 500, 0)
    assert row.cost_actual_usd * 10**9 == COST
    assert pipeline().ledger.verify() == []


def test_budgets_follow_the_adjust(client):
    """A budget is charged with the estimate first, and with the actual cost in its place after the poll."""
    with (
        budget("5 USD / day", name="b", mode="best_effort") as usd,
        budget("100000 tokens / day", name="t", mode="best_effort"),
    ):
        answer = ask(client, background=True)
        pipeline().ledger.flush()
        estimate = usd.spent
        assert estimate * 10**9 > COST
        for _ in range(4):
            client.responses.retrieve(answer.id)
        pipeline().ledger.flush()
        assert usd.spent * 10**9 == COST
    rows = pipeline().ledger.store.query(
        "SELECT budget, spent, estimated FROM balance WHERE budget IN ('b', 't [tokens]') ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("b", COST, 0), ("t [tokens]", 1500, 0)]


def test_a_response_that_was_counted_at_once_is_not_counted_again(client):
    """An answer that came with its usage can be fetched any number of times, whole or as a stream."""
    answer = ask(client)
    for _ in range(4):
        client.responses.retrieve(answer.id)
    stream_of(client, answer.id)
    assert [(event.event_type, event.usage["tokens_out"]) for event in events()] == [("commit", 500)]
    assert spend() == COST


def test_a_response_of_somebody_else_counts_once(client):
    """An answer whose call this ledger has not seen is counted when it is fetched, once, for all processes."""
    for _ in range(5):
        client.responses.retrieve("resp_abc")
    _fetches._counted.clear()  # as in another process
    client.responses.retrieve("resp_abc")
    (event,) = events()
    assert (event.event_type, event.usage["tokens_in"], event.response_id) == ("commit", 1000, "resp_abc")
    assert (event.timestamp, event.provider, spend()) == (CREATED, "openai", COST)
    assert pipeline().ledger.verify() == []


def test_a_stream_of_a_kept_response_counts(client):
    """Where a background response is followed by a stream, the usage comes with its last event."""
    ask(client, background=True)
    stream_of(client, "resp_abc")
    assert spend() == COST
    assert pipeline().ledger.balance(("", "", CREATED // 86400 * 86400)) == Balance()  # it counts when the call began


def test_other_requests_to_such_paths_are_none_of_ours(client):
    """Deleting or listing what is kept, and other services with such paths, leave no event."""
    answers = iter([{"deleted": True}, {"object": "list", "data": []}, {"object": "survey", "usage": 3, "id": "x"}])
    transport = library().MockTransport(lambda _request: library().Response(200, json=next(answers)))
    with library().Client(transport=transport) as http:
        http.delete("https://api.openai.com/v1/responses/resp_abc")
        http.get("https://api.openai.com/v1/responses/resp_abc/input_items")
        assert http.get("https://forms.example/responses/x").json()["object"] == "survey"
    assert events() == []


BATCH_CHAT = {
    "id": "chatcmpl-7",
    "object": "chat.completion",
    "created": CREATED,
    "model": "gpt-4o-mini",
    "service_tier": "default",
    "choices": [],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
}
BATCH_EMBEDDINGS = {"object": "list", "model": "text-embedding-3-small", "data": [], "usage": {"total_tokens": 8}}
BATCH_MESSAGE = {
    "id": "msg_7",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1000, "output_tokens": 500, "service_tier": "batch"},
}


def batch_cost(provider, model, usage, at):
    """Nano-USD of a usage at the price of a batch."""
    return pipeline().prices.resolve(provider=provider, model=model, at=at, service_tier="batch").cost(usage)


def serving(instrumented, body, content_type="application/json"):
    """A client of a provider that answers with this to every request."""
    _fetches._counted.clear()
    headers = {"content-type": content_type}
    return instrumented(), make_client_of(lambda _request: library().Response(200, content=body, headers=headers))


def test_each_answer_of_a_batch_counts_once_at_its_price(instrumented):
    """The file with the results of a batch has many answers; read again, also by another process, it adds nothing."""
    lines = [
        {"id": "batch_req_1", "response": {"status_code": 200, "body": BATCH_CHAT}, "error": None},
        {"id": "batch_req_2", "response": {"status_code": 200, "body": BATCH_EMBEDDINGS}, "error": None},
        {"id": "batch_req_3", "response": {"status_code": 400, "body": {"error": {}}}, "error": None},
    ]
    block, client = serving(instrumented, b"\n".join(json.dumps(line).encode() for line in lines) + b"\n")
    with block, client:
        for _ in range(3):
            assert b"batch_req_3" in client.files.content("file-1").read()
            _fetches._counted.clear()
        with client.files.with_streaming_response.content("file-1") as response:
            assert len(list(response.iter_lines())) == 3
        chat, embeddings = events()
    assert (chat.event_type, chat.response_id, chat.model) == ("commit", "chatcmpl-7", "gpt-4o-mini")
    assert chat.usage == {"tokens_in": 1000, "tokens_out": 500}
    assert chat.cost_actual_usd * 10**9 == batch_cost("openai", "gpt-4o-mini", chat.usage, CREATED)
    assert chat.cost_rates["service_tier"] == "batch"
    assert (embeddings.response_id, embeddings.usage["tokens_in"]) == ("batch_req_2", 8)


def test_a_batch_itself_leaves_no_event(instrumented):
    """To start a batch, to ask for it and to download other files is no call."""
    batch = {"id": "batch_1", "object": "batch", "status": "completed", "usage": {"input_tokens": 9}, "model": "m"}
    block, client = serving(instrumented, json.dumps(batch).encode())
    with block, client:
        client.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file-0")
        client.batches.retrieve("batch_1")
        client.batches.list()
        client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        client.files.content("file-0")
        assert events() == []


def test_each_message_of_a_batch_counts_once_at_its_price(instrumented):
    """Anthropic's results are read as a stream, and may be read again."""
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    results = [
        {"custom_id": "a", "result": {"type": "succeeded", "message": BATCH_MESSAGE}},
        {"custom_id": "b", "result": {"type": "expired"}},
    ]
    batch = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
    }
    lines = b"".join(json.dumps(result).encode() + b"\n" for result in results)
    http = importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

    def answer(request):
        if request.url.path.endswith("/results"):
            return http.Response(200, content=lines, headers={"content-type": "application/x-jsonl"})
        return http.Response(200, json=batch)

    _fetches._counted.clear()
    transport = http.MockTransport(answer)
    with instrumented(), anthropic.Anthropic(api_key="x", http_client=http.Client(transport=transport)) as client:
        for _ in range(2):
            assert len(list(client.messages.batches.results("msgbatch_1"))) == 2
            assert len(list(client.beta.messages.batches.results("msgbatch_1"))) == 2
            _fetches._counted.clear()
        (event,) = events()
        cost = batch_cost("anthropic", "claude-sonnet-4-5", event.usage, event.timestamp)
    assert (event.event_type, event.response_id, event.provider) == ("commit", "msg_7", "anthropic")
    assert event.usage == {"tokens_in": 1000, "tokens_out": 500}
    assert event.cost_actual_usd * 10**9 == cost


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
@pytest.mark.parametrize("end", ["completed", "failed"])
def test_a_video_counts_when_it_is_ready(instrumented, end):
    """The job that starts it is of unknown cost; the poll that finds it ready tells its seconds, once."""
    if not hasattr(openai.OpenAI(api_key="x"), "videos"):
        pytest.skip("this version of the SDK makes no videos")
    job = {"id": "video_1", "object": "video", "created_at": CREATED, "model": "sora-2", "progress": 0}
    job |= {"seconds": "8", "size": "720x1280", "status": "queued"}
    polls = iter(["queued", end, end, end])
    _fetches._counted.clear()

    def answer(request):
        status = "queued" if request.method == "POST" else next(polls)
        return library().Response(200, json=job | {"status": status})

    with instrumented(), make_client_of(answer) as client:
        client.videos.create_and_poll(prompt="a river", poll_interval_ms=1)
        client.videos.retrieve("video_1")
        commit, *adjusts = events()
    assert (commit.event_type, commit.usage, commit.cost_source) == ("commit", {}, "unpriced")
    seconds = 8 if end == "completed" else 0
    assert [event.usage["video_seconds"] for event in adjusts] == [seconds]
