"""Figures: what is counted, where and when, and whether the counters equal the log."""

import datetime as dt
import itertools
import statistics
import time
from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollspan.ledger import (
    Balance,
    BudgetDefinition,
    Charge,
    Definition,
    Demand,
    Entry,
    Grant,
    HoldRequest,
    Ledger,
    LedgerEvent,
    Limit,
    QueryError,
    Window,
    dump_definition,
    event_id_for,
    new_call_id,
)
from tollspan.ledger._postings import posting_of
from tollspan.ledger._queries import percentile

CENT = Decimal("0.01")


@pytest.fixture
def ledger():
    with Ledger(None) as opened:
        yield opened


def call(began=None, *, event_type="commit", sequence=0, **fields):
    """An event of a call that began so many epoch seconds ago, or now."""
    call_id = fields.pop("call_id", None) or new_call_id(time.time() if began is None else began)
    fields = {"provider": "openai", "model": "m", "timestamp": began or 0.0, **fields}
    event_id = event_id_for(call_id, event_type, sequence).hex()
    return LedgerEvent(event_type=event_type, event_id=event_id, call_id=call_id.hex(), **fields)


def priced(began=None, **fields):
    """A commit that cost one cent and took 100 ms."""
    defaults = {"cost_actual_usd": CENT, "usage": {"tokens_in": 10, "tokens_out": 5}, "timing": {"total_ms": 100.0}}
    return call(began, **{**defaults, **fields})


def write(ledger, *events):
    for event in events:
        ledger.write_event(event)


def mixed_calls():
    """Six calls that ended (one never sent, two failed), and the events around them that end none."""
    retried = new_call_id()
    return [
        priced(user_id="ada", timing={"total_ms": 100.0}),
        priced(user_id="ada", timing={"total_ms": 300.0}, usage={"tokens_in": 90, "tokens_out": 0}),
        call(user_id="bob", status="error", reason="no price", usage={"tokens_in": 1}),
        call(user_id="bob", status="error", event_type="cancel", http_status=429, timing={"total_ms": 200.0}),
        call(user_id="bob", status="error", event_type="cancel", attempts=0, timing={"total_ms": 9.0}),
        call(call_id=retried, event_type="precheck_hold", cost_est_usd=CENT),
        call(call_id=retried, event_type="retry", sequence=1, cost_est_usd=CENT * 2, estimated=True, status="error"),
        call(call_id=retried, event_type="cancel", sequence=1, status="cancelled", reason="gave up waiting"),
        call(call_id=retried, event_type="wait", timing={"total_ms": 7.0}),
        priced(call_id=retried, user_id="ada", timing={"total_ms": 400.0}),
    ]


def test_overview_counts_each_call_once_and_no_refusal_in_rates_or_latency(ledger):
    """Calls count once whatever events they left; refused ones are counted apart, billed retries only as spend."""
    write(ledger, *mixed_calls())
    seen = ledger.overview()
    assert (seen.requests, seen.refused, seen.errors, seen.rate_limited) == (6, 1, 2, 1)
    assert (seen.error_rate, seen.rate_limited_rate) == (2 / 5, 1 / 5)
    assert (seen.average_ms, seen.p50_ms, seen.p99_ms) == (250.0, 250.0, pytest.approx(397.0))
    assert (seen.cost_usd, seen.estimated_usd, seen.unpriced) == (CENT * 5, CENT * 2, 1)
    assert (seen.tokens_in, seen.tokens_out) == (111, 10)
    of_ada = ledger.overview(user_id="ada")
    assert (of_ada.requests, of_ada.errors, of_ada.cost_usd) == (3, 0, CENT * 3)


def test_an_empty_ledger_has_figures_too(ledger):
    """Nothing was called: counts and costs are 0, times are unknown, and no rate divides by zero."""
    seen = ledger.overview()
    assert (seen.requests, seen.error_rate, seen.cost_usd, seen.p50_ms) == (0, 0.0, Decimal(0), None)
    assert (
        ledger.provider_model_latency() == ledger.daily_model_cost() == ledger.error_rate() == ledger.unpriced() == []
    )
    assert ledger.report() == []
    assert [row.calls for row in ledger.report("")] == [0]


@pytest.mark.parametrize(("interval", "seconds"), [("15M", 900), ("1H", 3600), ("1D", 86400), ("7D", 604800)])
def test_an_interval_reaches_back_from_now(ledger, interval, seconds):
    """A call that began within the interval counts in it, one that began before does not."""
    now = time.time()
    write(ledger, priced(now - seconds + 5), priced(now - seconds - 1), priced(now))
    assert ledger.overview(interval).requests == ledger.overview(interval.lower()).requests == 2
    assert sum(point.requests for point in ledger.time_series(interval)) == 2


