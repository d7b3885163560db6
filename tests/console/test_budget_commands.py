"""`tollspan budget set`, `raise`, `remove` and `status`: limits that change while processes run."""

import datetime as dt
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tollspan.budget import CallIntent, admit, load_budgets
from tollspan.console import LocalProvider
from tollspan.console._cli import cli
from tollspan.exporter import CallRecord, pipeline
from tollspan.instrumentation import uninstrument
from tollspan.ledger import (
    BudgetDefinition,
    BudgetOverride,
    Charge,
    Definition,
    Demand,
    Grant,
    HoldRequest,
    Ledger,
    LedgerEvent,
    Limit,
    Posting,
    Window,
    charge_of,
    dump_definition,
    event_id_for,
    new_call_id,
    parse_limit,
)

USD = 10**9
WITHIN_S = 1.0


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the configured ledger is to be, or is; 80 columns to look at it."""
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path):
    """The ledger, as a process that runs and has made a call has it."""
    with Ledger(path) as opened:
        opened.append(LedgerEvent(event_type="commit"))
        yield opened


def run(command):
    """A command line in this process."""
    return CliRunner().invoke(cli, shlex.split(command))


def done(command):
    """What a command prints that ends well."""
    result = run(command)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(command):
    """What a command says that ends with 2: on stderr, as one error without a traceback."""
    result = run(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def in_json(command):
    return json.loads(done(f"{command} --json"))


def status(name):
    """What `budget status --json` tells of a budget; None where it does not know it."""
    budgets = json.loads(run("budget status --json").stdout)["budgets"]
    return next((budget for budget in budgets if budget["name"] == name), None)


def used(ledger, name, limit, **options):
    """A budget as a process leaves it in the ledger when it first uses it; gives its definition."""
    amount, unit, window = parse_limit(limit, options.pop("timezone", "UTC"))
    budget = BudgetDefinition(name=name, limit=amount, unit=unit, window=window, **options)
    ledger.writer.define(Definition(name, dump_definition(budget), time.time()))
    assert ledger.flush()
    return budget


def override_of(ledger, name):
    """The override of a name as it is stored; None where there is none."""
    with Ledger(ledger.path) as stored:
        return next((override for override in stored.overrides if override.name == name), None)


def within_a_second(condition):
    """Whether a condition comes true within the second that is promised."""
    end = time.monotonic() + WITHIN_S
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return met


# ---- set


def test_a_name_that_nobody_uses_becomes_a_budget_of_its_own(book):
    """It has all that was written, and the answer says what that comes to."""
    text = done(
        'budget set ops "10 USD / rolling day" --match user=ada --match "model=gpt-4*" --each run --mode best_effort '
        "--on-limit fallback --fallback-model gpt-5-mini --warn-at 50% --warn-at 0.8 --timezone Asia/Tokyo "
        "--output-bound 4096 --cut-stream drain --max-wait-timeout-s 5"
    )
    assert override_of(book, "ops").definition == BudgetDefinition(
        name="ops",
        limit=10 * USD,
        unit="USD",
        window=Window("day", "Asia/Tokyo", rolling=True),
        match={"user": "ada", "model": "gpt-4*"},
        each="run",
        mode="best_effort",
        on_limit="fallback",
        fallback_model="gpt-5-mini",
        warn_at=(0.5, 0.8),
        output_bound=4096,
        cut_stream="drain",
        max_wait_timeout_s=5,
    )
    assert text.splitlines() == [
        "budget 'ops': 10 USD / rolling day, until it is removed",
        "  counts model=gpt-4*, user=ada",
        "  falls back to gpt-5-mini",
        "  warns at 50 % and 80 %",
        "before: no budget of this name",
        "in force within a second in every process that uses this ledger",
    ]


def test_without_options_it_is_strict_and_for_all_calls(path):
    """The budget of a plain line refuses whatever does not fit; calls at once need no window."""
    done('budget set everything "20 USD / day"')
    done('budget set crowd "8 concurrent"')
    with Ledger(path) as ledger:
        everything, crowd = (override_of(ledger, name).definition for name in ("everything", "crowd"))
    assert (everything.mode, everything.match, everything.on_limit) == ("strict", (), "raise")
    assert (crowd.unit, crowd.limit) == ("concurrent", 8)


def test_set_makes_the_ledger_and_a_wrong_line_does_not(path):
    """The first budget may be set before the first call; an error leaves nothing behind."""
    assert "has the unit 'EUR'" in refused('budget set ops "10 EUR / day"')
    assert list(path.parent.iterdir()) == []
    done('budget set ops "10 USD / day"')
    assert path.is_file()


@pytest.mark.parametrize("command", ["raise ops 5", "remove ops"])
def test_raise_and_remove_make_no_ledger(path, command):
    """Where there is no ledger there is nothing to raise or to remove."""
    assert "no ledger at" in refused(f"budget {command}")
    assert list(path.parent.iterdir()) == []


def test_the_file_of_another_program_is_left_as_it_is(path):
    """`set` writes into ledgers only."""
    path.write_bytes(b"no database at all" * 100)
    assert "damaged or no ledger" in refused('budget set ops "10 USD / day"')
    assert path.read_bytes() == b"no database at all" * 100


def test_a_budget_of_code_gets_only_another_limit(book):
    """What calls it counts stays as code says: the override has no definition of its own."""
    used(book, "summaries", "5 USD / day", match={"user": "ada"})
    text = done('budget set summaries "20 USD" --until 2h')
    override = override_of(book, "summaries")
    assert (override.limit, override.unit, override.definition) == (20 * USD, "USD", None)
    assert override.until == pytest.approx(time.time() + 7200, abs=60)
    assert text.startswith("budget 'summaries': 20 USD / day, until ")
    assert "before: 5 USD / day\n" in text


def test_a_configured_budget_gets_only_another_limit(book, monkeypatch):
    """A budget of the environment or of tollspan.toml is known without having been used."""
    monkeypatch.setenv("TOLLSPAN_BUDGET", "5 USD / day")
    done('budget set "env: 5 USD / day" "20 USD / day"')
    assert override_of(book, "env: 5 USD / day").definition is None
    assert (status("env: 5 USD / day")["limit"], status("env: 5 USD / day")["configured"]) == ("20.000000000", True)
    assert "configuration says $5.00" in run("budget status").stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('summaries "20 USD / hour"', "has the window day, and a limit from outside cannot change it"),
        ('summaries "20 tokens / day"', "counts USD, and '20 tokens / day' is in tokens; write it like 20 USD"),
        ('summaries "20 USD" --each user', "--each: budget 'summaries' is defined in code; change that there"),
        ('summaries "20 USD" --warn-at 0.5', "--warn-at: budget 'summaries' is defined in code"),
        ("sumaries 20", "no budget 'sumaries' is known (did you mean summaries?)"),
        ('sumaries "20 USD"', "has no window, and no budget 'sumaries' is known (did you mean summaries?)"),
        ('-- x "-5 USD / day"', "is negative"),
        ('x "5 USD / fortnight"', "has the window 'fortnight'"),
        ('x "8 concurrent / day"', "calls at once have none"),
        ('x "5 USD / day" --mode strikt', "did you mean strict?"),
        ('x "5 USD / day" --on-limit fallback', "write both of them, or neither"),
        ('x "5 USD / day" --each usr', "did you mean user?"),
        ('x "5 USD / day" --match user', "--match: 'user' matches nothing; write it like user=ada"),
        ('x "5 USD / day" --match user=a --match user=b', "--match: user is there twice"),
        ('x "5 USD / day" --warn-at most', "--warn-at: 'most' is no share"),
        ('x "5 USD / day" --warn-at -1', "no list of fractions"),
        ('x "5 USD / day" --timezone Europe/Berln', "did you mean Europe/Berlin?"),
        ('x "5 USD / day" --until soon', "--until: 'soon' is no instant"),
        ('x "5 USD / day" --until 2020-01-01', "--until: '2020-01-01' is over; write one to come"),
        ('"" "5 USD / day"', "a budget needs one"),
        ('one "5 USD / day" --limit-only', "--limit-only: '5 USD / day' has a window; write 5 USD"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(book, line, said):
    """Status 2, one sentence, and nothing is set."""
    used(book, "summaries", "5 USD / day")
    assert said in refused(f"budget set {line}")
    assert override_of(book, "x") is override_of(book, "summaries") is None


def test_setting_a_budget_of_its_own_again_keeps_what_is_not_written(book):
    """Another limit does not make a budget count other calls."""
    done('budget set ops "10 USD / day" --match user=ada --on-limit fallback --fallback-model gpt-5-mini --until 2h')
    done('budget set ops "20 USD"')
    own = override_of(book, "ops")
    assert (own.limit, own.definition.limit, own.until) == (20 * USD, 20 * USD, None)
    assert (own.definition.match, own.definition.window) == ((("user", "ada"),), Window("day"))
    done('budget set ops "20 USD / rolling week" --on-limit wait --match user=bob')
    own = override_of(book, "ops").definition
    assert (own.match, own.window, own.on_limit) == ((("user", "bob"),), Window("week", rolling=True), "wait")


def test_the_limit_of_a_block_without_a_window(book):
    """The ledger does not know such budgets: --limit-only says that there is one, and status shows it apart."""
    assert "--limit-only" in refused('budget set "one run" "0.20 USD"')
    done('budget set "one run" "0.20 USD" --limit-only')
    assert (override_of(book, "one run").limit, override_of(book, "one run").definition) == (200_000_000, None)
    text = run("budget status").stdout
    assert "one run: $0.2000\n" in text
    assert "a budget without a window" in text
    done('budget raise "one run" 0.3')
    assert override_of(book, "one run").limit == 300_000_000


NOON = dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("until", "wanted"),
    [
        ("2h", "2026-03-28T14:00+00:00"),
        ("in 2 hours", "2026-03-28T14:00+00:00"),
        ("in 1 day", "2026-03-29T12:00+00:00"),
        ("90 min", "2026-03-28T13:30+00:00"),
        ("2w", "2026-04-11T12:00+00:00"),
        ("tomorrow", "2026-03-29T00:00+01:00"),
        ("2026-04-01", "2026-04-01T00:00+02:00"),
        ("2026-04-01T12:00", "2026-04-01T12:00+02:00"),
        ("2026-04-01T12:00Z", "2026-04-01T12:00+00:00"),
    ],
)
def test_until_is_an_instant_to_come_in_the_zone_of_the_budget(book, monkeypatch, until, wanted):
    """A while from now, a word, or a date and time on the budget's own clock; here clocks change in between."""
    used(book, "b", "5 USD / day", timezone="Europe/Berlin")
    monkeypatch.setattr(time, "time", lambda: NOON)
    for command in ("set b 20", "raise b 30"):
        told = in_json(f"budget {command} --until '{until}'")["override"]["until"]
        assert dt.datetime.fromisoformat(told) == dt.datetime.fromisoformat(wanted)


