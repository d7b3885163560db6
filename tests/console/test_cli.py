"""The command line, in this process and as a real one: what it prints, for whom, and how it ends."""

import csv
import datetime as dt
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console._cli import cli
from tollspan.console._render import compact
from tollspan.console._when import instant
from tollspan.ledger import (
    BudgetDefinition,
    Charge,
    Definition,
    Ledger,
    LedgerEvent,
    QueryError,
    dump_definition,
    parse_limit,
)

CENT = Decimal("0.01")
READING = ("", "today", "report", "tail --no-follow", "budget status")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No configuration but that of the test."""
    for name in [n for n in os.environ if n.startswith("TOLLSPAN_") or n in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def run(command, path=None):
    """A command in this process."""
    where = ["--ledger", str(path)] if path else []
    return CliRunner().invoke(cli, [*where, *command.split()])


def run_for_real(command, path=None, **environ):
    """A command in a process of its own, with stdout and stderr piped."""
    where = ["--ledger", str(path)] if path else []
    full = [sys.executable, "-m", "tollspan.console", *where, *command.split()]
    return subprocess.run(full, env=os.environ | environ, capture_output=True, text=True, check=False)


def event(**fields):
    return LedgerEvent(**{"event_type": "commit", "provider": "openai", "model": "gpt-x", **fields})


def seed(path, *events):
    with Ledger(path) as ledger:
        for each in events:
            ledger.write_event(each)


def typical():
    """Five calls: priced, estimated, unpriced, failed, refused."""
    return [
        event(cost_actual_usd=CENT, usage={"tokens_in": 1000, "tokens_out": 20, "tokens_cache_read": 7}, user_id="ada"),
        event(cost_est_usd=CENT * 2, estimated=True, status="error", model="gpt-y", provider="azure"),
        event(model="odd", usage={"tokens_in": 5}, reason="no price for model 'odd'"),
        event(event_type="cancel", status="error", http_status=429),
        event(event_type="cancel", status="error", attempts=0, error_type="BudgetExhausted"),
    ]


# ---- where there is nothing to read


@pytest.mark.parametrize("command", READING)
def test_a_reading_command_makes_no_ledger(command, path):
    """Without a ledger, a command says in one sentence how to come by one, ends with 2, and leaves nothing behind."""
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: no ledger at {path} yet: run an application under `opentelemetry-instrument` first, "
        "or `tollspan demo`\n"
    )
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no database at all", "cannot be read as a ledger: file is not a database"),
        (b"", "no ledger at"),
        (None, "is a database, but no ledger"),
    ],
    ids=["text", "empty", "foreign"],
)
def test_a_file_of_another_kind_is_left_as_it_is(path, content, said):
    """A file that is no ledger is refused with 2, and not a byte of it changes."""
    if content is None:
        Ledger(path.with_name("x.db")).close()
        import sqlite3  # noqa: PLC0415 - only here

        sqlite3.connect(path).executescript("CREATE TABLE customer (name TEXT)").connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    result = run("today", path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert path.read_bytes() == before


def test_a_ledger_in_memory_cannot_be_read():
    """Another process's memory holds nothing for us, and the error says so."""
    result = CliRunner().invoke(cli, ["--ledger", "sqlite:///:memory:", "today"])
    assert result.exit_code == 2
    assert "in memory" in result.stderr


