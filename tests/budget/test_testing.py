"""`set_testing()`: what an application's own tests see of budgets, and what they leave behind."""

import asyncio
import contextvars
import gc
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from polling import until

from tollspan.budget import BudgetBusy, BudgetExceeded, Testing, budget, load_budgets, scope, set_testing
from tollspan.exporter import LedgerSpanProcessor, pipeline, settlement
from tollspan.instrumentation import instrument, uninstrument
from tollspan.ledger import BudgetDefinition, BudgetSyntaxError, ConfigurationError, parse_limit

DOCS = Path(__file__).resolve().parents[2] / "docs/testing.md"
EXAMPLES = dict(
    re.findall(r"^```python\n(?=# (test_\w+\.py)\n)(.*?)^```", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)
PRICE = Decimal("0.10025")
"""USD for a call of these tests: 100 tokens of input, 10,000 of output."""


@pytest.fixture
def testing():
    with set_testing() as testing:
        yield testing


def test_calls_count_in_memory_and_leave_no_file(calls, tmp_path):
    """What happens inside is there to look at, the configured ledger has nothing of it, and no file was made."""
    with set_testing() as testing, budget("1 USD / day", name="daily"):
        calls.spend(10_000)
        assert [event.event_type for event in testing.events] == ["precheck_hold", "commit"]
        assert [call.cost_actual_usd for call in testing.calls] == [PRICE]
        assert testing.spent == PRICE
    assert list(tmp_path.iterdir()) == []
    assert pipeline().ledger.tail() == []


def test_what_was_recorded_can_be_read_after_the_end(calls):
    """Asserts may stand below the block as well as in it."""
    with set_testing() as testing, budget("1 USD / day", name="daily"):
        calls.spend(10_000)
        calls.ask()
    assert (len(testing.calls), testing.spent, testing.open_holds) == (1, PRICE, 1)
    assert (testing.balance("daily").spent, testing.balance("daily").held) == (PRICE, PRICE)


def test_whoever_looks_sees_what_was_settled_before(calls, testing):
    """Each look shows the calls up to it, also those that are still queued for the writer."""
    for number in range(50):
        calls.settle(calls.record(), flush=False)
        assert len(testing.events) == number + 1


def test_windows_turn_with_the_time_of_day(calls, monkeypatch):
    """A test that replaces `time.time` is in the next day: for admission, handles and those who wait."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    in_24_hours = {"limit": "0.15 USD / day", "on_limit": "wait", "max_wait_timeout_s": 100_000}
    with set_testing(max_wait_s=100_000) as testing, budget(name="daily", **in_24_hours) as daily:
        calls.spend(10_000)
        waiting = threading.Thread(target=contextvars.copy_context().run, args=(calls.spend, 5_001))
        waiting.start()
        until(lambda: testing.ledger.writer._line.waiting)
        monkeypatch.setattr(time, "time", lambda: now + 86_400)
        waiting.join(30)
        assert [call.cost_actual_usd for call in testing.calls] == [PRICE, Decimal("0.05026")]
        assert daily.spent == testing.balance("daily").spent == Decimal("0.05026")


def test_settings_and_budgets_of_the_machine_do_not_leak_in(calls, monkeypatch, tmp_path):
    """A developer's environment and files, with their budgets, are not seen inside, and are again at the end."""
    (tmp_path / "tollspan.toml").write_text('mode = "strict"\n[[budget]]\nname = "own"\nlimit = "0 USD / day"\n')
    monkeypatch.setenv("TOLLSPAN_PROFILE", "developer")
    monkeypatch.setenv("TOLLSPAN_QUEUE_LIMIT", "1234")
    with set_testing():
        calls.spend(10_000)
        settings = pipeline().settings
        assert (settings.mode, settings.profile, settings.budgets) == ("best_effort", None, ())
    assert (pipeline().settings.mode, pipeline().settings.profile) == ("strict", "developer")
    with pytest.raises(BudgetExceeded, match="'own'"):
        calls.ask()


SMALL = BudgetDefinition(
    name="small", **dict(zip(("limit", "unit", "window"), parse_limit("0.15 USD / day"), strict=True))
)


@pytest.mark.parametrize(
    "budgets",
    ["0.15 USD / day", ["9 USD / day", "0.15 USD / hour"], SMALL, [SMALL, "9 USD / day"],
     [{"name": "small", "limit": "0.15 USD / month", "mode": "strict"}]],
    ids=["text", "texts", "definition", "definition and text", "table"],
)  # fmt: skip
def test_budgets_of_a_test_hold_for_all_its_calls(calls, budgets):
    """They may be given in any form, beside those of the code, and hold inside only."""
    with set_testing(budgets=budgets, mode="strict"):
        calls.spend(10_000)
        with pytest.raises(BudgetExceeded):
            calls.ask()
    calls.ask()


def test_other_settings_are_given_by_name(testing):
    """As with flags of the command line; a name that is none is an error, and nothing has begun then."""
    with set_testing(profile="key-7", timezone="Europe/Berlin", budgets="5 USD / day") as inner:
        assert pipeline().settings.profile == "key-7"
        assert pipeline().settings.budgets[0].window.timezone == "Europe/Berlin"
        for wrong in ({"profil": "x"}, {"budget": "5 USD / day"}, {"ledger": "sqlite:///here.db"}):
            with pytest.raises(TypeError):
                set_testing(**wrong)
        with pytest.raises(BudgetSyntaxError, match=r"did you mean day\?"):
            set_testing(budgets="5 USD / dya")
        with pytest.raises(ConfigurationError, match="strict"):
            set_testing(mode="strct")
        assert pipeline().ledger is inner.ledger


def test_it_nests_and_puts_back_what_was_there(calls):
    """The inner one sees its own calls only; whoever ends the outer one ends both, and in any order nothing is left."""
    before = pipeline()
    outer = set_testing()
    calls.spend(10_000)
    inner = set_testing()
    calls.spend(10)
    set_testing(False)
    calls.spend(20)
    assert (len(outer.calls), len(inner.calls)) == (2, 1)
    set_testing()
    outer.end()
    assert pipeline() is before
    inner.end()
    outer.end()
    set_testing(False)
    assert pipeline() is before


async def test_tasks_and_threads_count_in_it(calls, at_once):
    """It holds for the whole process: tasks, threads, `async with`."""
    async with set_testing(budgets="10 requests / day", mode="strict") as testing:
        answers = await at_once(*(calls.ask_in_task() for _ in range(8)))
        threads = [threading.Thread(target=lambda: answers.append(calls.ask())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert testing.open_holds == 10
        with pytest.raises(BudgetBusy):
            calls.ask()
        for record, _ in answers:
            calls.settle(record)
        assert (testing.open_holds, testing.balance("env: 10 requests / day").spent) == (0, 10)


async def test_a_waiting_budget_waits_for_calls_in_flight_and_for_nothing_else(calls):
    """Room that a call gives back is waited for; where the window is spent for longer, the answer comes at once."""
    with set_testing(max_wait_s=30) as testing, budget("0.15 USD / month", name="b", on_limit="wait"):
        record, _ = calls.ask()
        waiting = asyncio.create_task(calls.ask_in_task())
        await asyncio.to_thread(until, lambda: testing.ledger.writer._line.waiting)
        calls.settle(record, 10)
        second, _ = await waiting
        calls.settle(second, 14_000)
        with pytest.raises(BudgetExceeded):
            calls.ask()


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
async def test_no_call_waits_longer_than_the_test_allows(calls, mode):
    """A budget that waits for minutes refuses at once where a test says so, for threads as for tasks."""
    with set_testing(max_wait_s=0):
        patient = {"on_limit": "wait", "max_wait_timeout_s": 3600, "mode": mode}
        with budget("0.10025 USD / rolling day", name="patient", **patient):
            record, _ = calls.ask()
            if mode == "best_effort":
                calls.settle(record)
            with pytest.raises(BudgetExceeded, match="'patient'"):
                calls.ask()
            with pytest.raises(BudgetExceeded, match="'patient'"):
                await calls.ask_in_task()


def test_balances_by_name(calls, testing):
    """With a window or without, of one value of `each` or all; a name that nobody knows is an error that lists them."""
    with budget("9 USD / rolling day", name="users", each="user"), budget("9 USD", name="run", each="user"):
        for user, tokens in (("ada", 10_000), ("bob", 1_000), ("x=ada", 100)):
            with scope(user=user):
                calls.spend(tokens)
    for name in ("users", "run"):
        assert testing.balance(name, "ada").spent == PRICE
        assert testing.balance(name).spent == testing.spent > PRICE
        assert testing.balance(name, "eve").spent == 0
    with budget("5000 tokens", name="unused") as unused:
        assert testing.balance("unused").spent == unused.spent == 0
    with pytest.raises(KeyError, match=r"'user' is not in force.*: 'users'"):
        testing.balance("user")


def test_clear_forgets_what_was_recorded_and_keeps_the_budgets(calls):
    """One test may have many steps: each begins with nothing spent, also with calls in flight and loaded budgets."""
    with set_testing(budgets="0.15 USD / day", mode="strict") as testing:
        load_budgets([{"name": "loaded", "limit": "0.15 USD / day"}])
        for _ in range(3):
            calls.spend(10_000)
            in_flight, _ = calls.ask(max_output_tokens=10)
            with pytest.raises(BudgetExceeded):
                calls.ask()
            testing.clear()
            assert (testing.events, testing.open_holds, testing.balance("loaded").spent) == ([], 0, 0)
        calls.settle(in_flight, 10)
        assert (len(testing.calls), testing.open_holds, testing.ledger.verify()) == (1, 0, [])


def test_calls_of_an_sdk_count_in_it_whenever_it_was_instrumented(chat, provider, tmp_path):
    """SDKs that were instrumented before count in the test's ledger and in no other."""
    chat(max_tokens=10)
    for _ in range(2):
        with set_testing() as testing, budget("1 USD", name="run") as run:
            chat(max_tokens=1000)
            assert [call.usage["tokens_out"] for call in testing.calls] == [1000]
            assert run.spent == testing.spent == testing.balance("run").spent > 0
    assert len(list(pipeline().ledger.events)) == 1


def test_spans_of_others_count_where_the_process_counts():
    """A provider keeps its processors: they bring foreign calls into the ledger of the test, and then no more."""
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("somebody")

    def foreign_call():
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 10,
        }
        tracer.start_span("chat gpt-4o", attributes=attributes).end()

    try:
        instrument(tracer_provider=provider)
        foreign_call()
        for _ in range(3):
            with set_testing() as testing:
                instrument(tracer_provider=provider)
                foreign_call()
                assert provider.force_flush()
                assert testing.ledger.writer.pending == 0
                assert len(testing.calls) == 1
            foreign_call()
        assert len(pipeline().ledger.tail()) == 4
        processors = provider._active_span_processor._span_processors
        assert sum(isinstance(processor, LedgerSpanProcessor) for processor in processors) == 2
    finally:
        uninstrument()


def test_a_provider_first_seen_in_a_test_counts_in_the_configured_ledger_afterwards():
    """Foreign calls are not lost in the ledger of a test that is over."""
    provider = TracerProvider(shutdown_on_exit=False)
    with set_testing():
        pipeline().attach(provider)
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.output_tokens": 10}
    provider.get_tracer("somebody").start_span("chat", attributes=attributes).end()
    assert len(pipeline().ledger.tail()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_in_a_ledger_of_its_own(calls, testing):
    """What a child by fork records, as of a runner that forks its workers, does not disturb the parent."""
    calls.spend(10)
    pid = os.fork()
    if pid == 0:
        calls.spend(10)
        os._exit(0 if len(testing.calls) == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    calls.spend(10)
    assert len(testing.calls) == 2


def test_nothing_runs_on_after_the_end(calls):
    """A thousand tests leave no thousand threads, also where they look afterwards, or a call ends late."""
    before = set(threading.enumerate())
    for _ in range(5):
        with set_testing() as testing:
            line, record = pipeline(), calls.record()
        record.usage, record.cost = {"tokens_in": 100, "tokens_out": 10_000}, 100_250_000
        line.ledger.writer.put(settlement(record))
        assert testing.spent == PRICE
    until(lambda: set(threading.enumerate()) <= before)


def test_a_ledger_of_a_test_that_nobody_looks_at_any_more_is_gone():
    """What a test recorded takes memory only as long as somebody can look at it; `clear` frees it at once."""
    with set_testing() as testing:
        name = testing.ledger.store._name
        assert tables_of(name)
        testing.clear()
        assert not tables_of(name)
        name = testing.ledger.store._name
    assert tables_of(name)
    del testing
    gc.collect()
    assert not tables_of(name)


def tables_of(name):
    with closing(sqlite3.connect(name, uri=True)) as connection:
        return connection.execute("SELECT name FROM sqlite_master").fetchall()


def test_pytest_does_not_take_it_for_a_test():
    """`Testing` may be imported into a test module, to annotate a fixture."""
    assert Testing.__test__ is False


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_documentation_pass(tmp_path, name):
    """Every test module of docs/testing.md runs as it is written."""
    if "import httpx2" in EXAMPLES[name]:
        pytest.importorskip("httpx2", reason="this version of openai has another HTTP library than the example")
    (tmp_path / name).write_text(EXAMPLES[name])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", ".", name],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
