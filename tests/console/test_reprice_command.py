"""`tollspan reprice`: the difference that is shown, what is written, and how a run is taken back."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from tollspan.console import _progress
from tollspan.console import _reconcile as _console_reconcile
from tollspan.console import _reprice as _console_reprice
from tollspan.console._cli import cli
from tollspan.ledger import Ledger, LedgerEvent, _reprice, new_call_id

NOON = 1_790_000_000 // 86_400 * 86_400 + 43_200


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path):
    with Ledger(path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _prices(tmp_path):
    (tmp_path / "p.toml").write_text('[[price]]\nmodel = "gpt-x"\ninput_mtok = 1\noutput_mtok = 2\n', encoding="utf-8")


def call(ledger, usd="0.0006", **fields):
    """A call that costs twice as much by the file p.toml."""
    usual = {"event_type": "commit", "provider": "openai", "model": "gpt-x", "timestamp": NOON + 1.0}
    event = LedgerEvent(
        **{
            **usual,
            "call_id": new_call_id(NOON).hex(),
            "usage": {"tokens_in": 1000, "tokens_out": 100},
            "cost_actual_usd": usd and Decimal(usd),
            "cost_source": "override",
            **fields,
        }
    )
    ledger.append(event)
    return event.call_id


def run(command):
    return CliRunner().invoke(cli, ["reprice", *shlex.split(command)])


def refused(command):
    """What a command says that ends with 2, without a traceback."""
    result = run(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_dry_run_shows_the_difference_by_day_and_model(book):
    """A table with the total, what stays and why, and nothing written."""
    call(book)
    call(book)
    call(book, model="other", cost_source="provider")
    call(book, None, cost_source="unpriced")
    call(book, usage={})
    result = run("--prices p.toml --dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("calls from the beginning to now, UTC; prices of p.toml, then genai-prices")
    assert lines[1].split() == ["day", "model", "calls", "changed", "old", "new", "difference"]
    assert lines[3].split() == ["2026-09-21", "openai/gpt-x", "4", "3", "$0.0018", "$0.0042", "+$0.0024"]
    assert lines[4:] == [
        "2 calls would cost something else now, 0 the same",
        "1 would have a price for the first time; unpriced: 1 before, 0 after",
        "as before: 1 call whose cost was stated to us (--stated reprices them too)",
        "as before: 1 call whose usage nobody knows",
        "nothing was written; without --dry-run it is",
    ]
    assert book.latest_offset() == 5


def test_a_run_is_written_and_taken_back(book):
    """The name of the run is told, and with it all of it is taken back; reports follow both times."""
    call(book)
    call(book)
    result = run("--prices p.toml")
    assert result.exit_code == 0
    name = result.stdout.rpartition("--undo ")[2].split("`")[0]
    assert f"run {name}: `tollspan reprice --undo {name}` takes it back" in result.stdout
    report = json.loads(CliRunner().invoke(cli, ["report", "--json"]).stdout)
    assert report["total"]["cost"] == "0.002400000"
    result = run(f"--undo {name}")
    assert (result.exit_code, result.stdout) == (0, f"run {name}: 2 adjusts taken back\n")
    assert run(f"--undo {name}").stdout == f"run {name}: 0 adjusts taken back; 2 before\n"
    assert json.loads(run(f"--undo {name} --json").stdout) == {
        "run": name, "taken_back": 0, "taken_back_before": 2, "blocked": 0, "conflicts": 0,
    }  # fmt: skip
    assert sum(event.spend_usd for event in book.events) == Decimal("0.0012")
    assert CliRunner().invoke(cli, ["doctor", "--verify"]).exit_code == 0


def test_what_was_corrected_since_is_told(book):
    """The run cannot be taken back for that call, and the exit status says so."""
    call_id = call(book)
    name = json.loads(run("--prices p.toml --json").stdout)["run"]
    book.adjust(call_id, Decimal("0.7"), reason="the invoice")
    result = run(f"--undo {name}")
    assert result.exit_code == 1
    assert "0 adjusts taken back; 1 left, because those calls were corrected since" in result.stdout


def test_a_first_price_that_was_taken_back_is_none(book):
    """The call is unpriced again, for `adjust` too, and can be made free by hand."""
    call_id = call(book, None, cost_source="unpriced")
    run(f"--undo {json.loads(run('--prices p.toml --json').stdout)['run']}")
    result = CliRunner().invoke(cli, ["adjust", call_id, "0", "--reason", "a trial"])
    assert "before: unpriced\nafter:  $0.00\n" in result.stdout
    assert book.unpriced() == []


def test_in_json(book):
    """Every row, exact; the selection as instants of the zone."""
    call(book)
    call(book, None, model="gpt-9-unknown", cost_source="unpriced", provider="groq")
    data = json.loads(run("--prices p.toml --json --since 2026-09-21 --until 2026-09-22 --tz UTC").stdout)
    assert (data["since"], data["until"]) == ("2026-09-21T00:00:00+00:00", "2026-09-22T00:00:00+00:00")
    assert (data["dry_run"], data["resumed"], data["currency"]) == (False, False, "USD")
    assert data["calls"]["changed"] == data["calls"]["unpriced"] == 1
    assert data["rows"][0] == {
        "day": "2026-09-21", "provider": "openai", "model": "gpt-x", "calls": 1, "changed": 1, "old": "0.000600000",
        "new": "0.001200000", "difference": "0.000600000", "unpriced_before": 0, "unpriced_after": 0,
    }  # fmt: skip
    assert data["total"]["unpriced_after"] == 1


def test_only_what_is_asked_for(book):
    """By model, provider and instants; costs stated or corrected only on request."""
    call(book)
    call(book, provider="groq")
    call(book, cost_source="provider")
    corrected = call(book)
    book.adjust(corrected, Decimal("0.7"), reason="the invoice")
    chosen = "--prices p.toml --dry-run --json --model 'gpt-*'"
    assert json.loads(run(f"{chosen} --provider groq").stdout)["calls"]["changed"] == 1
    assert json.loads(run(f"{chosen} --until 2026-09-21").stdout)["rows"] == []
    assert json.loads(run(chosen).stdout)["calls"]["changed"] == 2
    assert json.loads(run(f"{chosen} --stated --corrected").stdout)["calls"]["changed"] == 4


def test_the_configured_prices_are_used(book, tmp_path, monkeypatch):
    """Without --prices it is the file that calls are priced by."""
    monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "p.toml"))
    call(book)
    result = run("--dry-run")
    assert "1 call would cost something else" in result.stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--since soon", "--since: 'soon' is no instant; write it like"),
        ("--tz Mars", "Mars"),
        (
            "--prices wrong.toml",
            "field 'inptu_mtok'",
        ),
        ("--prices missing.toml", "File 'missing.toml' does not exist"),
        ("--undo 20260101-000000-000", "knows no run '20260101-000000-000' of `tollspan reprice`: it has had no run"),
        ("--undo x --since 7d", "--undo RUN takes no other option than --json"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(book, tmp_path, command, said):
    """Files, instants, zones and runs; nothing is written."""
    (tmp_path / "wrong.toml").write_text("[[price]]\nmodel = 'x'\ninptu_mtok = 1\n", encoding="utf-8")
    call(book)
    assert said in refused(command)
    assert book.latest_offset() == 1


def test_without_a_ledger_nothing_is_made(path):
    """The command reads a ledger, and never makes one."""
    assert "no ledger at" in refused("--dry-run")
    assert not path.exists()


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("terminal", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_long_work_shows_a_bar_on_a_terminal_only(book, tmp_path, monkeypatch, terminal, shown):
    """Repricing, taking back, and reading an export: a bar after a second, gone at the end; none in a pipe."""
    call(book)
    (tmp_path / "export.csv").write_text(f"start_time,amount_value,line_item\n{NOON},1,gpt-x\n", encoding="utf-8")
    monkeypatch.setattr(_progress, "_BAR_AFTER_S", 0)
    monkeypatch.setattr(sys, "stderr", stream := terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    nothing = dict.fromkeys(("since", "until", "model", "provider", "tz"))
    flags = dict.fromkeys(("stated", "corrected", "dry_run", "as_json"), False)
    _console_reprice.reprice(None, prices="p.toml", **nothing, **flags)
    _console_reprice.undo(None, "reprice", book.tail(1)[0].records[0]["run"], as_json=False)
    flags = dict.fromkeys(("adjust", "one_sided", "as_json", "as_csv"), False)
    bounds = dict.fromkeys(("since", "until", "form"))
    _console_reconcile.show(None, files=["export.csv"], same=(), tolerance="1%", **bounds, **flags)
    for what in ("repricing", "taking back", "reading"):
        assert (what in stream.getvalue()) is shown


@pytest.mark.parametrize("command", ["reprice", "reconcile"])
def test_the_page_names_every_option(command):
    """docs/reprice-and-reconcile.md tells what each of them is for."""
    page = (Path(__file__).parents[2] / "docs/reprice-and-reconcile.md").read_text(encoding="utf-8")
    options = [option for each in cli.commands[command].params for option in each.opts]
    assert [option for option in options if option not in page] == []


def test_the_pages_example_runs(book, tmp_path, capsys):
    """It is run as it is written, on this ledger and an export of OpenAI."""
    call(book, "0.5", model="gpt-4o")
    bucket = {"start_time": NOON - 43_200, "end_time": NOON + 43_200}
    result = {"amount": {"value": 1, "currency": "usd"}, "line_item": "gpt-4o, input"}
    (tmp_path / "costs.json").write_text(json.dumps({"data": [{**bucket, "results": [result]}]}))
    page = (Path(__file__).parents[2] / "docs/reprice-and-reconcile.md").read_text(encoding="utf-8")
    exec(compile(page.split("```python\n")[1].split("```")[0], "reprice-and-reconcile.md", "exec"), {})
    repriced, reconciled = capsys.readouterr().out.splitlines()
    assert repriced.startswith("Counter({'changed': 1}) [('2026-09-21', 'gpt-4o', Decimal('-0.4")
    assert reconciled == "False [('2026-09-21', 'gpt-4o', Decimal('0.5'))]"


SLOW = """
import sys, time
from tollspan.ledger import _reprice
from tollspan.console import main
_reprice._PAGE = 8
write = _reprice.write_adjusts
def slowly(*arguments):
    found = write(*arguments)
    print("page", flush=True)
    time.sleep(0.3)
    return found
