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
