"""`tollspan adjust`: what a call has cost is corrected, and history stays."""

import json
import shlex
import time
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console._cli import cli
from tollspan.ledger import Charge, Ledger, LedgerEvent, new_call_id

TRACE = "ab" * 16
T = 1_790_000_000.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path):
    with Ledger(path) as opened:
        yield opened


def call(ledger, usd="0.10", *, estimated=False, began=None, **fields):
    """A call that cost so much in budget b, stored; gives its id."""
    cost = {"cost_est_usd" if estimated else "cost_actual_usd": usd and Decimal(usd)}
    nano = int(Decimal(usd or 0) * 10**9)
    charges = (
        Charge(budget="b", scope="user=ada", window_start=0, amount=nano),
        Charge(budget="b [tokens]", scope="", window_start=0, amount=40),
    )
    event = LedgerEvent(
        **{
            "event_type": "commit",
            "call_id": new_call_id(time.time() if began is None else began).hex(),
            "provider": "openai",
            "model": "gpt-4o",
            "charges": charges,
            "estimated": estimated,
            **cost,
            **fields,
        }
    )
    ledger.append(event)
    return event.call_id


def run(command):
    return CliRunner().invoke(cli, ["adjust", *shlex.split(command)])


def refused(command):
    """What a command says that ends with 2, without a traceback."""
    result = run(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def spent(ledger):
    """Spend in budget b, in USD and in tokens."""
    return ledger.balance(("b", "user=ada", 0)).spent, ledger.balance(("b [tokens]", "", 0)).spent


def test_the_call_is_shown_before_and_after(book):
    """The estimate gives way to what was paid, in every budget in USD; the reason stands in the ledger."""
    call_id = call(book, "0.10", estimated=True)
    result = run(f"{call_id} 0.03 --reason 'the invoice'")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"call {call_id} of ")
    assert lines[0].endswith(" UTC, openai/gpt-4o")
    assert lines[1:] == [
        "before: ~$0.1000",
        "after:  $0.0300",
        "budget 'b' (user=ada): -$0.0700 spent",
        "2 events added, with the reason; in force everywhere within a second",
    ]
    assert spent(book) == (30_000_000, 40)
    assert {event.reason for event in book.events_for_call(call_id) if event.event_type == "adjust"} == {"the invoice"}
    assert not book.verify()


@pytest.mark.parametrize("cost", ["0.03", "$0.03", "0.03 USD", "'$ .03'", "0.030"])
def test_a_cost_is_written_as_people_write_usd(book, cost):
    """With and without the sign or the unit."""
    call_id = call(book)
    assert run(f"{call_id} {cost if cost[0] == chr(39) else repr(cost)} --reason x").exit_code == 0
    assert spent(book)[0] == 30_000_000


@pytest.mark.parametrize("digits", [8, 13, 27])
def test_the_first_digits_of_an_id_are_enough_where_they_are_unique(book, digits):
    """As with commits of git; a call of another time begins otherwise."""
    call_id, other = call(book, began=T), call(book, began=T + 86_400)
    assert run(f"{call_id[:digits].upper()} 0.03 --reason x").exit_code == 0
    assert [len(book.events_for_call(each)) for each in (call_id, other)] == [2, 1]


def test_digits_that_fit_more_than_one_call_are_refused_with_the_calls(book):
    """Each that could be meant is told with its model and its cost, up to five."""
    ids = sorted(call(book, began=T) for _ in range(7))
    said = refused(f"{ids[0][:8]} 0.03 --reason x")
    assert f"more than one call whose id begins with {ids[0][:8]}: {ids[0]} of " in said
    assert (ids[4] in said, ids[5] in said, "; ...; write the id" in said) == (True, False, True)
    assert "openai/gpt-4o, $0.1000" in said
    assert spent(book)[0] == 700_000_000