def test_time_series_has_every_step_and_the_sums_of_the_overview(ledger):
    """Steps follow each other without a gap, empty ones included, and add up to the overview of the same interval."""
    now = time.time()
    write(ledger, *(priced(now - ago, timing={"total_ms": float(ago)}) for ago in range(0, 3600, 100)))
    points, whole = ledger.time_series("1H"), ledger.overview("1H")
    assert {b.start - a.start for a, b in itertools.pairwise(points)} == {60}
    assert len(points) in (60, 61)
    assert points[0].start % 60 == 0
    assert sum(point.cost_usd for point in points) == whole.cost_usd == CENT * 36
    assert sum(point.tokens_in for point in points) == whole.tokens_in
    empty = next(point for point in points if not point.requests)
    assert (empty.cost_usd, empty.p50_ms, empty.seconds) == (0, None, 60)


def test_latency_by_provider_and_model(ledger):
    """Each provider and model has its own percentiles; the most called comes first, untimed calls are left out."""
    write(
        ledger,
        *(priced(model="slow", timing={"total_ms": float(ms)}) for ms in range(1, 102)),
        priced(provider="anthropic", model="slow", timing={"total_ms": 7.0}),
        priced(model="untimed", timing={}),
    )
    first, second = ledger.provider_model_latency()
    assert (first.provider, first.model, first.requests) == ("openai", "slow", 101)
    assert (first.average_ms, first.p50_ms, first.p95_ms, first.p99_ms) == (51.0, 51.0, 96.0, 100.0)
    assert (second.provider, second.p50_ms, second.p99_ms) == ("anthropic", 7.0, 7.0)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_standard_library(values):
    """Percentiles equal `statistics.quantiles` of the inclusive method, which is type 7 as well."""
    ordered = sorted(values)
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    for fraction, cut in ((0.50, cuts[49]), (0.95, cuts[94]), (0.99, cuts[98])):
        assert percentile(ordered, fraction) == pytest.approx(cut, rel=1e-9, abs=1e-9)


def test_daily_cost_by_model_counts_days_of_the_zone(ledger):
    """A day is a day of the zone asked for, and the dearest model of a day comes first."""
    noon = Window("day", "Asia/Tokyo").start(time.time() - 2 * 86400) + 12 * 3600
    early = noon - 10 * 3600  # 2 in the morning in Tokyo, the evening before in UTC
    write(ledger, priced(noon, model="a"), priced(early, model="b", cost_actual_usd=CENT * 3), call(noon, model="c"))
    tokyo = ledger.daily_model_cost(timezone="Asia/Tokyo")
    date = f"{dt.datetime.fromtimestamp(noon, ZoneInfo('Asia/Tokyo')):%Y-%m-%d}"
    assert [(row.day, row.model, row.cost_usd, row.unpriced) for row in tokyo] == [
        (date, "b", CENT * 3, 0),
        (date, "a", CENT, 0),
        (date, "c", 0, 1),
    ]
    assert len({row.day for row in ledger.daily_model_cost()}) == 2


def test_error_rate_by_model_leaves_out_what_was_never_sent(ledger):
    """Rates are of the calls that were sent; a model whose calls were all refused has none."""
    write(
        ledger,
        priced(),
        call(event_type="cancel", status="error", http_status=429),
        call(event_type="cancel", status="error", http_status=500),
        call(event_type="cancel", status="error", attempts=0),
        priced(model="fine"),
        call(model="refused", event_type="cancel", status="error", attempts=0),
    )
    worst, best = ledger.error_rate()
    assert (worst.model, worst.requests, worst.errors, worst.rate_limited) == ("m", 3, 2, 1)
    assert (worst.error_rate, worst.rate_limited_rate) == (2 / 3, 1 / 3)
    assert (best.model, best.error_rate) == ("fine", 0.0)


