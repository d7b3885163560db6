"""Scopes and budgets that travel to other services in W3C baggage, and what is taken from baggage that arrives."""

import asyncio
import contextvars
import http.client
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from urllib.parse import quote_plus, unquote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagate import extract, inject

from tollspan.budget import BudgetBusy, BudgetExceeded, BudgetExhausted, _baggage, budget, is_budgeted, reach, scope
from tollspan.exporter import Pipeline, pipeline, use_pipeline
from tollspan.ledger import BudgetDefinition, BudgetOverride, Window, load_settings

A_CALL = Decimal("0.10025")


@pytest.fixture(autouse=True)
def _said_nothing(monkeypatch):
    monkeypatch.setattr(_baggage, "_said", set())
    _baggage._load.cache_clear()


def sent():
    """The headers that any instrumented HTTP client would send from here."""
    headers = {}
    inject(headers)
    return headers


@contextmanager
def arriving(headers):
    """Be where a request with these headers is served: nothing else of this process is in force."""
    token = attach(extract(headers, context=Context()))
    try:
        yield
    finally:
        detach(token)


@contextmanager
def given_baggage(**entries):
    """Be where a request with these entries is served; `_` in names stands for the colon of a tag."""
    pairs = [f"{quote_plus('tollspan.' + name.replace('_', ':'))}={quote_plus(text)}" for name, text in entries.items()]
    with arriving({"baggage": ",".join(pairs)}):
        yield


def in_baggage():
    return dict(baggage.get_all())


def in_force():
    return [entry.definition.name for entry in reach().entries if entry.open]


# ---- dimensions that go out


def test_a_scope_travels_with_what_is_listed_and_nothing_else(configure):
    """The listed dimensions stand in the header for the length of the scope, the others never."""
    configure(baggage="user,tag:feature")
    with scope(user="ada", session="s1", tags={"feature": "search", "stage": "test"}):
        assert unquote_plus(sent()["baggage"]) == "tollspan.user=ada,tollspan.tag:feature=search"
    assert sent() == {}


def test_by_default_nothing_travels():
    """Without the setting the context has no baggage at all, and none that arrives counts."""
    with scope(user="ada"), budget("1 USD", name="b"):
        assert (sent(), in_baggage()) == ({}, {})
    with given_baggage(user="eve", budget='[{"name":"b","limit":"1 USD / day"}]'):
        assert (dict(reach().dimensions), in_force(), is_budgeted()) == ({}, [], False)


def test_a_disabled_tollspan_neither_sends_nor_takes(configure):
    """TOLLSPAN_DISABLED covers baggage too."""
    configure(baggage="user,budget", disabled=True)
    with scope(user="ada"), budget("1 USD", name="b"):
        assert sent() == {}
    with given_baggage(user="eve"):
        assert dict(reach().dimensions) == {}


def test_leaving_gives_back_what_was_there(configure):
    """Nested scopes show their own values and the outer ones afterwards; entries of others stay as they are."""
    configure(baggage="user,run")
    token = attach(baggage.set_baggage("theirs", "1"))
    with scope(user="ada"):
        with scope(user="bob", run="r1"):
            assert in_baggage() == {"theirs": "1", "tollspan.user": "bob", "tollspan.run": "r1"}
        assert in_baggage() == {"theirs": "1", "tollspan.user": "ada"}
    assert in_baggage() == {"theirs": "1"}
    detach(token)


def test_scopes_may_be_left_in_any_order(configure):
    """What is in baggage is always what is in force."""
    configure(baggage="user,run")
    first, second = scope(user="ada", run="r1"), scope(user="bob")
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert in_baggage() == {"tollspan.user": "bob"}
    second.__exit__()
    second.__exit__()
    assert in_baggage() == {}


async def test_tasks_send_their_own(configure, at_once):
    """Each of many tasks sends its own user, and an exit in another task changes nothing there."""
    configure(baggage="user,session")
    shared = scope(session="s1")

    async def task(number):
        async with scope(user=number), shared:
            await asyncio.sleep(0.001 * (number % 5))
            return sent()["baggage"]

    done = await at_once(*(task(number) for number in range(30)))
    assert done == [f"tollspan.user={number},tollspan.session=s1" for number in range(30)]
    assert sent() == {}


@pytest.mark.parametrize("value", ["", "x" * 257, "two\nlines", "\udc80"])
def test_a_value_that_cannot_travel_leaves_no_other_in_its_place(configure, caplog, value):
    """It counts here, is said once, and the caller's own value does not stand for it in the next service."""
    configure(baggage="user")
    with given_baggage(user="eve"):
        for _ in range(3):
            with scope(user=value):
                assert (dict(reach().dimensions), sent()) == ({"user": value}, {})
        assert in_baggage() == {"tollspan.user": "eve"}
    assert [record.getMessage() for record in caplog.records] == [
        "a value of 'user' is left out of W3C baggage: it needs 1 to 256 printable characters"
    ]


