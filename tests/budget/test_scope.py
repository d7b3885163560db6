"""Who a call belongs to, which budgets count it, and that all of them have to admit it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import openai
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from tollspan.budget import BudgetBusy, BudgetExceeded, BudgetExhausted, budget, is_budgeted, reach, scope
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument, uninstrument

ADA = {"profile": "key-7", "user": "ada", "session": "s1", "run": "r1", "tags": {"feature": "search"}}


# ---- dimensions


def test_the_dimensions_of_a_scope_stand_in_the_ledger(chat, book):
    """Profile, user, session, run and tags of the scopes in force are columns of each event of a call."""
    with scope(**ADA), budget("1 USD", name="any"):
        chat(max_tokens=10)
    hold, commit = book.events
    for event in (hold, commit):
        assert (event.profile_id, event.user_id, event.session_id, event.run_id) == ("key-7", "ada", "s1", "r1")
        assert event.tags == {"feature": "search"}
    assert book.events_for_run("r1") == [hold, commit]


def test_a_team_stands_in_the_ledger_as_a_tag(chat, book):
    """Reports by `tag:team` have it, and a tag of that name comes first."""
    with scope(team="core"):
        chat(max_tokens=10)
        with scope(tags={"team": "edge"}):
            chat(max_tokens=10)
    book.flush()
    assert [event.tags for event in book.events] == [{"team": "core"}, {"team": "edge"}]


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test, service.name=shop"},
        {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other"},
    ],
)
def test_a_budget_on_the_service(calls, monkeypatch, variables):
    """The name of the service is what OpenTelemetry calls it; another service's budget does not count its calls."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with (
        budget("0.15 USD", name="shops", match={"service": "shop*"}) as shops,
        budget("0.15 USD", name="others", match={"service": "other"}) as others,
    ):
        calls.ask()
        assert (shops.held > 0, others.held) == (True, 0)
        with pytest.raises(BudgetBusy, match="'shops'"):
            calls.ask()


def test_the_service_of_a_resource_made_in_code(provider):
    """A resource that the application gave its TracerProvider comes before the environment."""
    instrument(TracerProvider(resource=Resource.create({"service.name": "shop"})))
    try:
        with (
            budget("5 USD", name="each", each="service") as each,
            openai.OpenAI(base_url=provider.openai_url, api_key="local") as client,
        ):
            client.chat.completions.create(
                model="gpt-4o", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
            )
            scopes = pipeline().ledger.balances("each", 0)
    finally:
        uninstrument()
    assert each.spent == 0
    assert [name.split()[-1] for name in scopes] == ["service=shop"]


def test_a_process_without_a_name_has_no_service(calls):
    """Where nobody named the service, a budget on services counts nothing."""
    with budget("0 USD", name="b", each="service"):
        record, _ = calls.ask()
    assert record.limits == ()


def test_inner_scopes_add_and_override():
    """Nested scopes are merged, the inner one wins, and each gives back what it found."""
    with scope(user="ada", tags={"feature": "search"}):
        with scope(user="bob", run=7, tags={"stage": "test"}):
            assert dict(reach().dimensions) == {"user": "bob", "run": "7", "tag:feature": "search", "tag:stage": "test"}
        assert dict(reach().dimensions) == {"user": "ada", "tag:feature": "search"}
    assert dict(reach().dimensions) == {}


def test_a_scope_and_a_budget_may_end_in_any_order():
    """Leaving one of them takes nothing of the other."""
    user, run, limit = scope(user="ada"), scope(run="r1", user="bob"), budget("1 USD", name="b")
    user.__enter__()
    limit.__enter__()
    run.__enter__()
    user.__exit__()
    assert (dict(reach().dimensions), len(reach().entries)) == ({"run": "r1", "user": "bob"}, 1)
    limit.__exit__()
    run.__exit__()
    run.__exit__()
    assert (dict(reach().dimensions), reach().entries) == ({}, ())


async def test_one_scope_object_serves_many_tasks_at_once(at_once):
    """Tasks that enter one object at the same time each get back their own outer dimensions."""
    shared = scope(session="s1")

    async def task(number):
        with scope(user=number):
            async with shared:
                await asyncio.sleep(0.001 * (number % 7))
                inside = dict(reach().dimensions)
            return inside, dict(reach().dimensions)

    done = await at_once(*(task(number) for number in range(50)))
    assert done == [({"user": str(n), "session": "s1"}, {"user": str(n)}) for n in range(50)]


