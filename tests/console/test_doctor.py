"""`tollspan doctor`: it names what is wrong, says what to do, and ends with 1 only then."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import time
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console import _sdks
from tollspan.console._cli import cli
from tollspan.instrumentation import CALL_SITES, GAPS, INSTALLATION, CallSite, _patching, sdk_version
from tollspan.ledger import (
    BudgetDefinition,
    BudgetOverride,
    Definition,
    Ledger,
    LedgerEvent,
    Window,
    dump_definition,
    load_settings,
    new_call_id,
)
from tollspan.ledger._definitions import parse_budgets

openai = pytest.importorskip("openai", reason="the doctor looks for the SDKs it knows")
anthropic = pytest.importorskip("anthropic", reason="the doctor looks for the SDKs it knows")

CENT = Decimal("0.01")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No configuration but that of the test."""
    others = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "ANTHROPIC_OPEN_TELEMETRY", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    for name in [n for n in os.environ if n.startswith("TOLLSPAN_") or n in others]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def event(**fields):
    return LedgerEvent(
        **{"event_type": "commit", "provider": "openai", "model": "m", "cost_actual_usd": CENT, **fields}
    )


def seed(path, *events):
    with Ledger(path) as ledger:
        for each in events:
            ledger.write_event(each)


def examine(path, options=""):
    """The exit status and the JSON of a doctor's visit."""
    result = CliRunner().invoke(cli, ["--ledger", str(path), "doctor", "--json", *options.split()])
    assert result.exit_code in (0, 1), result.output
    return result.exit_code, json.loads(result.stdout)


def found(data, grade):
    return [finding for finding in data["findings"] if finding["grade"] == grade]


def texts(data, topic):
    return " | ".join(finding["text"] for finding in data["findings"] if finding["topic"] == topic)


def test_a_healthy_ledger_has_no_problem(path):
    """All is well: status 0, and what was looked at is listed with its facts."""
    seed(path, event(), event())
    status, data = examine(path, "--verify")
    assert (status, data["ok"], data["problems"], found(data, "problem")) == (0, True, 0, [])
    assert set(data) == {"ok", "problems", "notes", "version", "findings", "settings", "sdks"}
    assert f"{path}: schema 3, WAL, " in texts(data, "ledger")
    assert "2 events" in texts(data, "ledger")
    assert "writable" in texts(data, "ledger")
    assert texts(data, "verify") == "every balance equals the log"
    assert "genai-prices" in texts(data, "prices")


def test_no_ledger_yet_is_no_problem_and_none_is_made(path):
    """Before the first call there is nothing wrong, and the doctor leaves nothing behind."""
    status, data = examine(path)
    assert (status, list(path.parent.iterdir())) == (0, [])
    assert "no ledger at" in found(data, "note")[0]["text"]


def test_a_file_that_is_no_ledger_is_a_problem(path):
    """A damaged or foreign file is reported, and the rest is still looked at."""
    path.write_text("no database")
    status, data = examine(path)
    assert status == 1
    assert "file is not a database" in found(data, "problem")[0]["text"]
    assert data["sdks"]


def test_unpriced_models_of_the_week_are_problems_with_a_way_out(path):
    """A model without a price is named with its calls and its reason; older ones and priced ones are not."""
    old = event(model="old", cost_actual_usd=None, timestamp=time.time() - 8 * 86400)
    seed(path, event(), old, *(event(model="odd", cost_actual_usd=None, reason="no price for it") for _ in range(3)))
    status, data = examine(path)
    (problem,) = found(data, "problem")
    assert status == 1
    assert problem["text"] == "3 calls of openai/odd in the last 7 days without a price: no price for it"
    assert 'model = "odd"' in problem["advice"]


def test_calls_that_no_call_site_covers_are_named(path):
    """Calls seen on the wire only are a note, with how many there were this week, and no problem."""
    seed(path, event(), *(event(category="uncovered") for _ in range(2)))
    status, data = examine(path)
    assert status == 0
    assert any(note["text"].startswith("2 calls to openai (") for note in found(data, "note"))