@pytest.mark.parametrize("value", ["a b", "a+b,c;d=e%20", "ädä", "日本", "x" * 256, '"quoted"\\'])
def test_any_other_value_arrives_as_it_is(configure, value):
    """Separators, quotes, and letters of any script are encoded on the way."""
    configure(baggage="user,tag:feature of it")
    with scope(user=value, tags={"feature of it": value}):
        headers = sent()
    with arriving(headers):
        assert dict(reach().dimensions) == {"user": value, "tag:feature of it": value}


# ---- dimensions that come in


def test_what_arrives_stands_in_the_ledger(configure, chat):
    """The caller's user is the user of the calls that are made for it."""
    line = configure(baggage="user,tag:feature")
    with given_baggage(user="ada", tag_feature="search", session="s1"):
        chat(max_tokens=10)
    (commit,) = line.ledger.events
    assert (commit.user_id, commit.tags, commit.session_id) == ("ada", {"feature": "search"}, None)


def test_scopes_of_this_process_win_over_what_arrives(configure):
    """Where a scope says otherwise, it is what counts and what is sent on; after it the caller's word stands."""
    configure(baggage="user,run", profile="configured")
    with given_baggage(user="eve", run="r1"):
        with scope(user="ada"):
            assert dict(reach().dimensions) == {"user": "ada", "run": "r1"}
            assert sent()["baggage"] == "tollspan.user=ada,tollspan.run=r1"
        assert dict(reach().dimensions) == {"user": "eve", "run": "r1"}
        assert sent()["baggage"] == "tollspan.user=eve,tollspan.run=r1"


def test_a_request_that_is_served_inside_a_scope_does_not_override_it(configure):
    """Where a server adds what arrives to its own context, that stays; what it does not say comes from the caller."""
    configure(baggage="user,run")
    with scope(user="the server"):
        token = attach(extract({"baggage": "tollspan.user=eve,tollspan.run=r1"}, context=get_current()))
        assert dict(reach().dimensions) == {"user": "the server", "run": "r1"}
        with scope(session="s1"):
            assert dict(reach().dimensions) == {"user": "the server", "run": "r1", "session": "s1"}
            assert in_baggage() == {"tollspan.user": "the server", "tollspan.run": "r1"}
        detach(token)


@pytest.mark.parametrize("value", ["x" * 257, "two\nlines", "\x1b[31mred"])
def test_a_malformed_value_that_arrives_is_ignored_and_said_once(configure, caplog, value):
    """It is no dimension of the call, and the log does not repeat what a stranger sends."""
    configure(baggage="user,run")
    for _ in range(3):
        with given_baggage(user=value, run="r1"):
            assert dict(reach().dimensions) == {"run": "r1"}
    (said,) = caplog.records
    assert value not in said.getMessage()


@pytest.mark.usefixtures("instrumented")
def test_what_arrives_reaches_threads(configure):
    """A thread that serves a part of the request is in the same service's request, without any scope."""
    configure(baggage="user")
    seen = []

    class Worker(threading.Thread):
        def run(self):
            seen.append(dict(reach().dimensions))

    with given_baggage(user="ada"):
        worker = Worker()
        worker.start()
        worker.join()
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: dict(reach().dimensions)).result())
    assert seen == [{"user": "ada"}] * 2


# ---- budgets


def test_a_budget_acts_in_the_other_service_with_the_same_balance(configure, calls):
    """What is spent there is spent here, and what is held here is held there."""
    line = configure(baggage="budget")
    with budget("0.25 USD", name="run") as handle:
        record, _ = calls.ask()
        with arriving(sent()):
            assert in_force() == ["run"]
            calls.spend(10_000)
            with pytest.raises(BudgetBusy, match="'run'"):
                calls.ask()
        assert (handle.spent, handle.held) == (A_CALL, A_CALL)
        calls.settle(record)
        with arriving(sent()), pytest.raises(BudgetExhausted, match="'run'"):
            calls.ask()
    assert line.ledger.verify() == []


