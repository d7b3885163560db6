"""`tollspan tail`: one line for each event, from every process, until it is told to end."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console._cli import cli
from tollspan.ledger import Ledger, LedgerEvent

CENT = Decimal("0.01")
AT = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC).timestamp()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No configuration but that of the test."""
    for name in [n for n in os.environ if n.startswith("TOLLSPAN_") or n in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def event(**fields):
    return LedgerEvent(**{"event_type": "commit", "provider": "openai", "model": "gpt-x", "timestamp": AT, **fields})


def seed(path, *events):
    with Ledger(path) as ledger:
        for each in events:
            ledger.write_event(each)


def lines(path, options="--no-follow"):
    """The lines for events, without date and heading."""
    result = CliRunner().invoke(cli, ["--ledger", str(path), "tail", *options.split()])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[2:]


def offsets(path, options):
    result = CliRunner().invoke(cli, ["--ledger", str(path), "tail", "--json", *options.split()])
    assert result.exit_code == 0, result.output
    return [json.loads(line)["offset"] for line in result.stdout.splitlines()]


USAGE = {"tokens_in": 12345, "tokens_out": 67}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cost_actual_usd": CENT, "usage": USAGE}, "openai/gpt-x 12.3k 67 $0.0100 ok $0.0100"),
        ({"cost_est_usd": CENT, "estimated": True, "status": "error"}, "openai/gpt-x ~$0.0100 error $0.0100"),
        ({"usage": USAGE, "reason": "no price"}, "openai/gpt-x 12.3k 67 unpriced ok $0.00"),
        ({"cost_actual_usd": Decimal(0), "usage": USAGE}, "openai/gpt-x 12.3k 67 $0.00 ok $0.00"),
        (
            {"event_type": "cancel", "status": "error", "attempts": 0, "error_type": "BudgetExhausted"},
            "openai/gpt-x BudgetExhausted refused $0.00",
        ),
        (
            {"event_type": "cancel", "status": "error", "http_status": 429, "error_type": "rate_limit_exceeded"},
            "openai/gpt-x rate_limit_exc… err 429 $0.00",
        ),
        ({"event_type": "cancel", "status": "cancelled"}, "openai/gpt-x cancel $0.00"),
        ({"event_type": "precheck_hold", "cost_est_usd": CENT}, "openai/gpt-x ~$0.0100 hold $0.00"),
        ({"event_type": "retry", "cost_est_usd": CENT, "estimated": True}, "openai/gpt-x ~$0.0100 retry $0.0100"),
        ({"event_type": "adjust", "cost_actual_usd": -CENT}, "openai/gpt-x $-0.0100 adjust $-0.0100"),
        ({"event_type": "wait"}, "openai/gpt-x wait $0.00"),
        ({"model": None, "provider": None, "cost_actual_usd": CENT}, "-/- $0.0100 ok $0.0100"),
    ],
)
def test_a_line_tells_what_happened(path, fields, words):
    """A line has time, model, tokens or error, cost (~ for an estimate, or unpriced), outcome, and the total so far."""
    seed(path, event(**fields))
    assert [line.split() for line in lines(path)] == [["05:06:07", *words.split()]]


def test_the_total_runs_and_the_day_and_zone_are_told(path):
    """The total is that of the lines so far; a heading with date and zone stands before each new day."""
    seed(path, event(cost_actual_usd=CENT), event(cost_actual_usd=CENT * 2, timestamp=AT + 20 * 3600))
    result = CliRunner().invoke(cli, ["--ledger", str(path), "tail", "--no-follow", "--tz", "Asia/Tokyo"])
    heading, names, first, second_heading, _, second = result.stdout.splitlines()
    assert (heading, second_heading) == ("2026-03-04 (Asia/Tokyo)", "2026-03-05 (Asia/Tokyo)")
    assert names.split() == ["time", "model", "in", "out", "cost", "status", "total"]
    assert (first.split()[0], first.split()[-1]) == ("14:06:07", "$0.0100")
    assert (second.split()[0], second.split()[-1]) == ("10:06:07", "$0.0300")


