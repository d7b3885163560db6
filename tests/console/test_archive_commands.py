"""Export, import and snapshot on the command line: what is written where, what is said, and how it ends."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console import _archive, _progress
from tollspan.console._cli import cli
from tollspan.ledger import Ledger, LedgerEvent, new_call_id


@pytest.fixture(name="path")
def _path(tmp_path):
    """A ledger of three calls: one of now, one of an hour ago, one of 2001."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        for at in (time.time(), time.time() - 3600, 1e9):
            ledger.append(event(call_id=new_call_id(at).hex()))
    return path


def event(**fields):
    return LedgerEvent(**{"event_type": "commit", "model": "gpt-x", "cost_actual_usd": Decimal("0.01"), **fields})


def run(command, path, **options):
    """A command in this process."""
    return CliRunner().invoke(cli, ["--ledger", str(path), *command.split()], **options)


def events(path):
    """The events of a ledger, by their ids."""
    with Ledger.from_file(path) as ledger:
        return [each.event_id for each in ledger.events]


# ---- export


def test_export_says_how_much_was_written(path, tmp_path):
    """The file gets all events, and by the next export those that came since; programs get the figures."""
    result = run("export out.jsonl", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "3 events exported to out.jsonl\n", "")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4
    with Ledger(path) as ledger:
        ledger.append(event())
    assert run("export out.jsonl", path).stdout == "1 event exported to out.jsonl\n"
    result = run("export out.jsonl --json", path)
    assert json.loads(result.stdout) == {"events": 0, "file": "out.jsonl", "format": "jsonl"}


def test_export_to_stdout_has_nothing_but_the_export(path):
    """With - the lines go to stdout, so that they can be piped, and the figures to stderr."""
    result = run("export -", path)
    assert [json.loads(line).get("model") for line in result.stdout.splitlines()] == [None, "gpt-x", "gpt-x", "gpt-x"]
    assert result.stderr == "3 events exported to stdout\n"
    assert json.loads(run("export - --json", path).stderr) == {"events": 3, "file": "-", "format": "jsonl"}


@pytest.mark.parametrize(
    ("bounds", "count"),
    [("--since 30m", 1), ("--until 30m", 2), ("--since 2001-09-09 --until 2001-09-10 --tz Asia/Tokyo", 1), ("", 3)],
)
def test_export_is_bounded_by_instants(path, bounds, count):
    """--since and --until are read as in reports, in the zone of --tz, and take calls by their beginning."""
    assert json.loads(run(f"export out.jsonl --json {bounds}", path).stdout)["events"] == count


def test_export_as_parquet_fills_a_folder(path, tmp_path):
    """Other programs read the folder as one table."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    assert run("export out --format parquet", path).stdout == "3 events exported to out\n"
    assert sum(parquet.read_table(tmp_path / "out")["spend_usd"].to_pylist()) == Decimal("0.03")


def test_export_without_pyarrow_tells_the_command_to_get_it(path, monkeypatch):
    """Where the extra is missing, the error is the pip command, with exit status 2."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export out --format parquet", path)
    assert result.exit_code == 2
    assert result.stderr == 'Error: Parquet needs pyarrow: pip install "tollspan[parquet]"\n'


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("export - --format parquet", "Parquet is exported to a folder, not to stdout"),
        ("export notes.txt", "notes.txt exists and is no export of a ledger; it was left as it is"),
        ("export nowhere/out.jsonl", "nowhere/out.jsonl: No such file or directory"),
        ("export .", ".: Is a directory"),
        ("export out.jsonl --since tomorow", "--since: 'tomorow' is no instant"),
        ("export out.jsonl --format csv", "'csv' is not one of 'jsonl', 'parquet'"),
        ("export", "Missing argument 'FILE'"),
        ("import nothing.jsonl", "'nothing.jsonl' does not exist"),
        ("import ledger.db", "this is a ledger, not an export of one"),
        ("snapshot notes.txt", "notes.txt exists already; a snapshot is never written over something"),
        ("snapshot nowhere/copy.db", "nowhere/copy.db: unable to open database file"),
    ],
)
def test_wrong_use_ends_with_2_and_a_sentence(path, tmp_path, command, said):
    """What cannot be done is said in a sentence, without a traceback, and changes no file."""
    (tmp_path / "notes.txt").write_text("mine")
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(events(path)) == 3


@pytest.mark.parametrize("command", ["export out.jsonl", "export out --format parquet", "snapshot copy.db"])
def test_without_a_ledger_nothing_is_made(tmp_path, command):
    """A command that reads makes neither a ledger nor its target."""
    result = run(command, tmp_path / "none.db")
    assert result.exit_code == 2
    assert "no ledger at" in result.stderr
    assert list(tmp_path.iterdir()) == []


# ---- import