HOLD_AND_DIE = """
    import os, sys, time
    from tollspan.ledger import *

    class Cost:
        def nano(self, output_tokens, /): return 10_000_000
        def affordable_tokens(self, nano, /): return 1 << 62

    ledger, call_id = Ledger(sys.argv[1]), new_call_id()
    hold_id, limit = event_id_for(call_id, "precheck_hold"), Limit("b", "", 0, "USD", 10**9)
    charges = (Charge(budget="b", scope="", window_start=0, amount=10_000_000),)
    made = {"timestamp": time.time(), "charges": charges, "cost_est_nusd": 10_000_000}
    hold = Posting(event_id=hold_id, event_type="precheck_hold", call_id=call_id, **made)
    request = HoldRequest(hold_id, Demand(Cost(), 1, 1, 1), (limit,), lambda grant: hold, lambda: None)
    print(type(ledger.writer.ask(request).wait(10)).__name__, flush=True)
    sys.stdin.readline()
    os._exit(9)
"""


def test_holds_of_ended_processes_are_settled_and_told(path):
    """A hold of a living process is left alone; once it is dead, the doctor turns the hold into estimated spend."""
    code = textwrap.dedent(HOLD_AND_DIE)
    full = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "Grant\n"
        status, data = examine(path, "--verify")
        assert status == 0
        assert "1 call in flight in 1 process, holding $0.0100" in texts(data, "holds")
        holder.stdin.write("die\n")
        holder.stdin.close()
        holder.wait(timeout=20)
    status, data = examine(path, "--verify")
    assert status == 0
    assert "1 call of ended processes settled at what was held" in texts(data, "holds")
    assert "0 calls in flight" in texts(data, "holds")
    with Ledger.from_file(path) as ledger:
        assert ledger.balance(("b", "", 0)).estimated == 10_000_000
    assert "settled" not in texts(examine(path)[1], "holds")


def test_verify_tells_a_counter_that_is_not_what_the_log_says(path):
    """A wrong balance is a problem for --verify, with both numbers; without it nobody looks."""
    seed(path, event())
    with Ledger(path) as ledger:
        ledger.store.connection.execute("UPDATE balance SET spent = spent + 5")
    assert examine(path)[0] == 0
    status, data = examine(path, "--verify")
    assert status == 1
    assert "1 balance is not what the log says" in found(data, "problem")[0]["text"]
    assert "spent 10000005, by the log 10000000" in found(data, "problem")[0]["text"]


def test_settings_are_told_with_their_source_and_wrong_ones_are_problems(path, monkeypatch, tmp_path):
    """Where a setting comes from is told; a wrong one is a problem and not the end of the visit."""
    seed(path, event())
    (tmp_path / "tollspan.toml").write_text('profile = "key-7"\nmode = "strikt"\n')
    monkeypatch.setenv("TOLLSPAN_TIMEZONE", "Asia/Tokyo")
    monkeypatch.setenv("TOLLSPAN_DISABLED", "1")
    status, data = examine(path)
    assert status == 1
    assert "did you mean strict?" in found(data, "problem")[0]["text"]
    assert data["settings"]["timezone"] == {"value": "Asia/Tokyo", "source": "environment TOLLSPAN_TIMEZONE"}
    assert data["settings"]["profile"] == {"value": "key-7", "source": str(tmp_path / "tollspan.toml")}
    assert data["settings"]["mode"]["source"] == "default"
    assert "profile = key-7" in texts(data, "settings")
    assert "switched off" in texts(data, "settings")


def test_a_secret_is_shown_to_nobody(path, monkeypatch):
    """Reports of the doctor are handed on: that there is a webhook stands in them, and its URL does not."""
    monkeypatch.setenv("TOLLSPAN_WEBHOOK", "https://ada:T0PSECRET@example.com/T0PSECRET")
    for how in ((), ("--json",)):
        found = CliRunner().invoke(cli, ["--ledger", str(path), "doctor", *how])
        assert "webhook" in found.output
        assert "T0PSECRET" not in found.output
    assert "T0PSECRET" not in repr(load_settings())


def test_a_price_file_that_cannot_be_read_is_a_problem(path, monkeypatch, tmp_path):
    """The user's price file is tried; what is wrong in it is told."""
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "m"\ninput_mtok = "dear"\n')
    monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "prices.toml"))
    status, data = examine(path)
    assert status == 1
    assert "prices.toml, line 3: " in found(data, "problem")[0]["text"]
    assert "must be a price in USD" in found(data, "problem")[0]["text"]
    assert "keep its last good version" in found(data, "problem")[0]["advice"]
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "m"\ninput_mtok = 1\n')
    assert examine(path)[0] == 0