def test_lines_are_aligned_in_80_columns(path):
    """Whatever the names and amounts, a line is 80 columns wide and its columns stand below their headings."""
    long = {"provider": "azure.ai.openai", "model": "gpt-5-mini-2025-08-07-preview", "cost_actual_usd": Decimal(9999)}
    seed(path, event(**long), event(cost_actual_usd=Decimal("0.000000001"), usage=USAGE), event(model="a\x1b[2Jb"))
    result = CliRunner().invoke(cli, ["--ledger", str(path), "tail", "--no-follow"])
    assert {len(line) for line in result.stdout.splitlines()[1:]} == {80}
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("--no-follow", list(range(3, 13))),
        ("--no-follow --from 0", list(range(1, 13))),
        ("--no-follow --from 10", [11, 12]),
        ("--no-follow --from 99", []),
        ("--no-follow --last 2", [11, 12]),
        ("--no-follow --last 0", []),
        ("--limit 2", [11, 12]),
        ("--from 3 --limit 2", [4, 5]),
        ("--limit 0", []),
    ],
)
def test_where_it_begins_and_ends(path, options, wanted):
    """--from begins after an offset, --last that many before the end, and --limit ends after so many events."""
    seed(path, *(event(cost_actual_usd=CENT) for _ in range(12)))
    assert offsets(path, options) == wanted


def test_json_has_every_field_and_exact_costs(path):
    """For programs: one object a line with every field of the event, costs as exact texts, and the running total."""
    seed(path, event(cost_actual_usd=CENT, usage=USAGE, tags={"feature": "x"}), event(cost_actual_usd=CENT))
    result = CliRunner().invoke(cli, ["--ledger", str(path), "tail", "--no-follow", "--json"])
    first, second = map(json.loads, result.stdout.splitlines())
    assert set(first) == {*LedgerEvent.__dataclass_fields__, "spend", "currency", "total"}
    assert (first["cost_actual_usd"], first["cost_est_usd"], first["spend"]) == ("0.010000000", None, "0.010000000")
    assert (first["usage"], first["tags"], first["timestamp"]) == (USAGE, {"feature": "x"}, AT)
    assert second["total"] == "0.020000000"


def start(path, *options):
    """A tail that runs on, once it is known to be following."""
    full = [sys.executable, "-u", "-m", "tollspan.console", "--ledger", str(path), "tail", *options]
    return subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_follows_other_processes_and_ends_well_on_ctrl_c(path):
    """Events of other processes appear as they are committed; Ctrl-C ends it with status 0 and without a traceback."""
    seed(path, event(cost_actual_usd=CENT))
    with start(path, "--json") as following:
        assert json.loads(following.stdout.readline())["offset"] == 1
        seed(path, event(cost_actual_usd=CENT * 2), event(cost_actual_usd=CENT * 3))
        totals = [json.loads(following.stdout.readline())["total"] for _ in range(2)]
        assert totals == ["0.030000000", "0.060000000"]
        assert following.poll() is None
        following.send_signal(signal.SIGINT)
        rest, errors = following.communicate(timeout=20)
    assert (following.returncode, rest, errors) == (0, "", "")


def test_it_can_wait_for_the_next_event_only(path):
    """`--last 0 --limit 1` waits for one new event, shows it, and ends."""
    seed(path, event())
    with start(path, "--last", "0", "--limit", "1") as waiting:
        while waiting.poll() is None:
            seed(path, event(cost_actual_usd=CENT))
            try:
                text, errors = waiting.communicate(timeout=1)
            except subprocess.TimeoutExpired:
                continue
    assert (waiting.returncode, errors) == (0, "")
    assert text.splitlines()[-1].split()[-1] == "$0.0100"


def test_a_reader_that_has_enough_is_no_error_worth_a_traceback(path):
    """When the program behind the pipe ends, so does the tail, without a word."""
    seed(path, *(event() for _ in range(3)))
    with start(path, "--json") as following:
        following.stdout.readline()
        following.stdout.close()
        seed(path, *(event() for _ in range(3)))
        errors = following.stderr.read()
        following.wait(timeout=20)
    assert errors == ""