DIMENSIONS = {
    "model": {"model": "x"},
    "provider": {"provider": "x"},
    "operation": {"operation": "x"},
    "user": {"user_id": "x"},
    "profile": {"profile_id": "x"},
    "session": {"session_id": "x"},
    "run": {"run_id": "x"},
    "status": {"status": "error"},
    "tag:feature": {"tags": {"feature": "x"}},
    "tag:a.b $\"'": {"tags": {"a.b $\"'": "x"}},
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_report_groups_by_each_dimension(ledger, name):
    """A report has one row for each value of its dimension, None where a call has none."""
    write(ledger, priced(**DIMENSIONS[name], cost_actual_usd=CENT * 2), priced(), priced())
    groups = {row.group[name]: (row.calls, row.cost_usd) for row in ledger.report(name)}
    wanted = "error" if name == "status" else "x"
    assert groups.pop(wanted) == (1, CENT * 2)
    assert list(groups.values()) == [(2, CENT * 2)]


def test_report_has_all_figures(ledger):
    """A row has counts, tokens, and actual and estimated cost apart."""
    estimated = call(cost_est_usd=CENT * 4, estimated=True, status="error")
    cached = priced(usage={"tokens_in": 10, "tokens_out": 5, "tokens_cache_read": 4})
    write(ledger, cached, estimated, call(), call(event_type="cancel", status="error", attempts=0))
    (row,) = ledger.report(by=["provider", "model"])
    assert row.group == {"provider": "openai", "model": "m"}
    assert (row.calls, row.errors, row.refused, row.unpriced) == (4, 1, 1, 1)
    assert (row.tokens_in, row.tokens_out, row.tokens_cache_read) == (10, 5, 4)
    assert (row.cost_actual_usd, row.cost_estimated_usd, row.cost_usd) == (CENT, CENT * 4, CENT * 5)


def test_a_call_counts_where_it_began(ledger):
    """Commit and adjust count on the day on which their call began, as they do in `spend_today` and in budgets."""
    midnight = 1_790_000_000 // 86400 * 86400
    call_id = new_call_id(midnight - 1)
    later = call(event_type="adjust", call_id=call_id, cost_actual_usd=-CENT / 2, timestamp=midnight + 3 * 86400.0)
    write(ledger, priced(call_id=call_id, timestamp=midnight + 30.0), later, priced(midnight))
    days = {row.group["day"]: (row.calls, row.cost_usd) for row in ledger.report("day")}
    assert days == {"2026-09-20": (1, CENT / 2), "2026-09-21": (1, CENT)}
    until_midnight = ledger.report("", until=midnight)[0]
    assert until_midnight.cost_usd == CENT / 2
    assert ledger.balance(("", "", midnight - 86400)).spent == 5_000_000


def test_since_is_included_and_until_is_not(ledger):
    """`since` and `until` are epoch seconds or datetimes; one without a zone is in that of the report."""
    start = dt.datetime(2026, 3, 4, tzinfo=ZoneInfo("Asia/Tokyo"))
    at = start.timestamp()
    write(ledger, priced(at - 1), priced(at), priced(at + 3600))
    assert ledger.report("", since=at, until=at + 3600)[0].calls == 1
    assert ledger.report("", since=start, tz="UTC")[0].calls == 2
    assert ledger.report("", since=start.replace(tzinfo=None), tz="Asia/Tokyo")[0].calls == 2
    assert ledger.report("", until=start.replace(tzinfo=None), tz="Asia/Tokyo")[0].calls == 1


def test_hours_that_the_clock_repeats_are_two(ledger):
    """Where clocks are set back, the repeated hour is two rows, told apart by the offset from UTC; order is by time."""
    first = dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC).timestamp()
    write(ledger, priced(first + 3600), priced(first), priced(first + 7200, cost_actual_usd=CENT * 9))
    hours = [row.group["hour"] for row in ledger.report("hour", tz="Europe/Berlin")]
    assert hours == ["2026-10-25 02:00+0200", "2026-10-25 02:00+0100", "2026-10-25 03:00+0100"]
    assert next(row.group["hour"] for row in ledger.report("hour")) == "2026-10-25 00:00"


def test_the_dearest_group_comes_first(ledger):
    """Without a dimension of time, rows are in order of their cost."""
    write(ledger, priced(model="a"), priced(model="b", cost_actual_usd=CENT * 2), priced(model="c", cost_actual_usd=0))
    assert [row.group["model"] for row in ledger.report()] == ["b", "a", "c"]


