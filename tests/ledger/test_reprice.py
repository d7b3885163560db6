"""Past calls by today's prices: what is recomputed, what stays, and how a run goes on or is taken back."""

import shutil
import signal
import threading
import time
from dataclasses import replace
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from samples import in_threads, script

from tollspan.ledger import (
    Charge,
    Ledger,
    LedgerError,
    LedgerEvent,
    PriceBook,
    PriceFileError,
    QueryError,
    RepriceSelection,
    event_id_for,
    fetched_call_id,
    new_call_id,
    spend_of,
    to_nano,
    to_usd,
)
from tollspan.ledger import _reprice as reprice_module

B, TOKENS = ("b", "", 0), ("b [tokens]", "", 0)
ALL = RepriceSelection()
NOON = 1_790_000_000 // 86_400 * 86_400 + 43_200
USAGE = {"tokens_in": 1000, "tokens_out": 100}


def price_file(path, *, model="gpt-x", **prices):
    """A price file of one model, in USD per million tokens."""
    lines = [f'{key} = "{value}"' for key, value in prices.items()]
    path.write_text("\n".join(["[[price]]", f'model = "{model}"', *lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def dearer(tmp_path):
    """By this file the usual call costs 0.0012 USD."""
    return price_file(tmp_path / "dearer.toml", input_mtok=1, output_mtok=2)


def call(ledger, usd="0.0006", *, began=NOON, charged=None, **fields):
    """A call that was priced by a file, and counts in a budget in USD and one in tokens; gives its id."""
    amount = to_nano(Decimal(usd or 0)) if charged is None else charged
    charges = (
        Charge(budget="b", scope="", window_start=0, amount=amount),
        Charge(budget="b [tokens]", scope="", window_start=0, amount=1100),
    )
    event = LedgerEvent(
        **{
            "event_type": "commit",
            "call_id": new_call_id(began).hex(),
            "timestamp": began + 2,
            "provider": "openai",
            "model": "gpt-x",
            "usage": USAGE,
            "cost_actual_usd": usd and Decimal(usd),
            "cost_source": "override" if usd else "unpriced",
            "charges": charges,
            **fields,
        }
    )
    ledger.append(event)
    return event.call_id


def state(ledger):
    """What balances, reports and the list of the unpriced say; balances of nothing are as good as none."""
    balances = {tuple(row)[:3]: tuple(row)[3:] for row in ledger.store.query("SELECT * FROM balance") if any(row[3:])}
    return balances, ledger.report("day,provider,model,user"), ledger.unpriced(), ledger.daily_model_cost()


def costs(ledger, call_id):
    """What the events of a call add to spend."""
    return [event.spend_usd for event in ledger.events_for_call(call_id)]


# ---- what is repriced


def test_the_difference_is_shown_by_day_and_model_and_nothing_is_written(ledger, dearer):
    """A dry run says what would change, on the days of the zone asked for."""
    call(ledger)
    call(ledger, "0.0012")
    call(ledger, began=NOON + 43_200)
    call(ledger, "0.5", model="other", cost_source="provider")
    offset = ledger.latest_offset()
    found = ledger.reprice(ALL, prices=dearer, dry_run=True)
    first, second, third = found.rows
    assert (first.day, first.model, first.calls, first.changed) == ("2026-09-21", "other", 1, 0)
    assert (second.day, second.provider, second.model) == ("2026-09-21", "openai", "gpt-x")
    assert (second.calls, second.changed, second.old_usd, second.new_usd) == (
        2,
        1,
        Decimal("0.0018"),
        Decimal("0.0024"),
    )
    assert (third.day, third.difference_usd) == ("2026-09-22", Decimal("0.0006"))
    assert found.calls == {"changed": 2, "unchanged": 1, "stated": 1}
    assert (found.run, ledger.latest_offset()) == (None, offset)
    assert {row.day for row in ledger.reprice(ALL, prices=dearer, dry_run=True, tz="Pacific/Auckland").rows} == {
        "2026-09-22"
    }


def test_balances_and_reports_follow_in_the_windows_of_the_call(ledger, dearer):
    """An adjust counts where its call does: in the budget, on the day it began, and in no other unit."""
    call_id = call(ledger)
    today = call(ledger, began=time.time())
    found = ledger.reprice(ALL, prices=dearer)
    assert found.calls == {"changed": 2}
    assert (ledger.balance(B).spent, ledger.balance(TOKENS).spent) == (2_400_000, 2200)
    assert ledger.balance(("", "", NOON // 86_400 * 86_400)).spent == 1_200_000
    assert ledger.spend_today() == 0.0012
    assert [row.cost_usd for row in ledger.report("day")] == [Decimal("0.0012")] * 2
    (row,) = ledger.daily_model_cost()
    assert (row.cost_usd, row.requests, row.tokens_in) == (Decimal("0.0012"), 1, 1000)
    before, adjust = ledger.events_for_call(call_id)
    assert (before.cost_actual_usd, adjust.event_type, adjust.cost_actual_usd) == (
        Decimal("0.0006"), "adjust", Decimal("0.0006"),
    )  # fmt: skip
    assert (adjust.cost_source, adjust.cost_rates) == ("override", {"input_mtok": "1", "output_mtok": "2"})
    assert adjust.reason == f"repriced by override, run {found.run}"
    assert len(ledger.events_for_call(today)) == 2
    assert not ledger.verify()


def test_a_call_without_a_price_gets_its_first(ledger, dearer):
    """What a budget had counted for it was what it held; free is a price too, and what has none stays unpriced."""
    call_id = call(ledger, None, charged=9_000_000, reason="no price")
    free = call(ledger, None, model="llama")
    call(ledger, None, model="unknown-model")
    dearer.write_text(dearer.read_text() + '[[price]]\nmodel = "llama"\nfree = true\n')
    found = ledger.reprice(ALL, prices=dearer)
    assert found.calls == {"first": 2, "unpriced": 1}
    assert sum(row.unpriced_before for row in found.rows) == 3
    assert sum(row.unpriced_after for row in found.rows) == 1
    assert (costs(ledger, call_id), costs(ledger, free)) == ([None, Decimal("0.0012")], [None, Decimal(0)])
    assert ledger.balance(B).spent == 1_200_000
    assert [row.model for row in ledger.unpriced()] == ["unknown-model"]
    assert not ledger.verify()


@pytest.mark.parametrize("source", ["provider", "span", None])
def test_a_stated_cost_stays_unless_it_is_asked_for(ledger, dearer, source):
    """What the provider, a foreign span or the application itself has said is not computed by us."""
    call_id = call(ledger, "0.5", cost_source=source)
    assert ledger.reprice(ALL, prices=dearer).calls == {"stated": 1}
    assert costs(ledger, call_id) == [Decimal("0.5")]
    assert ledger.reprice(RepriceSelection(stated=True), prices=dearer).calls == {"changed": 1}
    assert sum(costs(ledger, call_id)) == Decimal("0.0012")


def test_a_call_that_somebody_corrected_stays_unless_it_is_asked_for(ledger, dearer):
    """People know more than tables; and what they corrected, they are told of."""
    call_id = call(ledger)
    ledger.adjust(call_id, Decimal("0.7"), reason="the invoice")
    assert ledger.reprice(ALL, prices=dearer).calls == {"corrected": 1}
    assert sum(costs(ledger, call_id)) == Decimal("0.7")
    assert ledger.reprice(RepriceSelection(corrected=True), prices=dearer).calls == {"changed": 1}
    assert sum(costs(ledger, call_id)) == Decimal("0.0012")
    assert ledger.balance(B).spent == 1_200_000


def test_what_nobody_can_compute_stays(ledger, dearer):
    """Estimates of calls without usage, attempts that may have been billed, and calls whose price is gone."""
    estimate = {"cost_actual_usd": None, "cost_est_usd": Decimal("0.3"), "estimated": True, "cost_source": "estimate"}
    call(ledger, usage={}, **estimate)
    call(ledger, model="gone")
    call(ledger, "0", usage={}, cost_source="free")
    retried = call(ledger)
    ledger.append(LedgerEvent(event_type="retry", call_id=retried, estimated=True, cost_est_usd=Decimal("0.2")))
    found = ledger.reprice(ALL, prices=dearer)
    assert found.calls == {"unknown_usage": 1, "no_price": 1, "unchanged": 1, "changed": 1}
    assert sum(costs(ledger, retried)) == Decimal("0.2012")
    assert sum(row.new_usd for row in found.rows) == Decimal("0.5018")


def test_an_estimate_with_usage_stays_an_estimate(ledger, dearer):
    """Its adjust is one too, so that balances still tell how much of them is estimated."""
    call(ledger, cost_actual_usd=None, cost_est_usd=Decimal("0.0006"), estimated=True)
    assert ledger.reprice(ALL, prices=dearer).calls == {"changed": 1}
    assert (ledger.balance(B).spent, ledger.balance(B).estimated) == (1_200_000, 1_200_000)
    (row,) = ledger.report()
    assert (row.cost_estimated_usd, row.cost_actual_usd) == (Decimal("0.0012"), 0)


def test_the_answer_that_was_fetched_is_what_is_repriced(ledger, dearer):
    """Its adjust tells the usage; the estimate that it took back is no correction by people."""
    estimate = {"cost_actual_usd": None, "cost_est_usd": Decimal("0.3"), "estimated": True, "cost_source": "estimate"}
    call_id = call(ledger, usage={}, response_id="resp_1", **estimate)
    fetched = fetched_call_id("resp_1", NOON + 5)
    commit = replace(
        ledger.events_for_call(call(ledger, began=NOON + 86_400))[0],
        event_id=event_id_for(fetched, "commit").hex(),
        call_id=fetched.hex(),
        timestamp=float(NOON + 5),
        response_id="resp_1",
    )
    ledger.write_event(commit)
    ledger.flush()
    assert sum(costs(ledger, call_id)) == Decimal("0.0006")
    assert ledger.reprice(RepriceSelection(until=NOON + 60), prices=dearer).calls == {"changed": 1}
    assert sum(costs(ledger, call_id)) == Decimal("0.0012")
    assert ledger.balance(B).spent == 1_800_000


def test_other_models_behind_a_request_and_details_have_their_own_prices(ledger, dearer):
    """Usage under `unit@model` costs what that model does, and a `unit:detail` is one of its unit."""
    dearer.write_text(dearer.read_text() + 'images_kcount = 10\n[[price]]\nmodel = "advisor"\ninput_mtok = 1000\n')
    call_id = call(ledger, usage={**USAGE, "tokens_in@advisor": 10, "images": 2, "images:high": 1})
    assert ledger.reprice(ALL, prices=dearer).calls == {"changed": 1}
    assert sum(costs(ledger, call_id)) == Decimal("0.0012") + Decimal("0.01") + Decimal("0.02")
    other = call(ledger, usage={**USAGE, "tokens_in@nobody": 10})
    assert ledger.reprice(ALL, prices=dearer).calls == {"unchanged": 1, "no_price": 1}
    assert costs(ledger, other) == [Decimal("0.0006")]


def test_a_call_keeps_its_service_tier(ledger):
    """It stands in the row, or else its rates tell it; a call of which neither tells anything is a standard one."""
    book, about = PriceBook(), {"provider": "openai", "model": "o4-mini"}
    at = NOON + 50 * 86_400  # genai-prices lists the tiers of a model from a day on
    batch, standard = (book.resolve(**about, at=at, service_tier=tier) for tier in ("batch", None))
    assert batch.rates() != standard.rates()
    source = standard.source
    right = str(to_usd(batch.cost(USAGE)))
    recorded = call(
        ledger, "0.5", model="o4-mini", began=at, cost_source="genai-prices:0.1", cost_rates={"service_tier": "batch"}
    )
    told = call(ledger, right, model="o4-mini", began=at, cost_source=source, cost_rates=batch.rates() | {"flags": []})
    silent = call(
        ledger, right, model="o4-mini", began=at, cost_source="genai-prices:0.1", cost_rates={"input_mtok": "77"}
    )
    assert ledger.reprice(ALL).calls == {"changed": 2, "unchanged": 1}
    assert sum(costs(ledger, recorded)) == Decimal(right) == sum(costs(ledger, told))
    assert sum(costs(ledger, silent)) == to_usd(standard.cost(USAGE)) == 2 * Decimal(right)
    adjust = ledger.events_for_call(recorded)[-1]
    assert adjust.cost_rates == {**batch.rates(), "service_tier": "batch"}
    assert ledger.reprice(ALL).calls == {"unchanged": 3}


def test_the_price_is_that_of_the_calls_start(ledger):
    """Prices known today have a history: a call of before a change costs what it cost then."""
    book, about = PriceBook(), {"provider": "deepseek", "model": "deepseek-chat"}
    dear, cheap = (book.resolve(**about, at=NOON + hours * 3600) for hours in (0, 6))
    early, late = (call(ledger, "0.5", **about, began=NOON + hours * 3600) for hours in (0, 6))
    ledger.reprice(ALL)
    assert sum(costs(ledger, early)) == to_usd(dear.cost(USAGE))
    assert sum(costs(ledger, late)) == to_usd(cheap.cost(USAGE))


def test_only_what_is_selected(ledger, dearer):
    """By the start of the call, a glob of the model and the provider under any of its names."""
    old = call(ledger, began=NOON - 86_400)
    wanted = call(ledger, provider="azure.ai.openai")
    others = [call(ledger, model="gpt-y", provider="azure"), call(ledger), call(ledger, began=NOON + 86_400)]
    chosen = RepriceSelection(since=NOON, until=NOON + 60, model="GPT-x*", provider="azure")
    assert ledger.reprice(chosen, prices=dearer).calls == {"changed": 1}
    assert len(ledger.events_for_call(wanted)) == 2
    assert [len(ledger.events_for_call(each)) for each in (old, *others)] == [1, 1, 1, 1]


def test_wrong_files_and_zones_are_told_before_anything_is_written(ledger, tmp_path):
    """The text names the file and what is wrong with it."""
    call(ledger)
    (tmp_path / "wrong.toml").write_text("[[price]]\nmodel = 'x'\ninput_mtok = 'much'\n")
    with pytest.raises(PriceFileError, match=r"wrong.toml.*input_mtok.*must be a price in USD"):
        ledger.reprice(ALL, prices=tmp_path / "wrong.toml")
    with pytest.raises(PriceFileError, match=r"missing.toml: cannot be read"):
        ledger.reprice(ALL, prices=tmp_path / "missing.toml")
    with pytest.raises(QueryError, match="Mars"):
        ledger.reprice(ALL, tz="Mars/Olympus")
    assert ledger.latest_offset() == 1


# ---- runs


def test_a_run_that_is_repeated_writes_nothing(ledger, dearer):
    """The second one finds every cost right, and has no name because it wrote nothing."""
    call(ledger)
    first = ledger.reprice(ALL, prices=dearer)
    offset = ledger.latest_offset()
    second = ledger.reprice(ALL, prices=dearer)
    assert (second.calls, second.run, ledger.latest_offset()) == ({"unchanged": 1}, None, offset)
    assert first.run


class _Stop(Exception):  # noqa: N818 - an interruption
    pass


def test_an_interrupted_run_goes_on_under_its_name(ledger, dearer, tmp_path, monkeypatch):
    """What the first part has written stays; both parts together are what one run would have been."""
    monkeypatch.setattr(reprice_module, "_PAGE", 4)
    for n in range(20):
        call(ledger, began=NOON + n)
    ledger.snapshot_to(tmp_path / "whole.db")

    def stop(done, total):
        assert total == 20
        if done >= 8:
            raise _Stop

    with pytest.raises(_Stop):
        ledger.reprice(ALL, prices=dearer, progress=stop)
    assert 0 < ledger.latest_offset() - 20 < 20
    assert not ledger.verify()
    second = ledger.reprice(ALL, prices=dearer)
    assert second.resumed
    with Ledger(tmp_path / "whole.db") as whole:
        whole.reprice(ALL, prices=dearer)
        assert state(whole) == state(ledger)
    assert all(event.records == ({"run": second.run},) for event in ledger.tail(20))
    assert ledger.undo("reprice", second.run).now == 20
    third = ledger.reprice(ALL, prices=dearer)
    assert third.run != second.run
    assert not third.resumed


def test_a_run_that_was_interrupted_at_its_very_end_still_tells_its_name(ledger, dearer):
    """Nothing is left to write, but without the name it could not be taken back."""
    call(ledger)

    def stop(*_):
        raise _Stop

    with pytest.raises(_Stop):
        ledger.reprice(ALL, prices=dearer, progress=stop)
    found = ledger.reprice(ALL, prices=dearer)
    assert (found.calls, found.resumed) == ({"unchanged": 1}, True)
    assert ledger.undo("reprice", found.run).now == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from tollspan.ledger import Ledger, RepriceSelection, _reprice
_reprice._PAGE = 4
pages = 0
def progress(done, total):
    global pages
    pages += 1
    if pages == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
with Ledger(sys.argv[1]) as ledger:
    ledger.reprice(RepriceSelection(), prices=Path(sys.argv[2]), progress=progress)
"""


def test_a_killed_run_and_its_repetition_are_as_one_run(tmp_path, dearer):
    """SIGKILL after any page leaves a ledger that is right, and the next run does the rest."""
    path, whole = tmp_path / "killed.db", tmp_path / "whole.db"
    with Ledger(path) as ledger:
        for n in range(12):
            call(ledger, began=NOON + n)
    shutil.copy(path, whole)
    for pages in (1, 2, 3):
        process = script(KILLED, path, dearer, pages)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        with Ledger(path) as ledger:
            assert not ledger.verify()
    with Ledger(path) as ledger, Ledger(whole) as other:
        ledger.reprice(ALL, prices=dearer)
        other.reprice(ALL, prices=dearer)
        assert state(ledger) == state(other)
        assert ledger.latest_offset() == other.latest_offset() == 24


def test_a_page_never_cuts_a_call(ledger, dearer, monkeypatch):
    """A call whose events do not fit on a page is read with the next one, whole."""
    monkeypatch.setattr(reprice_module, "_PAGE", 4)
    for n in range(4):
        call_id = call(ledger, began=NOON + n)
        ledger.append(LedgerEvent(event_type="retry", call_id=call_id, estimated=True, cost_est_usd=Decimal(1)))
    assert ledger.reprice(ALL, prices=dearer).calls == {"changed": 4}
    assert ledger.reprice(ALL, prices=dearer).calls == {"unchanged": 4}


def test_a_run_is_taken_back(ledger, dearer):
    """All is as before, the unpriced calls too; again, it does nothing."""
    call(ledger)
    call(ledger, None, charged=9_000_000)
    call(ledger, began=time.time(), user_id="ada")
    before = state(ledger)
    run = ledger.reprice(ALL, prices=dearer).run
    assert state(ledger) != before
    undone = ledger.undo("reprice", run)
    assert (undone.now, undone.before, undone.blocked, undone.conflicts) == (3, 0, 0, 0)
    assert state(ledger) == before
    assert not ledger.verify()
    offset = ledger.latest_offset()
    again = ledger.undo("reprice", run)
    assert (again.now, again.before, ledger.latest_offset()) == (0, 3, offset)
    assert ledger.reprice(ALL, prices=dearer).calls == {"changed": 2, "first": 1}


def test_a_price_that_was_taken_back_can_be_given_by_hand(ledger, dearer):
    """The call is unpriced again, and not free: to say that it is changes it."""
    call_id = call(ledger, None)
    ledger.undo("reprice", ledger.reprice(ALL, prices=dearer).run)
    assert spend_of(ledger.events_for_call(call_id)) is None
    assert ledger.adjust(call_id, Decimal(0), reason="a free trial")
    assert (ledger.unpriced(), spend_of(ledger.events_for_call(call_id))) == ([], 0)


def test_what_was_corrected_since_is_not_taken_back(ledger, dearer, tmp_path):
    """The later correction built on the run: it has to be taken back first, and then the run can be."""
    call_id, other = call(ledger), call(ledger)
    first = ledger.reprice(ALL, prices=dearer).run
    ledger.adjust(other, Decimal("0.7"), reason="the invoice")
    dearest = price_file(tmp_path / "dearest.toml", input_mtok=5)
    dearest.write_text(dearest.read_text() + "output_mtok = 5\n")
    second = ledger.reprice(ALL, prices=dearest).run
    undone = ledger.undo("reprice", first)
    assert (undone.now, undone.blocked) == (0, 2)
    assert ledger.undo("reprice", second).now == 1
    undone = ledger.undo("reprice", first)
    assert (undone.now, undone.blocked) == (1, 1)
    assert (sum(costs(ledger, call_id)), sum(costs(ledger, other))) == (Decimal("0.0006"), Decimal("0.7"))


@pytest.mark.parametrize("run", ["20260921-120000-000", "yesterday", "", "00000000-000000-000"])
def test_a_run_that_is_not_there_is_told_with_those_that_are(ledger, dearer, run):
    """A typing error, or a run of another command."""
    with pytest.raises(LedgerError, match="it has had no run of `tollspan reprice`"):
        ledger.undo("reprice", run)
    call(ledger)
    known = ledger.reprice(ALL, prices=dearer).run
    with pytest.raises(LedgerError, match=f"knows no run {run!r} of `tollspan reprice`: the last ones are {known}"):
        ledger.undo("reprice", run)
    with pytest.raises(LedgerError, match="it has had no run of `tollspan reconcile`"):
        ledger.undo("reconcile", known)


def test_a_correction_at_the_same_moment_wins_once(ledger, dearer, monkeypatch):
    """Whoever is quicker has the id; the other one is told, and nothing is counted twice."""
    call_id = call(ledger)
    call(ledger)
    write = reprice_module.write_adjusts

    def after_somebody(store, writer, adjusts):
        ledger.adjust(call_id, Decimal("0.7"), reason="the invoice")
        return write(store, writer, adjusts)

    monkeypatch.setattr(reprice_module, "write_adjusts", after_somebody)
    found = ledger.reprice(ALL, prices=dearer)
    assert found.calls == {"conflict": 1, "changed": 1}
    assert sum(row.new_usd for row in found.rows) == Decimal("0.0018")
    assert sum(costs(ledger, call_id)) == Decimal("0.7")
    assert not ledger.verify()


def test_two_at_once_are_as_one(ledger, dearer, monkeypatch):
    """The same command in two processes at one moment: one run, and each call is corrected once."""
    monkeypatch.setattr(reprice_module, "_PAGE", 4)
    for n in range(40):
        call(ledger, began=NOON + n)
    with Ledger(ledger.path) as other:
        found = in_threads(*(partial(each.reprice, ALL, prices=dearer) for each in (ledger, other)))
    assert ledger.latest_offset() == 80
    assert ledger.balance(B).spent == 40 * 1_200_000
    assert not ledger.verify()
    assert sum(ledger.undo("reprice", run).now for run in {each.run for each in found if each.run}) == 40


def test_others_may_write_meanwhile(ledger, dearer, tmp_path, monkeypatch):
    """Another connection appends calls while pages are repriced; all balances are right in the end."""
    monkeypatch.setattr(reprice_module, "_PAGE", 8)
    for n in range(80):
        call(ledger, began=NOON + n)
    started = threading.Event()

    def append():
        with Ledger(ledger.path) as other:
            for n in range(80):
                call(other, began=NOON + n)
                started.set()

    thread = threading.Thread(target=append)
    thread.start()
    started.wait(20)
    ledger.reprice(ALL, prices=dearer)
    thread.join(60)
    assert not ledger.verify()
    ledger.reprice(ALL, prices=dearer)
    assert ledger.balance(B).spent == 160 * 1_200_000
    assert not ledger.verify()


def test_a_call_that_was_corrected_as_often_as_it_can_be_is_told(ledger, dearer):
    """There are ids for 256 adjusts."""
    call_id = call(ledger)
    like = ledger.events_for_call(call_id)[0]
    full = {"event_type": "adjust", "call_id": call_id, "category": "reprice", "provider": like.provider}
    last = event_id_for(bytes.fromhex(call_id), "adjust", 255).hex()
    ledger.append(LedgerEvent(**full, event_id=last, model=like.model, cost_actual_usd=Decimal("0.1")))
    assert ledger.reprice(ALL, prices=dearer).calls == {"conflict": 1}
    assert sum(costs(ledger, call_id)) == Decimal("0.1006")


# ---- any order of everything


class Repricing(RuleBasedStateMachine):
    """Calls, runs by several price files, corrections by hand, and runs taken back, in any order."""

    @initialize()
    def begin(self):
        self.ledger = Ledger(None)
        self.files = _FILES
        self.done = []
        self.ids = []

    @rule(
        usd=st.none() | st.integers(0, 10**9).map(to_usd),
        model=st.sampled_from(["a", "b", "other"]),
        source=st.sampled_from(["override", "provider"]),
        usage=st.sampled_from([{}, USAGE, {"tokens_out": 7}]),
        days=st.integers(0, 2),
    )
    def ends(self, usd, model, source, usage, days):
        estimated = days == 1
        field = "cost_est_usd" if estimated else "cost_actual_usd"
        cost = {"cost_actual_usd": None, field: usd, "estimated": estimated and usd is not None}
        source = source if usd is not None else "unpriced"
        at = time.time() - days * 86_400
        amount = to_nano(usd or 0)
        self.ids.append(
            call(self.ledger, None, charged=amount, began=at, model=model, cost_source=source, usage=usage, **cost)
        )
        self.done.clear()  # what runs have written to before is not what it was

    @rule(number=st.integers(0, 2), stated=st.booleans(), corrected=st.booleans())
    def reprice(self, number, stated, corrected):
        before = state(self.ledger)
        selection = RepriceSelection(stated=stated, corrected=corrected)
        found = self.ledger.reprice(selection, prices=self.files[number])
        if found.run is None:
            assert state(self.ledger) == before
        else:
            self.done.append((found.run, before))
        again = self.ledger.reprice(selection, prices=self.files[number])
        assert again.run is None
        assert {*again.calls} <= {*reprice_module.Verdict.__args__} - {"changed", "first", "conflict"}

    @precondition(lambda self: self.done)
    @rule()
    def take_back(self):
        run, before = self.done.pop()
        assert self.ledger.undo("reprice", run).now
        assert state(self.ledger) == before
        assert self.ledger.undo("reprice", run).now == 0

    @precondition(lambda self: self.ids)
    @rule(usd=st.integers(0, 10**9).map(to_usd), data=st.data())
    def correct(self, usd, data):
        call_id = data.draw(st.sampled_from(self.ids))
        if self.ledger.adjust(call_id, usd, reason="the invoice"):
            self.done.clear()
        assert sum(cost or 0 for cost in costs(self.ledger, call_id)) == usd

    @invariant()
    def counters_equal_the_log(self):
        assert not self.ledger.verify()

    def teardown(self):
        if hasattr(self, "ledger"):
            self.ledger.close()


_FILES = []


@pytest.fixture(scope="module", autouse=True)
def _files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prices")
    for number in range(3):
        path = folder / f"{number}.toml"
        path.write_text(
            f'[[price]]\nmodel = "a"\ninput_mtok = {number}\noutput_mtok = {number}\n'
            + ('[[price]]\nmodel = "b"\nfree = true\n' if number == 2 else "")
        )
        _FILES.append(path)
    yield
    _FILES.clear()


TestRepricing = Repricing.TestCase
TestRepricing.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