# ---- raise


def test_raise_says_before_and_after_and_keeps_the_rest(book):
    """A bare number is in the unit of the budget; window and definition stay."""
    used(book, "words", "9000 tokens / hour")
    text = done("budget raise words 12000")
    assert text.startswith("budget 'words': 12000 tokens / hour, until it is removed\nbefore: 9000 tokens / hour\n")
    text = done("budget raise words '15_000 tokens' --until tomorrow")
    assert "before: 12000 tokens / hour, where code says 9000 tokens\n" in text
    until = override_of(book, "words").until
    assert until is not None
    done("budget raise words 16000")
    assert override_of(book, "words").until == until


def test_raise_does_not_lower_unless_told(book):
    """A slip of the finger must not stop an application."""
    used(book, "b", "50 USD / day")
    assert "20 USD is less than 50 USD, which holds now; add --lower" in refused("budget raise b 20")
    assert status("b")["limit"] == "50.000000000"
    done("budget raise b 20 --lower")
    assert (status("b")["limit"], status("b")["defined_limit"]) == ("20.000000000", "50.000000000")
    done("budget raise b 30")


def test_raise_of_a_budget_of_its_own(book):
    """Its definition goes on with the new limit."""
    done('budget set ops "10 USD / day" --match user=ada')
    done("budget raise ops '30 USD'")
    own = override_of(book, "ops")
    assert (own.limit, own.definition.limit, dict(own.definition.match)) == (30 * USD, 30 * USD, {"user": "ada"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sumaries 20", "no budget 'sumaries' is known (did you mean summaries?)"),
        ("summaries '20 requests'", "counts USD, and '20 requests' is in requests"),
        ("summaries '20 USD / month'", "has the window day"),
        ("summaries more", "is not a limit"),
        ("over 20", "what was set for budget 'over' has ended (10 USD / day); set it again"),
    ],
)
def test_a_raise_that_makes_no_sense_is_refused(book, line, said):
    """Status 2, with what to do."""
    used(book, "summaries", "5 USD / day")
    budget = BudgetDefinition(name="over", limit=10 * USD, unit="USD", window=Window("day"))
    ended = time.time() - 1
    book.override_budget(BudgetOverride(name="over", limit=10 * USD, unit="USD", definition=budget, until=ended))
    assert said in refused(f"budget raise {line}")