def test_a_trace_with_one_call_names_it_and_one_with_two_does_not(book):
    """Who looks at a trace has its id; and who looks at an event has that, which is as long."""
    call_id = call(book, trace_id=TRACE)
    assert run(f"{TRACE} 0.03 --reason x").exit_code == 0
    assert run(f"{book.events_for_call(call_id)[0].event_id} 0.04 --reason x").exit_code == 0
    assert spent(book)[0] == 40_000_000
    call(book, trace_id=TRACE)
    assert f"more than one call in the trace {TRACE}" in refused(f"{TRACE} 0.05 --reason x")
    assert "no call in the trace" in refused(f"{'cd' * 16} 0.05 --reason x")


def test_a_cost_that_is_right_already_adds_nothing(book):
    """To run it twice is harmless."""
    call_id = call(book)
    run(f"{call_id} 0.03 --reason x")
    result = run(f"{call_id} 0.03 --reason x")
    assert (result.exit_code, len(book.events_for_call(call_id))) == (0, 2)
    assert result.stdout.endswith("nothing to correct: it costs that already\n")


def test_a_call_without_a_price_gets_one(book):
    """Before it was unpriced, not free."""
    call_id = call(book, None, reason="no price for it")
    assert "before: unpriced\nafter:  $0.0300\n" in run(f"{call_id} 0.03 --reason x").stdout
    assert book.unpriced() == []


def test_in_json(book):
    """Costs are exact texts, changes by budget and scope, and the events that were added."""
    call_id = call(book, "0.10", estimated=True)
    data = json.loads(run(f"{call_id} 0.03 --reason x --json").stdout)
    assert data["before"] == {"cost": "0.100000000", "cost_estimated": "0.100000000"}
    assert data["after"] == {"cost": "0.030000000", "cost_estimated": "0.000000000"}
    assert data["budgets"] == [{"name": "b", "scope": "user=ada", "spent": "-0.070000000"}]
    assert (data["call_id"], len(data["events"])) == (call_id, 2)
    assert set(data["events"]) < {event.event_id for event in book.events_for_call(call_id)}


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        ("-- ID -1", "a cost is 0 or more"),
        ("ID free", "'free' is no cost in USD; write what the call cost in all, like 0.0123"),
        ("ID nan", "is no cost in USD"),
        ("ID 1e3", "is no cost in USD"),
        ("ID '5 EUR'", "is no cost in USD"),
        ("ID 0.0000000001", "is not a multiple of 0.000000001 USD; round it, like 0"),
        ("ID 10000000000", "more than a ledger can count"),
        ("1234567 5", "is no id of a call: write its hexadecimal digits, at least the first 8"),
        ("not-an-id 5", "is no id of a call"),
        ("00000000ff 5", "no call whose id begins with 00000000ff: it is another ledger's, was pruned"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(book, cost, said):
    """Status 2, one sentence, and nothing is stored."""
    call_id = call(book)
    assert said in refused(f"--reason x {cost.replace('ID', call_id)}")
    assert len(book.events_for_call(call_id)) == 1


def test_a_reason_is_needed(book):
    """Whoever reads the ledger later wants to know why."""
    call_id = call(book)
    assert "--reason" in refused(f"{call_id} 5")
    assert "where the cost is from" in refused(f"{call_id} 5 --reason ' '")


def test_a_call_that_cost_nothing_or_runs_is_refused_with_the_reason(book):
    """A cancelled call was not billed, and one in flight has no cost yet."""
    cancelled, running = new_call_id().hex(), new_call_id().hex()
    book.append(LedgerEvent(event_type="cancel", call_id=cancelled))
    book.append(LedgerEvent(event_type="precheck_hold", call_id=running))
    assert "it was refused or cancelled" in refused(f"{cancelled} 5 --reason x")
    assert "it has not ended" in refused(f"{running} 5 --reason x")


def test_it_makes_no_ledger(path):
    """Without a ledger there is nothing to correct."""
    assert "no ledger at" in refused("0123456789 5 --reason x")
    assert list(path.parent.iterdir()) == []