def test_budgets_that_disagree_are_noted(path, monkeypatch):
    """One name with another limit here than elsewhere is noted; the same limit is not."""
    (elsewhere,) = parse_budgets("5 USD / day", mode="strict")
    seed(path, event())
    for limit, notes in ((elsewhere.limit, 0), (elsewhere.limit + 1, 1)):
        with Ledger(path) as ledger:
            other = dataclasses.replace(elsewhere, limit=limit)
            definition = Definition(other.name, dump_definition(other), time.time())
            ledger.writer.define(definition)
        monkeypatch.setenv("TOLLSPAN_BUDGET", "5 USD / day")
        assert texts(examine(path)[1], "budgets").count("configured here with another limit") == notes


def define(ledger, **fields):
    """A budget as a process leaves it in the ledger when it uses it."""
    budget = BudgetDefinition(**{"name": "b", "limit": 10**9, "unit": "USD", "window": Window("day"), **fields})
    ledger.writer.define(Definition(budget.name, dump_definition(budget), time.time()))
    return budget


def test_one_name_with_two_definitions_is_noted_with_what_differs(path):
    """A budget of the command line that code defines otherwise shares its balance, and not what it says."""
    with Ledger(path) as ledger:
        budget = define(ledger)
        other = dataclasses.replace(budget, match={"user": "ada"}, window=Window("day", rolling=True))
        ledger.override_budget(BudgetOverride(name="b", limit=5 * 10**9, unit="USD", definition=other))
    noted = texts(examine(path)[1], "budgets")
    assert "budget 'b' is set from the command line with another window and match than was last used" in noted
    with Ledger(path) as ledger:
        ledger.override_budget(BudgetOverride(name="b", limit=5 * 10**9, unit="USD"))
    assert "another" not in texts(examine(path)[1], "budgets")


def test_two_processes_that_define_one_name_differently_are_noted(path):
    """Both limits are told, and what differs; one that was used long ago is history, and other names are not named."""
    with Ledger(path) as ledger:
        budget = define(ledger)
        define(ledger, limit=2 * 10**9, mode="best_effort")
        define(ledger, name="other")
        old = Definition("b", dump_definition(dataclasses.replace(budget, each="user")), time.time() - 2 * 86400)
        ledger.writer.define(old)
    status, data = examine(path)
    (note,) = [f for f in found(data, "note") if f["topic"] == "budgets"]
    assert status == 0
    assert note["text"] == (
        "processes began to use budget 'b' with 2 definitions in the last 24 hours: another limit and mode "
        "(1 USD / day, 2 USD / day)"
    )


def test_overrides_that_change_nothing_are_noted_with_the_way_to_remove_them(path):
    """One that has ended, and one in a unit that the budget does not count; one in force is no note."""
    with Ledger(path) as ledger:
        define(ledger)
        define(ledger, name="c")
        ledger.override_budget(BudgetOverride(name="b", limit=5, unit="tokens"))
        ledger.override_budget(BudgetOverride(name="c", limit=5, unit="USD"))
        ledger.override_budget(BudgetOverride(name="old", limit=5, unit="requests", until=1.0))
    status, data = examine(path)
    notes = [(f["text"], f["advice"]) for f in found(data, "note") if f["topic"] == "budgets"]
    assert (status, notes) == (
        0,
        [
            ("5 tokens set for budget 'b', which counts USD: it changes nothing", "tollspan budget remove 'b'"),
            ("5 requests set for budget 'old' ended 1970-01-01 00:00 UTC", "tollspan budget remove 'old'"),
        ],
    )


def answers(*tokens):
    return [event(operation="chat", usage={"tokens_out": n}) for n in tokens]


def test_learned_bounds_are_told_where_a_budget_goes_by_them(path):
    """Each model with its bound, from how many answers, and how many passed it; without such a budget nobody asks."""
    seed(path, *answers(*[100] * 60))
    with Ledger(path) as ledger:
        define(ledger)
    assert "learned" not in texts(examine(path)[1], "budgets")
    with Ledger(path) as ledger:
        define(ledger, name="long answers", output_bound="learned")
    assert "learned: m chat: 150 tokens, from 60 answers, 0.0 % above" in texts(examine(path)[1], "budgets")
    seed(path, *answers(9_000, 90_000, *[100] * 8))
    (note,) = [f for f in found(examine(path)[1], "note") if f["topic"] == "budgets"]
    assert note["text"].endswith("from 70 answers, 5.0 % above")