@pytest.mark.parametrize(
    ("command", "environ", "said"),
    [
        ("report --by modle", {}, "did you mean model?"),
        ("report --tz Europe/Berln", {}, "did you mean Europe/Berlin?"),
        ("today --tz Nowhere", {}, "no time zone"),
        ("tail --no-follow --tz Nowhere", {}, "no time zone"),
        ("report --since yore", {}, "--since: 'yore' is no instant"),
        ("report --until 2026-13-01", {}, "--until: '2026-13-01' is no instant"),
        ("report --json --csv", {}, "exclude each other"),
        ("tail --from 1 --last 2", {}, "exclude each other"),
        ("tdoay", {}, "tdoay"),
        ("today", {"TOLLSPAN_MODE": "strikt"}, "did you mean strict?"),
        ("path", {"TOLLSPAN_BUDGET": "5 EUR / day"}, "has the unit 'EUR'"),
        ("path", {"TOLLSPAN_LEDGER": "postgresql://u:secret@h/x"}, "writes SQLite only"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_to_write(path, monkeypatch, command, environ, said):
    """A wrong option, question or setting is told on stderr in a sentence, with status 2, no traceback, no password."""
    seed(path, *typical())
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    result = run(command, None if "TOLLSPAN_LEDGER" in environ else path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr


def test_a_real_process_ends_as_quietly(path):
    """Run as a program, an explained error leaves one line on stderr and status 2."""
    result = run_for_real("report", path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


# ---- path


def test_path_tells_where_the_ledger_is_or_would_be(path, monkeypatch, tmp_path):
    """`path` prints the absolute path of the configured ledger, and makes nothing."""
    assert run("path", path).stdout == f"{path}\n"
    assert json.loads(run("path --json", path).stdout) == {"path": str(path), "exists": False}
    assert run("path").stdout == f"{tmp_path}/data/tollspan/ledger.db\n"
    monkeypatch.setenv("TOLLSPAN_LEDGER", "relative.db")
    assert run("path").stdout == f"{tmp_path}/relative.db\n"
    assert list(tmp_path.iterdir()) == []


def test_a_quick_command_imports_nothing_heavy(path):
    """`tollspan path` imports no price list, no SDK, no OpenTelemetry, and not what draws tables."""
    code = "import sys\nfrom tollspan.console import main\ntry: main()\nfinally: print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code, "path"], capture_output=True, text=True, check=True
    ).stdout.split()
    roots = {name.partition(".")[0] for name in modules}
    assert "tollspan.ledger" in modules
    assert not roots & {"genai_prices", "openai", "anthropic", "opentelemetry", "sqlite_utils", "rich", "wrapt"}


# ---- today


def test_today_tells_spend_calls_tokens_models_and_what_is_not_known(path):
    """For people: spend with its estimated part, counts, a line for each model, and the calls without a price."""
    seed(path, *typical())
    result = run("today", path)
    text = result.stdout
    assert result.exit_code == 0
    assert f"{dt.datetime.now(dt.UTC):%Y-%m-%d} (UTC): ~$0.0300 spent ($0.0100 actual, ~$0.0200 estimated)" in text
    assert "5 calls, 2 errors, 1 refused before they were sent, 1005 tokens in, 20 out" in text
    assert re.search(r"^azure +gpt-y +1 +0 +0 +~\$0\.0200 +0$", text, re.MULTILINE)
    assert re.search(r"^openai +odd +1 +5 +0 +- +1$", text, re.MULTILINE), "an unpriced call costs -, never $0"
    assert re.search(r"^total +5 +1005 +20 +~\$0\.0300 +1$", text, re.MULTILINE)
    assert "1 call unpriced: openai/odd (1)" in text
    assert run("", path).stdout == text


def test_today_of_a_quiet_day_is_not_an_error(path):
    """A ledger without a call today shows zeros."""
    seed(path, event(timestamp=time.time() - 3 * 86400, cost_actual_usd=CENT))
    result = run("today", path)
    assert result.exit_code == 0
    assert "$0.00 spent" in result.stdout
    assert "0 calls" in result.stdout


def test_today_in_json_has_stable_keys_and_exact_costs(path):
    """For programs: every key is always there, and costs are texts with all nine decimals."""
    seed(path, *typical(), event(cost_actual_usd=Decimal("0.000000001")))
    data = json.loads(run("today --json --tz Asia/Tokyo", path).stdout)
    figures = {"calls", "errors", "refused", "tokens_in", "tokens_out", "tokens_cache_read", "unpriced", "currency"}
    figures |= {"cost", "cost_actual", "cost_estimated"}
    assert set(data) == figures | {"date", "timezone", "models", "unpriced_models", "open_holds"}
    assert (data["cost"], data["cost_actual"], data["cost_estimated"]) == ("0.030000001", "0.010000001", "0.020000000")
    assert (data["timezone"], data["currency"], data["unpriced"]) == ("Asia/Tokyo", "USD", 1)
    assert set(data["models"][0]) == figures | {"provider", "model"}
    missing = {"provider": "openai", "model": "odd", "calls": 1, "reason": "no price for model 'odd'"}
    assert data["unpriced_models"] == [missing]
    assert data["open_holds"] == {"calls": 0, "cost": None, "currency": "USD"}


def test_the_configured_zone_is_the_default(path, monkeypatch):
    """Days are those of the setting `timezone` unless --tz says otherwise, and the zone is printed."""
    seed(path, *typical())
    monkeypatch.setenv("TOLLSPAN_TIMEZONE", "Pacific/Auckland")
    assert "(Pacific/Auckland)" in run("today", path).stdout
    assert "(Asia/Tokyo)" in run("today --tz Asia/Tokyo", path).stdout


# ---- report


def test_report_as_csv_and_json_say_the_same(path):
    """CSV has a header and the rows of the JSON report; the JSON total is the sum of its rows."""
    seed(path, *typical())
    data = json.loads(run("report --by user,model --json", path).stdout)
    rows = list(csv.DictReader(io.StringIO(run("report --by user,model --csv", path).stdout)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in data["rows"]] == rows
    assert data["by"] == ["user", "model"]
    assert sum(Decimal(row["cost"]) for row in data["rows"]) == Decimal(data["total"]["cost"]) == CENT * 3
    assert sum(row["calls"] for row in data["rows"]) == data["total"]["calls"] == 5


def test_report_for_people_shows_the_columns_that_say_something(path):
    """The span and its zone stand above the table; columns that are 0 throughout are left out."""
    seed(path, event(cost_actual_usd=CENT, tags={"feature": "search"}), event(cost_actual_usd=CENT))
    lines = run("report --by tag:feature", path).stdout.splitlines()
    assert lines[0] == "by tag:feature, from the beginning to now, UTC"
    assert lines[1].split() == ["tag:feature", "calls", "in", "out", "actual"]
    assert [line.split() for line in lines[3:]][0:2] == [
        ["-", "1", "0", "0", "$0.0100"],
        ["search", "1", "0", "0", "$0.0100"],
    ]
    assert lines[-1].split() == ["total", "2", "0", "0", "$0.0200"]


def test_report_is_bounded_by_instants(path):
    """--since and --until bound what is reported, in the zone of the report, and the heading tells the span."""
    start = dt.datetime(2026, 3, 4, tzinfo=dt.UTC).timestamp()
    seed(path, *(event(timestamp=start + hours * 3600, cost_actual_usd=CENT) for hours in range(48)))
    bounds = "--since 2026-03-04T12:00 --until 2026-03-05 --tz Asia/Tokyo"
    text = run(f"report --by day {bounds}", path).stdout
    assert text.startswith("by day, from 2026-03-04 12:00 to 2026-03-05 00:00, Asia/Tokyo\n")
    assert re.search(r"^2026-03-04 +12 ", text, re.MULTILINE)
    data = json.loads(run(f"report --by day --json {bounds}", path).stdout)
    assert (data["since"], data["until"]) == ("2026-03-04T12:00:00+09:00", "2026-03-05T00:00:00+09:00")
    assert run("report --since today", path).stdout.endswith("no calls\n")


NOON = dt.datetime(2026, 3, 29, 12, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("now", "2026-03-29T12:00+00:00"),
        ("30m", "2026-03-29T11:30+00:00"),
        ("24h", "2026-03-28T12:00+00:00"),
        ("2 w", "2026-03-15T12:00+00:00"),
        ("today", "2026-03-29T00:00+01:00"),
        ("yesterday", "2026-03-28T00:00+01:00"),
        ("2026-03-30", "2026-03-30T00:00+02:00"),
        ("2026-03-30T06:30", "2026-03-30T06:30+02:00"),
        ("2026-03-30T06:30Z", "2026-03-30T06:30+00:00"),
        ("2026-03-30 06:30-05:00", "2026-03-30T06:30-05:00"),
    ],
)
def test_instants_are_read_in_the_zone(text, wanted):
    """An instant is a date or time in the zone (here on the day its clocks change), a while ago, or a word."""
    assert (
        instant(text, tz="Europe/Berlin", now=NOON, option="--since") == dt.datetime.fromisoformat(wanted).timestamp()
    )


@pytest.mark.parametrize(
    "text",
    ["", "7", "d", "7y", "2026-02-30", "12:00", "-1d", "0001-01-01T00:00+23:59", "9999-12-31", "99999w", "tomorow"],
)
def test_a_text_that_is_no_instant_is_refused(text):
    """What cannot be read as an instant says how to write one."""
    with pytest.raises(QueryError, match="write it like 2026-11-01"):
        instant(text, tz="Europe/Berlin", now=NOON, option="--since")


# ---- budget status


def definition(name, limit, **options):
    amount, unit, window = parse_limit(limit, options.pop("timezone", "UTC"))
    return BudgetDefinition(name=name, limit=amount, unit=unit, window=window, **options)


def seed_budget(path, budget, **spent):
    """A budget as code leaves it in the ledger, and what was spent in the current window of each scope."""
    start = budget.window.start(time.time())
    with Ledger(path) as ledger:
        ledger.writer.define(Definition(budget.name, dump_definition(budget), time.time()))
        for scope, amount in spent.items():
            name = "" if scope == "all" else f"{budget.each}={scope}"
            charges = (Charge(budget=budget.account, scope=name, window_start=start, amount=amount),)
            ledger.write_event(event(charges=charges))


def test_budget_status_shows_budgets_from_code_with_every_balance(path):
    """A budget that other processes used is shown with its limit, window, zone of reset, and each of its balances."""
    each = definition("per user", "1 USD / month", timezone="Europe/Berlin", each="user")
    seed_budget(path, each, ada=800_000_000, bob=10_000_000)
    seed_budget(path, definition("jobs", "60 requests / total"), all=60)
    result = run("budget status", path)
    assert result.exit_code == 0
    assert re.search(
        r"^per user: \$1\.00 / month, strict, resets [\d-]+-01 00:00 Europe/Berlin$", result.stdout, re.MULTILINE
    )
    assert re.search(r"^user=ada +\S{12} +80 % +\$0\.8000 +\$0\.00 +\$0\.2000$", result.stdout, re.MULTILINE)
    assert re.search(r"^user=bob +\S{12} +1 % ", result.stdout, re.MULTILINE)
    assert "jobs: 60 requests / total, strict, never resets" in result.stdout
    assert re.search(r"^all +\S{12} +100 % +60 requests +0 requests +0 requests$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(("spent", "status"), [(5 * 10**9, 0), (5 * 10**9 + 1, 1)])
def test_budget_status_ends_with_1_when_one_is_over_its_limit(path, spent, status):
    """The exit status is 1 when a balance is over its limit by as little as a nano-USD, for people and programs."""
    seed_budget(path, definition("b", "5 USD / day"), all=spent)
    text, data = run("budget status", path), run("budget status --json", path)
    assert text.exit_code == data.exit_code == status
    assert ("OVER" in text.stdout) is bool(status)
    assert json.loads(data.stdout)["budgets"][0]["balances"][0]["over_limit"] is bool(status)


def test_budget_status_in_json(path, monkeypatch):
    """Configured budgets stand beside those from code and win over them; amounts are exact texts in the unit."""
    monkeypatch.setenv("TOLLSPAN_BUDGET", "2 USD / day")
    seed_budget(path, definition("env: 2 USD / day", "3 USD / day"), all=1_500_000_000)
    seed_budget(path, definition("words", "9000 tokens / hour", each="user"))
    configured, other = json.loads(run("budget status --json", path).stdout)["budgets"]
    assert (configured["name"], configured["limit"], configured["configured"]) == (
        "env: 2 USD / day",
        "2.000000000",
        True,
    )
    assert configured["balances"] == [
        {
            "scope": "",
            "spent": "1.500000000",
            "estimated": "0.000000000",
            "held": "0.000000000",
            "remaining": "0.500000000",
            "over_limit": False,
        }
    ]
    assert (other["limit"], other["unit"], other["each"], other["balances"]) == ("9000", "tokens", "user", [])
    assert other["resets_at"].endswith(":00:00+00:00")


def test_budget_status_without_budgets_says_how_to_set_one(path):
    """No budget is no problem."""
    seed(path, *typical())
    result = run("budget status", path)
    assert result.exit_code == 0
    assert "TOLLSPAN_BUDGET" in result.stdout
    assert json.loads(run("budget status --json", path).stdout) == {"currency": "USD", "budgets": [], "overrides": []}


# ---- how it looks


def nasty():
    """Names that are long, or that would move the cursor of a terminal."""
    long = event(provider="azure.ai.openai", model="a-very-long-name-of-a-model-" * 4, cost_actual_usd=Decimal(12345))
    return [*typical(), long, event(model="evil\x1b[2Jmodel\nx", user_id="[red]ada[/red]", cost_actual_usd=CENT)]


@pytest.mark.parametrize("command", [*READING, "report --by user", "report --by user,tag:x", "doctor"])
def test_piped_output_is_plain_and_fits_80_columns(path, command):
    """Without a terminal there are no escape sequences, no markup is read, and no line is longer than 80."""
    seed(path, *nasty())
    seed_budget(path, definition("a budget with quite a long name, as people like to give them", "5 USD / day"), all=1)
    result = run_for_real(command, path)
    assert result.returncode == (1 if command == "doctor" else 0)
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert ("[red]ada[/red]" in result.stdout) is ("user" in command)


def test_numbers_are_never_cut(path):
    """A report of more than fits into 80 columns is wider rather than short of a digit."""
    seed(path, *nasty())
    lines = run("report --by user,tag:feature,hour,model,provider", path).stdout.splitlines()
    assert "…" not in "".join(lines)
    assert lines[-1].split() == ["total", "7", "2", "1", "1005", "20", "7", "$12345.02", "~$0.0200", "1"]


def on_a_terminal(command, path, **environ):
    """What a command writes to a terminal."""
    mine, theirs = pty.openpty()
    full = [sys.executable, "-m", "tollspan.console", "--ledger", str(path), *command.split()]
    with subprocess.Popen(full, stdout=theirs, env=os.environ | {"TERM": "xterm"} | environ):
        os.close(theirs)
        written = b""
        while chunk := _read(mine):
            written += chunk
    os.close(mine)
    return written.decode()


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_colour_is_for_terminals_that_want_it(path):
    """A terminal gets styles, and with NO_COLOR not a single escape sequence."""
    seed(path, *typical())
    assert "\x1b[1m" in on_a_terminal("today", path)
    assert "\x1b" not in on_a_terminal("today", path, NO_COLOR="1")
    assert "\x1b[31m" in on_a_terminal("tail --no-follow", path)


def test_ascii_terminals_get_ascii(path):
    """Where stdout cannot carry blocks and rules, plain characters stand in for them."""
    seed_budget(path, definition("b", "1 USD / day"), all=500_000_000)
    result = run_for_real("budget status", path, PYTHONIOENCODING="ascii")
    assert "######......" in result.stdout
    assert result.stdout.isascii()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9999, "9999"), (12345, "12.3k"), (999_499, "999k"), (4_560_000, "4.56M"), (78_900_000_000, "78.9B")],
)
def test_counts_fit_their_column(count, text):
    """Counts of tokens are shown in three digits and a letter from ten thousand on."""
    assert compact(count) == text


def test_every_command_explains_itself():
    """Every command has a help text, by -h too, and unknown commands are answered with the nearest."""
    budget = [f"budget {command}".strip() for command in ("", "status", "set", "raise", "remove")]
    for command in ("", "today", "report", "tail", *budget, "adjust", "doctor", "path", "demo"):
        assert run(f"{command} -h").output.startswith("Usage: ")
        assert run(f"{command} --help").exit_code == 0
    assert run("--version").output.startswith("tollspan, version ")