async def test_leaving_a_scope_in_another_task_changes_nothing_there():
    """A scope that is not in force where it is left leaves the dimensions there as they are."""
    entered = scope(user="ada")

    async def elsewhere():
        with scope(user="bob"):
            entered.__exit__()
            return dict(reach().dimensions)

    async def enter():
        entered.__enter__()

    await asyncio.create_task(enter())
    assert await asyncio.create_task(elsewhere()) == {"user": "bob"}


@pytest.fixture
def carried():
    """OpenTelemetry's threading instrumentation, without ours."""
    theirs = pytest.importorskip("opentelemetry.instrumentation.threading", reason="is not installed")
    theirs.ThreadingInstrumentor().instrument()
    yield
    theirs.ThreadingInstrumentor().uninstrument()


@pytest.mark.usefixtures("carried")
@pytest.mark.parametrize("how", ["thread", "executor", "timer"])
def test_budgets_and_scopes_reach_threads_with_opentelemetrys_instrumentation(calls, how):
    """A thread that is started inside a budget spends from it."""
    with scope(user="ada"), budget("1 USD", name="b") as handle:
        if how == "executor":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(calls.spend, 10_000).result()
        else:
            start = threading.Thread if how == "thread" else lambda target, args: threading.Timer(0, target, args)
            thread = start(target=calls.spend, args=(10_000,))
            thread.start()
            thread.join()
    assert handle.spent == Decimal("0.10025")


async def test_budgets_and_scopes_reach_tasks_and_to_thread(calls):
    """asyncio carries them without any instrumentation."""
    with budget("1 USD", name="b") as handle:
        await asyncio.to_thread(calls.spend, 10_000)
        await asyncio.create_task(asyncio.to_thread(calls.spend, 10_000))
    assert handle.spent == Decimal("0.2005")


# ---- matching


@pytest.mark.parametrize(
    ("match", "counts"),
    [
        ({"user": "ada"}, True),
        ({"user": "bob"}, False),
        ({"profile": "key-*", "session": "s?"}, True),
        ({"profile": "key-*", "session": "x?"}, False),
        ({"tag:feature": "search"}, True),
        ({"tag:stage": "*"}, False),
        ({"team": "*"}, False),
        ({"model": "gpt-4*", "provider": "openai", "operation": "chat"}, True),
        ({"model": "claude-*"}, False),
    ],
)
def test_a_budget_counts_only_what_it_matches(calls, match, counts):
    """All globs have to match; a call that is not counted is not refused either."""
    with scope(**ADA), budget("0.15 USD / month", name="b", match=match) as handle:
        calls.spend(10_000)
        assert handle.spent == (Decimal("0.10025") if counts else 0)
        if counts:
            with pytest.raises(BudgetExhausted):
                calls.ask()
        else:
            calls.spend(10_000)


@pytest.mark.parametrize("limit", ["0.15 USD", "0.15 USD / month"])
def test_each_value_has_a_balance_of_its_own(calls, limit):
    """With `each`, also without a window, one user's end stops no other one; the handle shows the user in force."""
    with budget(limit, name="per user", each="user") as handle:
        for user in ("ada", "bob", "eve"):
            with scope(user=user):
                calls.spend(10_000)
                assert handle.spent == Decimal("0.10025")
                with pytest.raises(BudgetExhausted, match=f"user={user}") as refused:
                    calls.ask()
                assert refused.value.scope.endswith(f"user={user}")
        assert handle.spent == 0
        calls.spend(10_000)  # of nobody: counts in no user's balance
        assert handle.spent == 0


@pytest.mark.parametrize("dimension", ["user", "session", "run", "profile", "team", "tag:feature", "model"])
def test_concurrent_first_calls_of_a_value_never_seen_before_are_held_apart(calls, dimension):
    """A race on a balance that does not exist yet admits what fits and no more, at every kind of scope."""
    barrier, admitted = threading.Barrier(50), []

    def first(_):
        barrier.wait()
        with budget("1 USD / month", name="b", each=dimension), suppress(BudgetExceeded):
            admitted.append(calls.ask(dimensions={dimension: "new"}, request_model="new"))

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(first, range(50)))
    assert len(admitted) == 9


# ---- several budgets


def test_all_budgets_must_admit_or_none_is_held(calls):
    """A call that one of its budgets refuses holds nothing in the others; the narrowest one is named."""
    with budget("5 USD / month", name="wide") as wide, budget("0.5 USD", name="middle") as middle:
        with budget("0.05 USD / day", name="narrow", timezone="UTC"), pytest.raises(BudgetExhausted, match="'narrow'"):
            calls.ask()
        assert (wide.held, middle.held) == (0, 0)
        record, admission = calls.ask()
        assert admission.budgets == ("wide", "middle")
        assert (wide.held, middle.held) == (Decimal("0.10025"),) * 2
        calls.settle(record)
        assert (wide.spent, middle.spent) == (Decimal("0.10025"),) * 2


