"""ollama, against the wire format of its API (github.com/ollama/ollama, docs/api.md)."""

from dataclasses import replace
from decimal import Decimal

import pytest
from contract import *  # noqa: F403
from contract import Case, driven, fully, read, settled_by_its_last_event, unchanged
from wire_server import Reply, ndjson

from tollspan.budget import budget

ollama = pytest.importorskip("ollama", reason="the ollama SDK is not installed")

# With older versions of httpx, a dropped async stream is closed in disorder, without us as well.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MODEL = "llama3.2"
_WHEN = {"model": MODEL, "created_at": "2026-11-01T10:00:00.5Z"}
_SPENT = {
    "done": True, "done_reason": "stop", "total_duration": 5_000_000, "load_duration": 1_000_000,
    "prompt_eval_count": 26, "prompt_eval_duration": 2_000_000, "eval_count": 9, "eval_duration": 2_000_000,
}  # fmt: skip
_REFUSED = Reply({"error": f"model '{MODEL}' not found"}, status=404)
_MESSAGES = [{"role": "user", "content": "One river."}]


def _said(text, **more):
    return _WHEN | {"message": {"role": "assistant", "content": text}, "done": False} | more


def _written(text, **more):
    return _WHEN | {"response": text, "done": False} | more


_EMBEDDED = _WHEN | {"embeddings": [[0.5, 0.25]], "total_duration": 5, "load_duration": 1, "prompt_eval_count": 4}


def _case(name, method, asked, reply, usage, **more):
    return [
        Case(
            name=name,
            site=f"ollama._client:{client}.{method}",
            client=lambda url, client=client: getattr(ollama, client)(host=url),
            run=lambda client: getattr(client, method)(model=MODEL, **asked),
            reply=reply,
            usage=usage,
            provider="ollama",
            model=MODEL,
            streams=asked.get("stream", False),
            asynchronous=client == "AsyncClient",
            refusal=_REFUSED,
            bounded=False,  # what a local model costs, nobody knows but its owner
            **more,
        )
        for client in ("Client", "AsyncClient")
    ]


_USED = {"tokens_in": 26, "tokens_out": 9}
CASES = [
    *_case("chat", "chat", {"messages": _MESSAGES}, Reply(_said("Danube.") | _SPENT), _USED),
    *_case(
        "chat stream", "chat", {"messages": _MESSAGES, "stream": True},
        ndjson(_said("Dan"), _said("ube"), _said(".") | _SPENT), _USED,
    ),
    *_case(
        "generate", "generate", {"prompt": "One river."}, Reply(_written("Danube.") | _SPENT), _USED,
        operation="text_completion",
    ),
    *_case(
        "generate stream", "generate", {"prompt": "One river.", "stream": True},
        ndjson(_written("Dan"), _written("ube"), _written(".") | _SPENT), _USED, operation="text_completion",
    ),
    *_case(
        "embed", "embed", {"input": ["one", "two"]}, Reply(_EMBEDDED), {"tokens_in": 4, "tokens_out": 0},
        operation="embeddings",
    ),
    *_case(
        "embeddings", "embeddings", {"prompt": "one"}, Reply({"embedding": [0.5, 0.25]}), None, operation="embeddings"
    ),
]  # fmt: skip


@pytest.fixture
def priced(tmp_path, monkeypatch):
    """The owner of the model has set a price for it, in a file."""

    def set_price(text):
        (tmp_path / "prices.toml").write_text(f'[[price]]\nmodel = "{MODEL}"\n{text}\n')
        monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "prices.toml"))

    return set_price


def test_a_model_without_a_price_is_unpriced_and_never_free(server, instrumented):
    """Without a price of the owner's, nobody says that a model costs nothing."""
    server.reply = CASES[0].reply
    with instrumented() as seen:
        driven(CASES[0], server, unchanged)
        assert (seen.end.cost_source, seen.end.cost_actual_usd) == ("unpriced", None)


def test_a_model_that_its_owner_calls_free_is_free(server, instrumented, priced):
    """The owner's word is what makes it free, even in a strict budget."""
    priced("free = true")
    server.reply = CASES[0].reply
    with instrumented() as seen:
        with budget("0.01 USD", name="small"):
            driven(CASES[0], server, unchanged)
        assert (seen.end.cost_source, seen.end.cost_actual_usd) == ("override", 0)


GENERATING = [case for case in CASES if case.operation != "embeddings"]


@pytest.mark.parametrize("way", GENERATING, ids=lambda way: way.id)
def test_a_budget_limits_the_output(way, server, instrumented, priced):
    """What a budget has left buys so much output and no more: that is what the server is told."""
    priced('input_mtok = "1"\noutput_mtok = "100"')
    server.reply = way.reply
    with instrumented() as seen:
        with budget("0.05 USD", name="small"):
            driven(way, server, fully(way))
        asked = server.asked[-1].json
        assert 0 < asked["options"]["num_predict"] < 500
        assert asked["stream"] is way.streams
        assert seen.end.cost_actual_usd == Decimal("0.000926")


@pytest.mark.parametrize("way", [case for case in CASES if case.streams], ids=lambda way: way.id)
def test_an_error_in_a_stream_ends_it(way, server, instrumented):
    """The server can fail when it has begun to answer: that is one commit, whose cost nobody knows."""
    began, *_ = way.reply.chunks
    server.reply = replace(way.reply, chunks=(began, b'{"error":"out of memory"}\n'))
    with instrumented() as seen:
        with pytest.raises(ollama.ResponseError, match="out of memory"):
            driven(way, server, read)
        event = seen.end
    assert (event.event_type, event.status, event.error_message) == ("commit", "error", "out of memory")
    assert event.usage == {}


def test_pulling_a_model_is_no_call_to_it(server, instrumented):
    """What else the server is asked for passes untouched."""
    server.reply = Reply({"status": "success"})
    with instrumented() as seen:
        ollama.Client(host=server.url).pull(MODEL)
        assert seen.events == []


@pytest.mark.parametrize("way", [case for case in CASES if case.streams], ids=lambda way: way.id)
def test_the_last_event_is_the_end(way, server, instrumented):
    """Whoever has it need not read on, nor close the stream, for the call to be settled."""
    settled_by_its_last_event(way, server, instrumented)