# ---- remove


def test_remove_says_what_holds_then(book):
    """A limit is again what code says; a budget of its own is gone."""
    used(book, "summaries", "5 USD / day")
    done("budget set summaries 20")
    done('budget set ops "10 USD / day"')
    assert done("budget remove summaries") == "removed: budget 'summaries', 20 USD\nnow: 5 USD / day, as code says\n"
    assert done("budget remove ops") == "removed: budget 'ops', 10 USD / day\nnow: no such budget\n"
    assert status("ops") is None
    assert status("summaries")["override"] is None


def test_remove_of_what_is_not_set_is_wrong_use(book):
    """It says what is set, the nearest name, and where a budget that has no override gets its limit from."""
    used(book, "summaries", "5 USD / day")
    assert "nothing is set for budget 'ops'; set are: none" in refused("budget remove ops")
    done('budget set ops "10 USD / day"')
    assert "nothing is set for budget 'opps' (did you mean ops?); set are: 'ops'" in refused("budget remove opps")
    assert "it is 5 USD / day, as code says; change it there" in refused("budget remove summaries")


def test_what_has_ended_can_be_removed(book):
    """An override that is over lies there until somebody removes it; then it is said that it had ended."""
    used(book, "b", "5 USD / day")
    book.override_budget(BudgetOverride(name="b", limit=USD, unit="USD", until=time.time() - 1))
    assert status("b")["limit"] == "5.000000000"
    data = in_json("budget remove b")
    assert (data["removed"]["in_force"], data["budget"]["limit"]) == (False, "5.000000000")