def test_before_anything_is_learned_that_is_told(path):
    """A budget that waits for history clamps until then."""
    with Ledger(path) as ledger:
        define(ledger, output_bound="learned")
    assert "no model has given 30 answers lately" in texts(examine(path)[1], "budgets")


def held_call(held, cost, *, began=None, **fields):
    """A call that held so many USD and cost so many."""
    call_id = new_call_id(began).hex()
    same = {"call_id": call_id, "cost_est_usd": Decimal(held), "timestamp": began or 0.0}
    yield event(event_type="precheck_hold", cost_actual_usd=None, **same)
    yield event(**{"cost_actual_usd": Decimal(cost), **same, **fields})


def test_calls_that_cost_more_than_was_held_are_noted(path):
    """By model, with how much it was; older ones, dearer estimates, and calls that held nothing are not among them."""
    week_ago = time.time() - 8 * 86400
    seed(
        path,
        *held_call("0.10", "0.13"),
        *held_call("0.10", "0.12"),
        *held_call("0.10", "0.10"),
        *held_call("0.10", "0.90", began=week_ago),
        *held_call("0.10", "0.10", model="other"),
        event(cost_est_usd=CENT, cost_actual_usd=CENT * 2, model="best effort"),
    )
    status, data = examine(path)
    (note,) = [f for f in found(data, "note") if f["topic"] == "holds"]
    assert (status, note["text"]) == (0, "2 calls of openai/m in the last 7 days cost $0.0500 more than held")


def test_where_every_hold_was_enough_that_is_told(path):
    """A strict limit has held then."""
    seed(path, *held_call("0.10", "0.10"))
    assert "no call of the last 7 days cost more than was held for it" in texts(examine(path)[1], "holds")


def test_a_clock_that_is_ahead_is_noted(path):
    """An event from the future is noted, because reports up to now will not show it."""
    seed(path, event(timestamp=time.time() + 3600))
    assert "ahead of this clock" in texts(examine(path)[1], "ledger")


# ---- SDKs


def use_table(monkeypatch, table):
    """Another table of call sites, for what installs it and for what looks at it."""
    monkeypatch.setattr(_sdks, "CALL_SITES", table)
    monkeypatch.setattr(_patching, "CALL_SITES", table)
    monkeypatch.setattr(_patching, "_TARGETS", (*_patching.WIRES, *table))


def test_sdks_are_told_with_their_versions_and_every_call_site(path):
    """Each SDK of the table has its version, and each of its rows is where it is expected or known to have moved."""
    _, data = examine(path)
    versions = {sdk["name"]: sdk["version"] for sdk in data["sdks"]}
    assert versions == {name: sdk_version(name) for name in {site.sdk for site in CALL_SITES}}
    assert versions["openai"] == openai.__version__
    assert versions["anthropic"] == anthropic.__version__
    installed = [sdk for sdk in data["sdks"] if sdk["version"]]
    for sdk in installed:
        assert len(sdk["call_sites"]) == sum(site.sdk == sdk["name"] for site in CALL_SITES)
    states = {site["state"] for sdk in installed for site in sdk["call_sites"]}
    assert "in place" in states
    assert not [site for sdk in installed for site in sdk["call_sites"] if site["state"] == "unresolved"]


def test_an_sdk_is_told_with_what_it_does_and_by_which_library(path):
    """What the covered methods do, and the HTTP libraries by which they may do it, stand beside each SDK."""
    _, data = examine(path)
    sdks = {sdk["name"]: sdk for sdk in data["sdks"]}
    assert {"chat", "embeddings"} <= set(sdks["openai"]["operations"])
    assert set(sdks["openai"]["wires"]) & {"httpx", "httpx2"}
    kinds = {site["kind"] for site in sdks["openai"]["call_sites"]}
    assert {"call", "async call"} <= kinds
    assert "; by httpx" in texts(data, "SDKs")


def test_what_is_not_covered_of_an_sdk_is_told_with_its_reason(path):
    """Each gap of an installed SDK is a finding, and no problem; what is not installed is left out."""
    status, data = examine(path)
    told = texts(data, "SDKs")
    assert status == 0
    for gap in GAPS:
        assert (f"{gap.extent}: {gap.sdk}, {gap.surface}. {gap.reason}" in told) == (sdk_version(gap.sdk) is not None)
    (sdk,) = [sdk for sdk in data["sdks"] if sdk["name"] == "openai"]
    assert sdk["gaps"] == [dataclasses.asdict(gap) for gap in GAPS if gap.sdk == "openai"] != []