@pytest.mark.parametrize(
    ("limit", "options"),
    [
        ("0.1 USD", {}),
        ("5 USD / day", {"timezone": "Europe/Berlin"}),
        ("9000 tokens / hour", {"mode": "best_effort"}),
        ("60 requests / minute", {"on_limit": "wait", "max_wait_timeout_s": 5}),
        ("2 USD / month", {"each": "user", "match": {"model": "gpt-4*", "tag:feature": "search"}}),
        ("2 USD", {"output_bound": 4096, "cut_stream": "estimate", "name": 'a "name", ünd; more=%41'}),
        ("0 USD / total", {"output_bound": "max", "on_limit": "warn"}),
    ],
)
def test_a_budget_arrives_as_it_was_defined(configure, limit, options):
    """Every option that restricts travels, and what is as by default takes no room."""
    configure(baggage="budget")
    with budget(limit, **{"name": "b"} | options) as handle:
        headers = sent()
    with arriving(headers):
        (arrived,) = reach().entries
    assert (arrived.definition, arrived.key(at=0)) == (handle.definition, handle.key(at=0))


def test_a_plain_budget_takes_little_room(configure):
    """Name, limit and run are all that a budget with nothing special about it sends."""
    configure(baggage="budget")
    with budget("0.10 USD", name="one run") as handle:
        text = baggage.get_baggage("tollspan.budget")
    assert orjson.loads(text) == [{"name": "one run", "limit": "0.1 USD", "run": handle.run.removeprefix("run=")}]


def test_budgets_travel_on_from_service_to_service(configure):
    """The second service adds its own, and gives back what it got when that is left; the third is inside of both."""
    configure(baggage="budget")
    with budget("1 USD", name="first"):
        at_first = sent()
    with arriving(at_first):
        with budget("1 USD", name="second"):
            at_second = sent()
        assert (sent(), in_force()) == (at_first, ["first"])
    with arriving(at_second):
        assert in_force() == ["first", "second"]


def test_a_request_to_the_own_process_counts_once(configure, calls):
    """A budget that comes back to the process that has entered it is one entry in one balance."""
    configure(baggage="budget")
    with budget("1 USD", name="run") as handle:
        token = attach(extract(sent(), context=get_current()))
        assert in_force() == ["run"]
        calls.spend(10_000)
        assert handle.spent == A_CALL
        detach(token)


def test_a_closed_budget_does_not_come_back_through_its_own_baggage(configure):
    """A context that was copied inside the block ignores the entry after its end, as without baggage."""
    configure(baggage="budget")
    with budget("1 USD", name="b"):
        inside = contextvars.copy_context()

    def later():
        with budget("1 USD", name="later"):
            return in_force(), sent()

    assert inside.run(in_force) == []
    seen, headers = inside.run(later)
    with arriving(headers):
        assert (seen, in_force()) == (["later"], ["later"])


def test_entering_a_budget_never_stops_another_from_travelling(configure, caplog):
    """At most four travel, in 2 KiB: the outermost ones; that the others stay behind is said once."""
    configure(baggage="budget")
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(budget("1 USD", name=f"b{number}"))
        headers, text = sent(), baggage.get_baggage("tollspan.budget")
    assert len(orjson.loads(text)) == 4
    with arriving(headers):
        assert in_force() == ["b0", "b1", "b2", "b3"]
    assert len(caplog.records) == 1


def test_a_budget_that_is_too_long_leaves_room_for_others(configure):
    """What does not fit into 2 KiB, as it is encoded, stays behind; shorter ones go."""
    configure(baggage="budget")
    long = budget("1 USD", name="€" * 300)
    with budget("1 USD", name="a"), long, budget("1 USD", name="b"):
        headers = sent()
        assert len(headers["baggage"]) < 2048 + len("tollspan.budget=")
    with arriving(headers):
        assert in_force() == ["a", "b"]
    with long:
        assert sent() == {}


ENTRY = {"name": "b", "limit": "1 USD / day"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "{}",
        "[" * 600,
        "1e999",
        orjson.dumps([ENTRY | {"name": "x" * 2048}]).decode(),
        *(
            orjson.dumps([table]).decode()
            for table in (
                None,
                5,
                [],
                {},
                {"name": "b"},
                ENTRY | {"name": ""},
                ENTRY | {"name": 5},
                ENTRY | {"limit": "1 USD"},
                ENTRY | {"limit": 5},
                ENTRY | {"limit": "-1 USD / day"},
                ENTRY | {"limit": f"{'9' * 1000} USD / day"},
                ENTRY | {"run": "0123456789abcdef"},
                {"name": "b", "limit": "1 USD", "run": "0123456789abcdef user=eve"},
                {"name": "b", "limit": "1 USD", "run": 5},
                {"name": "b", "limit": "1 USD", "run": ""},
                ENTRY | {"timezone": "../../etc/passwd"},
                ENTRY | {"timezone": 5},
                ENTRY | {"match": {"user": 5}},
                ENTRY | {"match": [1]},
                ENTRY | {"each": []},
                ENTRY | {"mode": {}},
                ENTRY | {"max_wait_timeout_s": "long"},
                ENTRY | {"output_bound": {}},
            )
        ),
    ],
)
def test_a_malformed_budget_is_ignored_and_said_once(configure, caplog, text):
    """It neither raises nor counts, whatever is wrong about it, and is not repeated in the log."""
    configure(baggage="user,budget")
    for _ in range(3):
        _baggage._load.cache_clear()
        with given_baggage(budget=text, user="ada"):
            assert (in_force(), dict(reach().dimensions)) == ([], {"user": "ada"})
    assert len(caplog.records) == 1