def test_in_json_every_command_tells_what_holds(book):
    """Amounts are exact texts, and what was there before is told."""
    used(book, "b", "5 USD / day")
    data = in_json("budget set b 20")
    assert (data["before"], data["budget"]["limit"], data["override"]["is_budget"]) == (
        "5.000000000",
        "20.000000000",
        False,
    )
    data = in_json("budget raise b 30 --until 2h")
    assert (data["before"], data["budget"]["limit"]) == ("20.000000000", "30.000000000")
    assert data["override"]["until"] == data["budget"]["override"]["until"]
    data = in_json('budget set ops "1 USD / day"')
    assert (data["before"], data["budget"]["defined_in"], data["override"]["is_budget"]) == (None, "command line", True)
    assert in_json("budget remove ops")["budget"] is None


def test_another_process_sets_and_removes_for_this_one(book):
    """What the real command line does holds here within a second, in both directions."""
    assert list(book.overrides) == []
    command = [sys.executable, "-m", "tollspan.console", "budget"]
    subprocess.run([*command, "set", "ops", "10 USD / day"], check=True, capture_output=True)
    assert within_a_second(lambda: [override.limit for override in book.overrides] == [10 * USD])
    subprocess.run([*command, "remove", "ops"], check=True, capture_output=True)
    assert within_a_second(lambda: not list(book.overrides))