def test_a_call_that_got_its_price_later_is_unpriced_no_more(ledger):
    """An adjust with a cost takes its call out of the unpriced ones; one without leaves it there. Free is priced."""
    repriced, still = new_call_id(), new_call_id()
    write(
        ledger,
        call(call_id=repriced, model="new", reason="no price for model 'new'"),
        call(call_id=repriced, model="new", event_type="adjust", cost_actual_usd=CENT),
        call(call_id=still, model="odd", reason="no price for model 'odd'"),
        call(call_id=still, model="odd", event_type="adjust"),
        priced(model="free", cost_actual_usd=Decimal(0)),
    )
    (missing,) = ledger.unpriced()
    assert (missing.provider, missing.model, missing.calls) == ("openai", "odd", 1)
    assert missing.reason == "no price for model 'odd'"
    assert {row.group["model"]: row.unpriced for row in ledger.report()} == {"new": 0, "odd": 1, "free": 0}
    assert ledger.unpriced(since=time.time() + 60) == []


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda x: x.report("modle"), "'modle' is no dimension (did you mean model?); write one of model, provider"),
        (lambda x: x.report("model,tag:"), "or tag:<name>"),
        (lambda x: x.report("day", tz="Europe/Berln"), "did you mean Europe/Berlin?"),
        (lambda x: x.report("model", tz="Nowhere"), "write an IANA name like UTC"),
        (lambda x: x.daily_model_cost(timezone="Nowhere"), "write an IANA name"),
        (lambda x: x.report(since=dt.datetime(2026, 1, 1), tz="Nowhere"), "write an IANA name"),  # noqa: DTZ001 - naive on purpose
        (lambda x: x.overview("2D"), "'2D' is no interval; write one of 15M, 1H, 1D, 7D"),
        (lambda x: x.time_series("day"), "write one of 15M, 1H, 1D, 7D"),
    ],
)
def test_a_wrong_question_says_what_to_write(ledger, ask, text):
    """An unknown dimension, zone or interval is a ValueError that says what to write instead."""
    with pytest.raises(QueryError) as caught:
        ask(ledger)
    assert isinstance(caught.value, ValueError)
    assert text in str(caught.value)


def test_today_is_the_same_in_reports_and_counters(ledger):
    """A report of the UTC day equals `spend_today`, for all calls and for one profile."""
    write(ledger, priced(profile_id="key-7"), *mixed_calls())
    midnight = Window("day", "UTC").start(time.time())
    rows = {row.group["profile"]: row.cost_usd for row in ledger.report("profile", since=midnight)}
    assert float(sum(rows.values())) == ledger.spend_today() == 0.06
    assert float(rows["key-7"]) == ledger.spend_today(scope="profile", profile_id="key-7") == 0.01


def test_an_id_beyond_the_calendar_hides_no_spend(ledger):
    """A call id from elsewhere may say the year 10000: its spend is in the report, on no day."""
    write(ledger, priced(call_id=b"\xfe" * 14, timestamp=time.time()))
    assert [(row.group["day"], row.cost_usd) for row in ledger.report("day", tz="Europe/Berlin")] == [(None, CENT)]


# ---- budgets, holds, and the counters


class FlatCost:
    """Every call costs one cent."""

    def nano(self, output_tokens, /):
        return 10_000_000

    def affordable_tokens(self, nano, /):
        return 1 << 62 if nano >= 10_000_000 else -1


BUDGET = BudgetDefinition(name="b", limit=10**9, unit="USD", window=Window("day", "UTC"), each="user")


def hold_request(call_id, scope, sequence=0):
    """A hold of one cent in today's window of BUDGET."""
    limit = Limit("b", scope, BUDGET.window.start(time.time()), "USD", BUDGET.limit)
    hold_id = event_id_for(call_id, "precheck_hold", sequence)

    def describe(grant):
        charges = (Charge(budget="b", scope=scope, window_start=limit.window_start, amount=grant.amounts[0]),)
        event = call(call_id=call_id, event_type="precheck_hold", sequence=sequence, cost_est_usd=CENT, charges=charges)
        return posting_of(event)

    return HoldRequest(hold_id, Demand(FlatCost(), 1, 1, 1), (limit,), describe=describe, withdraw=lambda: None)


def take_hold(ledger, call_id, scope):
    request = hold_request(call_id, scope)
    assert isinstance(ledger.writer.ask(request).wait(5), Grant)
    return request.hold_id


def charge(scope, amount):
    return Charge(budget="b", scope=scope, window_start=BUDGET.window.start(time.time()), amount=amount)


def test_open_holds_and_balances_of_a_budget(ledger):
    """Holds of calls in flight are counted with what they may cost, and balances are given by scope."""
    assert (ledger.open_holds().calls, ledger.open_holds().usd) == (0, None)
    ledger.writer.define(Definition("b", dump_definition(BUDGET), 5.0))
    take_hold(ledger, new_call_id(), "user=ada")
    take_hold(ledger, new_call_id(), "user=bob")
    write(ledger, priced(charges=(charge("user=bob", 7),)))
    assert (ledger.open_holds().calls, ledger.open_holds().usd) == (2, CENT * 2)
    (known,) = ledger.known_budgets()
    assert (known.definition, known.seen) == (BUDGET, 5.0)
    assert ledger.rival_budgets(0) == []
    today = BUDGET.window.start(time.time())
    held = 10_000_000
    assert ledger.balances("b", today) == {"user=ada": Balance(0, held, 0), "user=bob": Balance(7, held, 0)}
    assert ledger.balances("b", today - 86400) == {}