def test_a_malformed_budget_does_not_hide_a_good_one(configure):
    """Each of a list is judged by itself, and no more than four are taken."""
    configure(baggage="budget")
    tables = [5, ENTRY, ENTRY | {"limit": "free"}, ENTRY | {"name": "c"}, ENTRY | {"name": "fifth"}]
    with given_baggage(budget=orjson.dumps(tables).decode()):
        assert in_force() == ["b", "c"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        key: JSON | st.sampled_from(["1 USD / day", "2 USD", "x"]) for key in (*_baggage._TRAVELLING_KEYS, "run")
    },
)


@given(st.text() | st.lists(TABLES | JSON, max_size=6).map(lambda tables: orjson.dumps(tables).decode()))
def test_nothing_that_arrives_raises(text):
    """Any text at all is a few budgets or none."""
    entries = _baggage.budgets_of({"budget": text})
    assert len(entries) <= 4
    assert all(entry.open and entry.definition.max_wait_timeout_s <= 60 for entry in entries)


@given(st.dictionaries(st.sampled_from(["user", "run", "tag:x"]), st.none() | st.integers() | st.text()))
def test_no_value_that_arrives_raises(entries):
    """Dimensions are short printable texts, whatever was there."""
    found = _baggage.dimensions_of(entries)
    assert all(0 < len(value) <= 256 and value.isprintable() for value in found.values())


# ---- what arrives can only restrict


def test_a_budget_that_arrives_does_not_loosen_one_of_the_same_name(configure, calls):
    """A higher limit under the name of a budget of this process changes nothing."""
    configure(baggage="budget", budget=[{"name": "here", "limit": "0.15 USD / month", "mode": "strict"}])
    arrived = '[{"name":"here","limit":"100 USD / month","mode":"best_effort","on_limit":"warn"}]'
    with given_baggage(budget=arrived):
        calls.spend(10_000)
        with pytest.raises(BudgetExhausted, match="'here'") as refused:
            calls.ask()
        assert refused.value.limit == Decimal("0.15")


@pytest.mark.parametrize(
    "arrived",
    [
        {"limit": "0.149 USD / month", "mode": "best_effort"},
        {"limit": "0.149 USD / month", "match": {"user": "nobody"}},
        {"limit": "100 USD / month", "on_limit": "warn"},
        {"limit": "100 requests / day"},
    ],
)
@pytest.mark.parametrize("where", ["configured", "set from outside"])
def test_a_budget_that_arrives_takes_the_place_of_none(configure, calls, where, arrived):
    """Under the name of a strict budget of this process, whatever arrives leaves that one in force, and strict."""
    here = BudgetDefinition(name="here", limit=150_000_000, unit="USD", window=Window("month"))
    line = configure(baggage="budget", budget=[here] if where == "configured" else None)
    if where != "configured":
        line.ledger.override_budget(BudgetOverride(name="here", limit=here.limit, unit="USD", definition=here))
    with given_baggage(budget=orjson.dumps([{"name": "here"} | arrived]).decode()):
        calls.ask()
        with pytest.raises(BudgetBusy, match="'here'"):
            calls.ask()


def test_a_budget_that_arrives_is_not_noted_in_the_ledger(configure, calls):
    """What a caller sends defines nothing for others, and leaves no definition behind."""
    line = configure(baggage="budget")
    with given_baggage(budget='[{"name":"b","limit":"5 USD / month"}]'):
        calls.spend(10)
    assert not any(known.definition for known in line.ledger.known_budgets())


def test_a_lower_limit_that_arrives_holds_there_only(configure, calls):
    """It restricts the calls of the request that brought it, and no other ones."""
    configure(baggage="budget")
    with given_baggage(budget='[{"name":"b","limit":"0.05 USD / month"}]'), pytest.raises(BudgetExhausted):
        calls.ask()
    with budget("1 USD / month", name="b"):
        calls.spend(10_000)