def test_import_makes_the_ledger_that_was_exported(path, tmp_path):
    """A new ledger gets all events; a second import finds them known; both end with 0."""
    run("export out.jsonl", path)
    new = tmp_path / "new.db"
    result = run("import out.jsonl", new)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"3 events imported from out.jsonl into {new}, 0 known before\n"
    result = run("import out.jsonl --json", new)
    figures = {"stored": 0, "known": 3, "malformed": 0, "conflicts": 0, "refused": 0, "file": "out.jsonl"}
    assert (result.exit_code, json.loads(result.stdout)) == (0, figures)
    assert events(new) == events(path)
    assert run("report --csv", new).stdout == run("report --csv", path).stdout


def test_import_reads_stdin(path, tmp_path):
    """With - the lines come from a pipe, of another tollspan for example."""
    lines = run("export -", path).stdout_bytes
    result = run("import -", tmp_path / "new.db", input=lines)
    assert (result.exit_code, result.stdout[:29]) == (0, "3 events imported from stdin ")


def test_import_with_problems_ends_with_1(path, tmp_path):
    """What is left out is named by line on stderr and counted in the result; the rest is imported."""
    run("export out.jsonl", path)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    changed = [lines[1].replace("gpt-x", "gpt-y"), lines[2].replace('"schema_version":1', '"schema_version":9'), "torn"]
    (tmp_path / "bad.jsonl").write_text("\n".join([*lines[:2], *changed, lines[3]]))
    result = run("import bad.jsonl", new := tmp_path / "new.db")
    assert result.exit_code == 1
    assert result.stdout.endswith("new.db, 0 known before; left out: 1 malformed, 1 in conflict, 1 refused\n")
    assert sorted(line[:7] for line in result.stderr.splitlines()) == ["line 3:", "line 4:", "line 5:"]
    assert len(events(new)) == 2
    assert run("import bad.jsonl --json", new).exit_code == 1


def test_import_into_memory_is_refused(path):
    """A ledger in memory would be gone at the end of the command."""
    run("export out.jsonl", path)
    result = CliRunner().invoke(cli, ["--ledger", "sqlite:///:memory:", "import", "out.jsonl"])
    assert result.exit_code == 2
    assert "in memory" in result.stderr


# ---- snapshot


def test_snapshot_is_a_ledger(path, tmp_path):
    """A snapshot has every event, and is a ledger of its own."""
    result = run("snapshot copy.db", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"snapshot of {path}: copy.db, 0.")
    assert events(tmp_path / "copy.db") == events(path)
    figures = json.loads(run("snapshot other.db --json", path).stdout)
    assert figures == {"ledger": str(path), "file": "other.db", "bytes": (tmp_path / "other.db").stat().st_size}


# ---- as real processes


def real(command, path, **streams):
    """A command in a process of its own."""
    full = [sys.executable, "-m", "tollspan.console", "--ledger", str(path), *command.split()]
    return subprocess.Popen(full, **streams)


def test_two_ledgers_are_joined_by_a_pipe(path, tmp_path):
    """`tollspan export - | tollspan import -` copies a log, without a bar or a colour where there is no terminal."""
    with real("export -", path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source:
        target = real("import -", tmp_path / "new.db", stdin=source.stdout, stderr=subprocess.PIPE)
        told = target.communicate()[1], source.communicate()[1]
    assert (source.returncode, target.returncode, told) == (0, 0, (b"", b"3 events exported to stdout\n"))
    assert events(tmp_path / "new.db") == events(path)


def test_a_reader_that_has_enough_is_no_error(path):
    """`tollspan export - | head -1` ends without a traceback."""
    with Ledger(path) as ledger:
        for _ in range(500):
            ledger.write_event(event())
    mine, theirs = os.pipe()
    os.close(mine)
    with real("export -", path, stdout=theirs, stderr=subprocess.PIPE) as source:
        os.close(theirs)
        assert source.stderr.read() == b""


def test_a_terminal_shows_no_bar_for_quick_work(path, tmp_path):
    """What is done at once leaves nothing but its result on a terminal."""
    mine, theirs = pty.openpty()
    with real("export out.jsonl", path, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert process.stdout.read() == b"3 events exported to out.jsonl\n"
    with pytest.raises(OSError, match="Input/output error"):  # Linux says so when nothing was written
        os.read(mine, 1)
    os.close(mine)


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("terminal", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_long_work_shows_a_bar_on_a_terminal_only(path, monkeypatch, terminal, shown):
    """Work that goes on after a second has a bar on a terminal, which is taken away at the end; others see none."""
    monkeypatch.setattr(_progress, "_BAR_AFTER_S", 0)
    monkeypatch.setattr(sys, "stderr", stream := terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    _archive.export(str(path), "out.jsonl", form="jsonl", since=None, until=None, tz=None, as_json=False)
    assert ("exporting" in stream.getvalue()) is shown
    assert ("100%" in stream.getvalue()) is shown