def test_a_wire_that_is_not_there_is_a_problem(path, monkeypatch):
    """A method of an HTTP library that cannot be covered is named: what is sent by it would not be seen."""
    known = next(wire for wire in _patching.WIRES if wire.module == "requests.sessions")
    wire = dataclasses.replace(known, module="json", name="Nothing.send")
    monkeypatch.setattr(_patching, "_TARGETS", (*_patching._TARGETS, wire))
    status, data = examine(path)
    assert status == 1
    assert "json.Nothing.send is not there" in texts(data, "SDKs")


def test_a_method_that_newer_versions_have_no_more_is_no_problem(path, monkeypatch):
    """A row that ends before the installed version is told as gone, and looked for no more."""
    known = next(site for site in CALL_SITES if site.name == "Completions.create")
    gone = dataclasses.replace(known, module="openai", name="Nothing.create", until=known.since)
    use_table(monkeypatch, (*CALL_SITES, gone))
    status, data = examine(path)
    assert status == 0
    (sdk,) = [sdk for sdk in data["sdks"] if sdk["name"] == "openai"]
    assert {site["name"]: site["state"] for site in sdk["call_sites"]}["openai.Nothing.create"] == "gone"
    assert "older than this version" in texts(data, "SDKs")


def test_the_visit_leaves_the_sdks_as_they_were(path):
    """What was patched to look at it is put back, unless it was in place before."""
    before = openai.resources.chat.completions.Completions.create
    examine(path)
    assert not INSTALLATION.active
    assert openai.resources.chat.completions.Completions.create is before


@pytest.mark.parametrize(
    ("place", "since", "state"),
    [
        (("openai", "Nothing.create"), "1.0", "unresolved"),
        (("openai.nowhere", "Nothing.create"), "1.0", "unresolved"),
        (("openai", "Nothing.create"), "999.0", "not yet"),
        (("openai.old_place", "Completions.create"), "1.0", "moved"),
    ],
)
def test_a_call_site_that_is_not_there_is_a_problem_where_it_should_be(path, monkeypatch, place, since, state):
    """A row that does not resolve is a problem, unless the SDK is older than it or it is covered at a newer place."""
    known = next(site for site in CALL_SITES if site.name == "Completions.create")
    table = (*CALL_SITES, CallSite("openai", since, *place, "call", known.reader))
    use_table(monkeypatch, table)
    status, data = examine(path)
    (sdk,) = [sdk for sdk in data["sdks"] if sdk["name"] == "openai"]
    assert {site["name"]: site["state"] for site in sdk["call_sites"]}[".".join(place)] == state
    assert status == (state == "unresolved")
    assert (f"{'.'.join(place)} is not there" in texts(data, "SDKs")) is (state == "unresolved")


def test_an_sdk_that_is_not_installed_is_no_problem(path, monkeypatch):
    """A vendor that nobody uses here is told and nothing more."""
    table = (*CALL_SITES, CallSite("sdk-of-nobody", "1.0", "sdk_of_nobody", "A.create", "call", CALL_SITES[0].reader))
    use_table(monkeypatch, table)
    status, data = examine(path)
    assert status == 0
    assert "sdk-of-nobody" in texts(data, "SDKs")


def test_spans_of_the_vendor_itself_are_noted(path, monkeypatch):
    """Anthropic's SDK makes spans of its own: that is noted with the switch, and not where it is switched off."""
    assert "ANTHROPIC_OPEN_TELEMETRY=false" in texts(examine(path)[1], "SDKs")
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    assert "ANTHROPIC_OPEN_TELEMETRY" not in texts(examine(path)[1], "SDKs")


def test_being_switched_off_in_zero_code_mode_is_noted(path, monkeypatch):
    """OpenTelemetry's own switch may leave tollspan out: that is noted."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "requests, tollspan")
    assert "tollspan is switched off" in texts(examine(path)[1], "zero-code")


def test_people_get_a_text(path):
    """For people: topics, grades, what to do below each problem, and a last line that sums up."""
    seed(path, event(cost_actual_usd=None, reason="no price"))
    result = CliRunner().invoke(cli, ["--ledger", str(path), "doctor"])
    assert result.exit_code == 1
    assert "-> write a [[price]] table" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 problem found"
    assert result.stderr == ""