# ---- the page about budgets


def block(language):
    """The example in a language on docs/budgets.md."""
    page = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")
    return page.split(f"```{language}\n")[1].split("```")[0]


def test_the_examples_of_the_page_about_budgets_work(path, monkeypatch, capsys):
    """Its code runs against a local provider, its tables load, and then its commands do what they say."""
    pytest.importorskip("openai", reason="the page calls a model")
    with LocalProvider() as provider, load_budgets(block("toml")) as loaded:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "local")
        try:
            exec(compile(block("python"), "budgets.md", "exec"), {})
        finally:
            uninstrument()
    assert [budget.name for budget in loaded] == ["evaluation", "crowd"]
    assert len(provider.requests) == 2
    assert capsys.readouterr().out.startswith("0.00")
    assert pipeline().ledger.flush()
    for line in block("sh").splitlines():
        done(line.removeprefix("tollspan "))
    with Ledger(path) as ledger:
        overrides = {override.name: override for override in ledger.overrides}
    assert {name: each.text for name, each in overrides.items()} == {
        "visitors": "2 USD",
        "ops": "50 USD / rolling day",
        "jobs": "8 concurrent",
        "one run": "0.2 USD",
    }
    assert [name for name, each in overrides.items() if each.definition is None] == ["one run", "visitors"]


# ---- status


def spend(ledger, budget, amount, scope=""):
    """So much spent now, in a scope of a budget."""
    start = budget.window.start(time.time())
    charges = (Charge(budget=budget.account, scope=scope, window_start=start, amount=amount),)
    ledger.append(LedgerEvent(event_type="commit", charges=charges))


def test_status_goes_by_the_limit_in_force(book):
    """Used, remaining and the exit status are those of the override; beside it stands what code says."""
    budget = used(book, "b", "5 USD / day", warn_at=(0.5, 0.8))
    spend(book, budget, 6 * USD)
    assert run("budget status").exit_code == 1
    done("budget raise b 20 --until 2099-01-01")
    lines = done("budget status").splitlines()
    assert lines[0].startswith("b: $20.00 / day, strict, resets ")
    assert lines[1] == "limit from the command line, until 2099-01-01 00:00 UTC; code says $5.00"
    assert lines[2] == "warns at 50 % and 80 %"
    assert lines[-1].split()[2:] == ["30", "%", "$6.00", "$0.00", "$14.00"]
    data = status("b")
    assert (data["limit"], data["defined_limit"], data["warn_at"]) == ("20.000000000", "5.000000000", [0.5, 0.8])
    assert (data["override"]["limit"], data["override"]["until"]) == ("20.000000000", "2099-01-01T00:00:00+00:00")
    done("budget raise b 5.5 --lower")
    assert run("budget status").exit_code == 1


@pytest.mark.parametrize(
    ("kind", "back"),
    [("minute", "60 s"), ("hour", "60 min"), ("day", "24 h"), ("week", "7 days"), ("month", "30 days")],
)
def test_a_rolling_window_looks_back_and_has_no_reset(book, kind, back):
    """What was spent in earlier steps of the window counts, and no instant is told at which it is empty."""
    budget = used(book, "b", f"5 USD / rolling {kind}", on_limit="wait", max_wait_timeout_s=30)
    step = budget.window.span // 60
    for start in (0, 30, 70):
        at = budget.window.start(time.time()) - start * step
        charges = (Charge(budget="b", scope="", window_start=at, amount=USD),)
        book.append(LedgerEvent(event_type="commit", charges=charges))
    lines = done("budget status").splitlines()
    assert lines[:2] == [f"b: $5.00 / rolling {kind}, strict, looks back {back}", "waits up to 30 s"]
    assert "$2.00" in lines[-1]
    data = status("b")
    assert (data["window"], data["looks_back_s"], data["resets_at"]) == (f"rolling {kind}", budget.window.span, None)