def test_two_definitions_of_one_name_are_told(ledger):
    """Of each name with two limits at a time both definitions are shown; what was defined long ago is history."""
    other = replace(BUDGET, limit=BUDGET.limit * 2)
    for definition, seen in ((BUDGET, 5.0), (other, 6.0), (replace(BUDGET, name="alone"), 6.0), (BUDGET, 7.0)):
        ledger.writer.put_durable(Definition(definition.name, dump_definition(definition), seen)).wait(5)
    assert [(known.definition, known.seen) for known in ledger.rival_budgets(5.5)] == [(other, 6.0), (BUDGET, 7.0)]
    assert ledger.rival_budgets(6.5) == []
    assert [known.definition for known in ledger.known_budgets()] == [replace(BUDGET, name="alone"), BUDGET]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "cancel", "adjust", "retry", "hold", "hold and commit", "replay", "wait"]),
        st.sampled_from(["user=ada", "user=bob"]),
        st.integers(-(10**6), 10**10),
        st.booleans(),
        st.sampled_from([None, "key-7"]),
    ),
    max_size=12,
)


def apply(ledger, drawn):
    """Write what one drawn call leaves behind."""
    kind, scope, amount, estimated, profile = drawn
    call_id = new_call_id()
    cost = Decimal(amount).scaleb(-9)
    fields = {"charges": (charge(scope, amount),), "estimated": estimated, "profile_id": profile, "call_id": call_id}
    fields |= {"cost_est_usd" if estimated else "cost_actual_usd": cost}
    if kind in ("hold", "hold and commit"):
        hold_id = take_hold(ledger, call_id, f"{scope}/{call_id.hex()}")
        if kind == "hold and commit":
            ledger.writer.put(Entry.of(call(**fields), hold_id))
    elif kind == "replay":
        event = call(**fields)
        write(ledger, event, event)
    else:
        write(ledger, call(event_type=kind, **fields))


@settings(max_examples=40, deadline=None)
@given(EVENTS)
def test_counters_equal_the_log(drawn):
    """Whatever was written, replays included, every balance is what the log says."""
    with Ledger(None) as ledger:
        for each in drawn:
            apply(ledger, each)
        assert ledger.verify() == []


@settings(max_examples=25, deadline=None)
@given(EVENTS)
def test_groups_add_up_to_the_whole(drawn):
    """The rows of a report by any dimensions add up to its total, in counts and to the nano-USD."""
    with Ledger(None) as ledger:
        for each in drawn:
            apply(ledger, each)
        (whole,) = ledger.report("")
        for by in ("profile", "day,hour", "status,model"):
            rows = ledger.report(by)
            assert sum(row.calls for row in rows) == whole.calls
            assert sum(row.unpriced for row in rows) == whole.unpriced
            assert sum(row.cost_usd for row in rows) == whole.cost_usd


@pytest.mark.parametrize(
    ("damage", "kept", "counted"),
    [
        ("UPDATE balance SET spent = spent + 1 WHERE budget = 'b'", Balance(8, 10**7, 0), Balance(7, 10**7, 0)),
        ("UPDATE balance SET estimated = 2 WHERE budget = 'b'", Balance(7, 10**7, 2), Balance(7, 10**7, 0)),
        ("DELETE FROM open_hold", Balance(7, 10**7, 0), Balance(7, 0, 0)),
        ("DELETE FROM balance WHERE budget = 'b'", Balance(), Balance(7, 10**7, 0)),
        ("INSERT INTO balance VALUES ('c', '', 0, 1, 0, 0)", Balance(1, 0, 0), Balance()),
        ("DELETE FROM balance WHERE budget = ''", Balance(), Balance(10**7, 0, 0)),
    ],
)
def test_verify_finds_a_counter_that_is_wrong(ledger, damage, kept, counted):
    """A balance that was changed, lost or made up behind the log's back is named, with both numbers."""
    take_hold(ledger, new_call_id(), "")
    write(ledger, priced(charges=(charge("", 7),)))
    ledger.flush()
    ledger.store.connection.execute(damage)
    (found,) = ledger.verify()
    assert (found.kept, found.counted) == (kept, counted)