_reprice.write_adjusts = slowly
sys.argv = ["tollspan", "reprice", "--prices", "p.toml"]
main()
"""


def test_ctrl_c_leaves_what_the_same_command_goes_on_with(book):
    """SIGINT after the first page: it says so without a traceback, and the second run does the rest under one name."""
    for n in range(40):
        call(book, call_id=new_call_id(NOON + n).hex())
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "page\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "interrupted; what is written stays, and the same `tollspan reprice` goes on from there\n"
    done = book.latest_offset() - 40
    assert 0 < done < 40
    data = json.loads(run("--prices p.toml --json").stdout)
    assert (data["resumed"], data["calls"]["changed"], data["calls"]["unchanged"]) == (True, 40 - done, done)
    assert json.loads(run(f"--undo {data['run']} --json").stdout)["taken_back"] == 40
    assert not book.verify()


def test_it_takes_pages_and_not_the_ledger_into_memory(book, monkeypatch):
    """However many calls there are, no more events than a page holds are there at once."""
    monkeypatch.setattr(_reprice, "_PAGE", 8)
    for n in range(40):
        call(book, call_id=new_call_id(NOON + n).hex())
    sizes = []
    write = _reprice.write_adjusts
    monkeypatch.setattr(_reprice, "write_adjusts", lambda *all_: sizes.append(len(all_[2])) or write(*all_))
    assert run("--prices p.toml").exit_code == 0
    assert max(sizes) <= 8
    assert sum(sizes) == 40