def test_a_stranger_chooses_no_model_and_no_long_wait(configure):
    """A fallback arrives as a refusal, a drain as a hold, and a wait of years as one of a minute."""
    configure(baggage="budget")
    table = ENTRY | {"on_limit": "fallback", "fallback_model": "o1-pro", "cut_stream": "drain"}
    waits = ENTRY | {"name": "waits", "on_limit": "wait", "max_wait_timeout_s": 1e9}
    with given_baggage(budget=orjson.dumps([table, waits]).decode()):
        first, second = (entry.definition for entry in reach().entries)
    assert (first.on_limit, getattr(first, "fallback_model", None), first.cut_stream) == ("raise", None, "hold")
    assert (second.on_limit, second.max_wait_timeout_s) == ("wait", 60)


# ---- two processes

SERVICE = """
import sys, openai
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from opentelemetry import context, propagate
from tollspan.budget import BudgetExceeded
from tollspan.instrumentation import instrument

instrument()
client = openai.OpenAI(base_url=sys.argv[1], api_key="local", max_retries=0)

class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        token = context.attach(propagate.extract(self.headers))
        try:
            client.chat.completions.create(
                model="gpt-4o", max_tokens=10_000, messages=[{"role": "user", "content": "hello"}]
            )
            status, text = 200, b"ok"
        except BudgetExceeded as error:
            status, text = 402, str(error).encode()
        finally:
            context.detach(token)
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
print(server.server_port, flush=True)
import threading
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
"""


@pytest.fixture
def service(provider, monkeypatch):
    """Another service, a process of its own with the same ledger; `service()` gives its status and text."""
    monkeypatch.setenv("TOLLSPAN_BAGGAGE", "user,budget")
    use_pipeline(Pipeline(load_settings()))
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, provider.openai_url],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = int(process.stdout.readline())

            def call():
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                with suppress(OSError):
                    connection.request("POST", "/", headers=sent())
                    answer = connection.getresponse()
                    return answer.status, answer.read().decode()
                pytest.fail("the service does not answer")

            yield call
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()


def eventually(found):
    """Wait until the other process has written what it still had in its queue."""
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def commits():
    ledger = pipeline().ledger
    assert ledger.flush(60)
    return [event for event in ledger.events if event.event_type == "commit"]


def billed(provider):
    return sum(bill.cost_usd for bill in provider.billed)


def test_the_limit_of_a_run_is_met_in_both_processes(service, chat, provider):
    """Calls of either process count in the one balance; what is left refuses in both, before anything is sent."""
    with budget("0.45 USD", name="run") as handle, scope(user="ada"):
        chat(max_tokens=10_000)
        assert service() == (200, "ok")
        chat(max_tokens=10_000)
        assert service() == (200, "ok")
        assert pipeline().ledger.flush(60)
        with pytest.raises(BudgetExceeded, match="'run'"):
            chat(max_tokens=10_000)
        status, text = service()
        assert (status, "budget 'run' (run=" in text) == (402, True)
        assert service()[0] == 402
        eventually(lambda: handle.held == 0)
        assert handle.spent == billed(provider)
        assert Decimal("0.4") < handle.spent <= Decimal("0.45")
    assert service() == (200, "ok")  # the run is over, and nobody limits this one
    eventually(lambda: len(commits()) == 5)
    assert sorted((event.user_id for event in commits()), key=str) == [None, "ada", "ada", "ada", "ada"]
    assert (len(provider.billed), pipeline().ledger.verify()) == (5, [])


@pytest.mark.usefixtures("instrumented")
def test_calls_of_both_processes_at_once_pass_no_limit(service, chat, provider):
    """Forty calls at once, half of them made by the other service, are admitted as far as the limit goes."""

    def here():
        with suppress(BudgetExceeded):
            chat(max_tokens=10_000)

    with budget("1 USD", name="run"), ThreadPoolExecutor(40) as pool:
        for done in [pool.submit(call) for _ in range(20) for call in (here, service)]:
            done.result()
    assert Decimal("0.8") < billed(provider) <= 1
    eventually(lambda: pipeline().ledger.open_holds().calls == 0)
    assert pipeline().ledger.verify() == []


def test_a_header_is_within_what_propagators_send(configure):
    """The longest that we write fits into one entry of W3C baggage, as OpenTelemetry bounds it."""
    configure(baggage="budget")
    with ExitStack() as stack:
        for number in range(4):
            stack.enter_context(budget("1 USD / day", name=f"{number}" + "ü" * 60))
        text = sent()["baggage"]
    assert len(text) < W3CBaggagePropagator._MAX_PAIR_LENGTH