def test_calls_at_once_are_shown_as_what_is_in_flight(book):
    """They have no window and are never spent; the one that runs is shown."""
    budget = used(book, "crowd", "8 concurrent", mode="best_effort")
    limit = Limit("crowd", "", budget.window.start(time.time()), "concurrent", 8, None, budget.window.span)
    assert isinstance(book.writer.ask(held(limit)).wait(10), Grant)
    lines = done("budget status").splitlines()
    assert lines[0] == "crowd: 8 at once"
    assert lines[1].split() == ["scope", "used", "in", "flight", "remaining"]
    assert lines[-1].split()[2:] == ["12", "%", "1", "7"]
    data = status("crowd")
    assert (data["window"], data["unit"], data["mode"], data["resets_at"]) == (None, "concurrent", "strict", None)
    assert data["balances"][0]["held"] == "1"


def held(limit):
    """A hold of one call."""
    call_id = new_call_id()
    hold_id = event_id_for(call_id, "precheck_hold")

    def describe(_grant):
        charges = (charge_of(limit, 1),)
        return Posting(hold_id, "precheck_hold", call_id, timestamp=time.time(), charges=charges)

    return HoldRequest(hold_id, Demand(None, 0, 0, 0), (limit,), describe, lambda: None)


def test_budgets_of_the_command_line_are_shown_with_their_options(book):
    """They stand beside those of code, before any call has met them."""
    done('budget set ops "10 USD / day" --match tag:team=search --on-limit warn')
    text = done("budget status")
    assert "set from the command line, until it is removed\ncounts tag:team=search\nonly warns\n" in text
    data = status("ops")
    assert (data["defined_in"], data["match"], data["last_seen"]) == ("command line", {"tag:team": "search"}, None)


def test_an_override_in_another_unit_is_not_the_limit(book):
    """A number of tokens over a budget in USD changes nothing, and is shown apart."""
    used(book, "b", "5 USD / day")
    book.override_budget(BudgetOverride(name="b", limit=9000, unit="tokens"))
    assert (status("b")["limit"], status("b")["override"]) == ("5.000000000", None)
    assert "\nb: 9000 tokens\n" in run("budget status").stdout


def test_overrides_are_listed_in_json_ended_ones_too(book):
    """A program finds what an operator has set, whether it is in force or not."""
    used(book, "b", "5 USD / day")
    done("budget set b 20")
    book.override_budget(BudgetOverride(name="old", limit=5, unit="requests", until=time.time() - 1))
    overrides = json.loads(done("budget status --json"))["overrides"]
    assert [(each["name"], each["limit"], each["in_force"]) for each in overrides] == [
        ("b", "20.000000000", True),
        ("old", "5", False),
    ]


def test_status_fits_80_columns(book):
    """Long names and all options at once wrap, and nothing moves the cursor."""
    long = "a budget with quite a long name, as people like to give them"
    budget = used(book, long, "5 USD / rolling month", match={"model": "gpt-4*", "tag:feature": "search\x1b[2J"})
    spend(book, budget, 12_345 * USD)
    done(f'budget set "{long}" "99999 USD" --until 2099-01-01')
    text = run("budget status").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_a_budget_that_was_used_and_removed_can_be_set_again(book):
    """After `remove` nobody knows it any more: `set` makes it a budget of its own again, and not a limit of nothing."""
    done('budget set ops "10 USD / day"')
    record = CallRecord(
        call_id=new_call_id(), started=time.time(), operation="chat", provider="openai", request_model="gpt-4o"
    )
    card = pipeline().prices.resolve(provider="openai", model="gpt-4o", at=time.time())
    admit(record, CallIntent(price=card, input_tokens=1, max_output_tokens=1))
    assert pipeline().ledger.flush()
    done("budget remove ops")
    assert status("ops") is None
    done('budget set ops "20 USD / day"')
    assert override_of(book, "ops").definition is not None