def test_a_spent_budget_is_named_before_one_that_is_only_busy(calls):
    """What waiting cannot help is what the caller must know."""
    with budget("0.15 USD", name="busy"):
        calls.ask()
        with budget("0.01 USD", name="spent"), pytest.raises(BudgetExhausted, match="'spent'"):
            calls.ask()
        with budget("5 USD", name="wide"), pytest.raises(BudgetBusy, match="'busy'"):
            calls.ask()


def test_budgets_in_different_units_are_held_together(calls):
    """One call holds money, tokens and a request at once, and each of the three can refuse it."""
    with budget("1 USD", name="money"), budget("15000 tokens", name="tokens"), budget("2 requests", name="requests"):
        calls.spend(1_000)
        with pytest.raises(BudgetExhausted, match=r"'tokens' \(run=.*\) is spent: 1100 tokens spent"):
            calls.ask(max_output_tokens=14_000)
        calls.spend(1_000)
        with pytest.raises(BudgetExhausted, match=r"'requests' \(run=.*\) is spent: 2 requests spent"):
            calls.ask(max_output_tokens=10)


@pytest.mark.parametrize("first", ["strict", "best_effort"])
def test_one_strict_budget_makes_the_admission_strict(calls, first):
    """Mixed, the call is held in both, and the best_effort one refuses what does not fit as well."""
    second = "best_effort" if first == "strict" else "strict"
    with budget("0.15 USD", name="outer", mode=first) as outer, budget("0.15 USD", name="inner", mode=second) as inner:
        calls.ask()
        assert (outer.held, inner.held) == (Decimal("0.10025"),) * 2
        with pytest.raises(BudgetBusy):
            calls.ask()


def test_a_best_effort_budget_holds_nothing_and_stops_when_it_is_spent(calls, book):
    """best_effort compares what was spent, before each call; it writes no hold, and so may overshoot by what runs."""
    with budget("0.15 USD", name="b", mode="best_effort") as handle:
        first, second = calls.ask()[0], calls.ask()[0]
        assert handle.held == 0
        calls.settle(first)
        calls.settle(second)
        with pytest.raises(BudgetExhausted, match=r"'b' .* is spent: .* held >= "):
            calls.ask()
    assert [event.event_type for event in book.events] == ["commit", "commit"]


# ---- budgets from the environment and from a file


def test_the_environments_budgets_hold_everywhere(monkeypatch, calls):
    """TOLLSPAN_BUDGET needs no code: calls outside any block are counted, for each user apart where it says so."""
    monkeypatch.setenv("TOLLSPAN_MODE", "strict")
    monkeypatch.setenv("TOLLSPAN_BUDGET", "0.5 USD / month; user=*: 0.15 USD / month")
    assert is_budgeted()
    with scope(user="ada"):
        calls.spend(10_000)
        with pytest.raises(BudgetExhausted, match=r"'env: user=\* 0.15 USD / month' \(user=ada\)"):
            calls.ask()
    for _ in range(3):
        calls.spend(10_000)
    with pytest.raises(BudgetExhausted, match=r"'env: 0\.5 USD / month' is spent"):
        calls.ask()


def test_a_files_budgets_hold_everywhere(calls):
    """[[budget]] tables of tollspan.toml, together with budgets in code."""
    Path("tollspan.toml").write_text(
        """
        [[budget]]
        name = "from a file"
        limit = "0.15 USD / month"
        mode = "strict"
        match = { model = "gpt-4*" }
        """,
        encoding="utf-8",
    )
    with budget("5 USD", name="in code") as in_code:
        _, admission = calls.ask()
        assert admission.budgets == ("in code", "from a file")
        with pytest.raises(BudgetBusy, match="'from a file'"):
            calls.ask()
        assert in_code.held == Decimal("0.10025")
    assert calls.ask(request_model="o3")[1].budgets == ()


def test_the_environments_budgets_are_best_effort_unless_told(monkeypatch, calls):
    """A budget that is set from outside does not make an application wait for a disk by itself."""
    monkeypatch.setenv("TOLLSPAN_BUDGET", "0.15 USD / month")
    record, admission = calls.ask()
    assert (record.held, admission.budgets) == (None, ("env: 0.15 USD / month",))


def test_without_budgets_nothing_is_asked(calls):
    """Where no budget is in force the ledger's file is not even made."""
    assert not is_budgeted()
    record, admission = calls.ask()
    assert (record.limits, record.held, admission.budgets) == ((), None, ())
    assert not pipeline().ledger.path.exists()
