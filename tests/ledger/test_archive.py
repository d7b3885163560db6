"""The log in files: what was exported is imported as it was, whatever was killed, torn, repeated, or not ours."""

import io
import json
import signal
import sqlite3
import sys
import time
import tracemalloc
from contextlib import closing
from dataclasses import fields, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import a_request, commit, requests_limit, script

from tollspan.ledger import Balance, Charge, Imported, Ledger, LedgerError, LedgerEvent, event_id_for, new_call_id
from tollspan.ledger import _parquet as parquet_room
from tollspan.ledger._filelock import FileLock
from tollspan.ledger._lines import _READERS

B = ("b [requests]", "", 0)
DAY_S = 86_400
CHARGE = Charge(budget="b [requests]", scope="", window_start=0, amount=7)


def seed(ledger, count, **fields_of_each):
    """Store so many commits, each of which counts in the budget b."""
    for _ in range(count):
        ledger.write_event(commit(**{"charges": (CHARGE,), **fields_of_each}))
    assert ledger.flush(60)


def typical(ledger):
    """Store events of every kind, one with all its fields; a hold among them stays open."""
    assert ledger.writer.ask(a_request(requests_limit(9))).wait()
    seed(ledger, 3, tags={"feature": "s\u00fc\u00df", "\u20ac": "\x00"}, usage={"tokens_in": 7, "audio_seconds": 0.1})
    full = commit("0.000000001", cost_rates={"input": ["2.5", None]}, records=({"a": [1, {"b": None}]},), attempts=0)
    full = replace(full, trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", http_status=200)
    names = [f.name for f in fields(LedgerEvent) if getattr(full, f.name) is None and "cost" not in f.name]
    ledger.write_event(replace(full, **{name: f"{name} \u2028\n\"'" for name in names if name != "offset"}))
    ledger.write_event(commit(None, cost_est_usd=Decimal("9000000000.123456789"), estimated=True, charges=(CHARGE,)))
    ledger.write_event(commit(None, reason="no price"))
    ledger.write_event(LedgerEvent(event_type="adjust", cost_actual_usd=Decimal("-0.01"), profile_id="p"))
    ledger.write_event(LedgerEvent(event_type="cancel", status="cancelled"))


def log(ledger):
    """The events as they are in every ledger."""
    return [replace(event, offset=None) for event in ledger.events]


def spent(ledger):
    """All balances, but for what is held."""
    rows = ledger.store.query("SELECT budget, scope, window_start, spent, estimated FROM balance")
    return {tuple(row) for row in rows if any(row[3:])}


@pytest.fixture(name="other")
def _other(tmp_path):
    """Another ledger, empty."""
    with Ledger(tmp_path / "other.db") as other:
        yield other


@pytest.fixture(name="file")
def _file(tmp_path):
    return tmp_path / "export.jsonl"


def exported(ledger, **bounds):
    """The lines of an export to a stream."""
    stream = io.BytesIO()
    ledger.export_jsonl(stream, **bounds)
    return stream.getvalue().splitlines(keepends=True)


def imported(ledger, *lines):
    """Import lines; what was found, and the warnings."""
    told = []
    return ledger.import_jsonl(io.BytesIO(b"".join(lines)), warn=told.append), told


# ---- there and back


def test_a_ledger_comes_back_as_it_was(ledger, other, file):
    """Every event returns with its ids, time and content, every balance with its sum; no hold is opened by it."""
    typical(ledger)
    assert ledger.export_jsonl(file) == 9
    assert other.import_jsonl(file) == Imported(stored=9)
    assert log(other) == log(ledger)
    assert spent(other) == spent(ledger)
    assert other.balance(B) == Balance(spent=28, held=0, estimated=7)
    assert ledger.balance(B).held == 1
    assert other.open_holds().calls == 0
    assert other.verify() == ledger.verify() == []


def test_importing_again_adds_nothing(ledger, other, file):
    """A second import finds all events known, and so does an import into the ledger that was exported."""
    typical(ledger)
    ledger.export_jsonl(file)
    other.import_jsonl(file)
    before = list(other.events), spent(other)
    assert other.import_jsonl(str(file)) == ledger.import_jsonl(file) == Imported(known=9)
    assert (list(other.events), spent(other)) == before
    assert other.verify() == ledger.verify() == []


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
amounts = st.none() | st.integers(-(2**60), 2**60).map(lambda nano: Decimal(nano).scaleb(-9))
numbers = st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
hexadecimal = st.binary(min_size=1, max_size=16).map(bytes.hex)
charges = st.builds(
    Charge, budget=texts, scope=texts, window_start=st.integers(0, 2**62), amount=st.integers(-(2**40), 2**40)
)
events = st.builds(
    LedgerEvent,
    event_type=st.sampled_from(["precheck_hold", "commit", "cancel", "adjust", "wait", "retry", "exposure"]),
    call_id=st.binary(min_size=14, max_size=14).map(bytes.hex),
    trace_id=st.none() | hexadecimal,
    span_id=st.none() | hexadecimal,
    provider=st.none() | texts,
    usage=st.dictionaries(texts, numbers, max_size=3),
    cost_est_usd=amounts,
    cost_actual_usd=amounts,
    cost_source=st.none() | texts,
    cost_rates=st.none() | st.dictionaries(texts, anything, max_size=3),
    status=st.sampled_from(["ok", "error", "cancelled"]),
    timing=st.dictionaries(texts, numbers, max_size=3),
    http_status=st.none() | st.integers(-(2**63), 2**63 - 1),
    timestamp=st.floats(allow_nan=False, allow_infinity=False).filter(bool),
    user_id=st.none() | texts,
    tags=st.dictionaries(texts, texts, max_size=3),
    records=st.lists(st.dictionaries(texts, anything, max_size=3), max_size=2).map(tuple),
    charges=st.lists(charges, max_size=3).map(tuple),
    estimated=st.booleans(),
    error_message=st.none() | texts,
    attempts=st.integers(0, 2**63 - 1),
)


@given(st.lists(events, max_size=5, unique_by=lambda event: event.event_id))
@settings(deadline=None, max_examples=60)
def test_whatever_a_ledger_can_store_comes_back(several):
    """Odd texts, missing values and the largest numbers come back exactly, and count what they counted."""
    with Ledger(None) as one, Ledger(None) as two:
        for event in several:
            one.write_event(event)
        found, told = imported(two, *exported(one))
        assert (found.stored, found.problems, told) == (len(one.tail()), 0, [])
        assert log(two) == log(one)
        assert spent(two) == spent(one)
        assert imported(one, *exported(two))[0] == Imported(known=found.stored)
        assert two.verify() == []


def test_every_field_of_an_event_can_be_read():
    """A field that LedgerEvent gets one day is not refused as unknown by the next import."""
    assert set(_READERS) == {field.name for field in fields(LedgerEvent)}


def test_a_line_is_an_event_for_programs(ledger):
    """The first line says what the file is; each other one is an event by LedgerEvent's names, with exact money."""
    seed(ledger, 1, model="gpt-4o")
    header, line = map(json.loads, exported(ledger))
    assert header == {"tollspan_export": 1, "schema_version": 1, "since": None, "until": None}
    assert list(line) == [field.name for field in fields(LedgerEvent)]
    assert (line["cost_actual_usd"], line["cost_est_usd"], line["offset"]) == ("0.010000000", None, 1)
    assert line["charges"] == [{"budget": "b [requests]", "scope": "", "window_start": 0, "amount": 7}]
    assert len(line["event_id"]) == 32


def test_hidden_events_are_part_of_the_log(ledger, other, file):
    """What `reset` hides counts in balances, so it is exported with the rest."""
    seed(ledger, 2)
    ledger.reset()
    assert ledger.export_jsonl(file) == 2
    other.import_jsonl(file)
    assert spent(other) == spent(ledger)


def test_bounds_take_whole_calls(ledger):
    """From `since` to before `until` a call counts by its beginning, as in reports, however late its events came."""
    calls = [new_call_id(at).hex() for at in (1000, 1999.999, 2000, 3000)]
    for call_id in calls:
        ledger.write_event(commit(call_id=call_id, timestamp=5000))

    def found(**bounds):
        return [calls.index(json.loads(line)["call_id"]) for line in exported(ledger, **bounds)[1:]]

    assert found(since=2000) == [2, 3]
    assert found(until=2000) == [0, 1]
    assert found(since=1000.5, until=2000.5) == [1, 2]
    assert found(since=-1, until=1e30) == [0, 1, 2, 3]


def test_balances_in_memory_see_an_import(ledger, other):
    """A best-effort budget of the importing process counts with what was imported, not with what it knew before."""
    seed(ledger, 3)
    assert other.cached_balance(B) == Balance()
    imported(other, *exported(ledger))
    assert other.cached_balance(B).spent == 21


def test_progress_ends_at_all_of_it(ledger, other, file):
    """An export counts offsets and an import bytes; both rise to the total."""
    seed(ledger, 1200)
    steps = []
    ledger.export_jsonl(file, progress=lambda *step: steps.append(step))
    assert steps == [(500, 1200), (1000, 1200), (1200, 1200)]
    steps.clear()
    other.import_jsonl(file, progress=lambda *step: steps.append(step))
    size = file.stat().st_size
    assert steps[-1] == (size, size)
    assert len(steps) >= 3
    assert steps == sorted(steps)


# ---- an export that goes on


def test_an_export_gets_what_it_lacks(ledger, file):
    """Exported again, a file has the events that came since, and is as if it were exported at once."""
    for count in (2, 0, 3):
        seed(ledger, count)
        assert ledger.export_jsonl(file) == count
    assert file.read_bytes().splitlines(keepends=True) == exported(ledger)


def test_a_torn_line_is_written_anew(ledger, file):
    """Wherever an export was cut, in its header too, the next one makes it whole."""
    seed(ledger, 2)
    whole = b"".join(exported(ledger))
    for size in (*range(70), *range(len(whole) - 60, len(whole) + 1)):
        file.write_bytes(whole[:size])
        ledger.export_jsonl(file)
        assert file.read_bytes() == whole, size


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"\xff\xfe\n", b"[]\n", b"\n"])
def test_a_file_of_another_kind_is_never_written(ledger, file, content):
    """What is no export is left as it is to the byte."""
    seed(ledger, 1)
    file.write_bytes(content)
    with pytest.raises(LedgerError, match="is no export of a ledger; it was left as it is"):
        ledger.export_jsonl(file)
    assert file.read_bytes() == content


@pytest.mark.parametrize("size", [1, 3], ids=["shorter", "longer"])
def test_an_export_of_another_ledger_is_not_continued(ledger, other, file, size):
    """Offsets mean something in one ledger only: its export takes no events of another one."""
    seed(ledger, 2)
    ledger.export_jsonl(file)
    before = file.read_bytes()
    seed(other, size)
    with pytest.raises(LedgerError, match="was exported from another ledger"):
        other.export_jsonl(file)
    assert file.read_bytes() == before


def test_an_export_with_other_bounds_or_of_another_version_is_not_continued(ledger, file):
    """An export of some events would have holes where others were added, so it is refused."""
    seed(ledger, 2)
    ledger.export_jsonl(file, since=1000)
    assert ledger.export_jsonl(file, since=1000) == 0
    with pytest.raises(LedgerError, match="with other bounds"):
        ledger.export_jsonl(file)
    file.write_bytes(file.read_bytes().replace(b'"tollspan_export":1', b'"tollspan_export":2'))
    with pytest.raises(LedgerError, match="by another version"):
        ledger.export_jsonl(file, since=1000)


def test_an_export_whose_end_is_damaged_is_left_alone(ledger, file):
    """Where the last line is whole but no event, nobody knows what else is wrong, and nothing is cut off."""
    seed(ledger, 2)
    ledger.export_jsonl(file)
    file.write_bytes(damaged := file.read_bytes() + b"{}\n")
    with pytest.raises(LedgerError, match="damaged last line"):
        ledger.export_jsonl(file)
    assert file.read_bytes() == damaged


def test_an_export_outlives_what_was_pruned(ledger, file):
    """An export keeps events that the ledger has pruned, and goes on with those that came since."""
    seed(ledger, 2, call_id="")
    ledger.write_event(commit(call_id=new_call_id(time.time() - 9 * DAY_S).hex()))
    ledger.export_jsonl(file)
    assert ledger.prune(2).events == 1
    seed(ledger, 1)
    assert ledger.export_jsonl(file) == 1
    assert len(file.read_bytes().splitlines()) == 5


def test_two_exports_do_not_mix(ledger, file):
    """While one process exports to a file, another one is refused."""
    seed(ledger, 1)
    with FileLock(file), pytest.raises(LedgerError, match="another process exports"):
        ledger.export_jsonl(file)
    assert ledger.export_jsonl(file) == 1


# ---- what is left out


def changed(line, **values):
    """A line with other values in it; a value of ... takes the field away."""
    found = {**json.loads(line), **values}
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode() + b"\n"


def nested(depth):
    """An object in an object, and so on."""
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "values",
    [
        {"event_id": ...},
        {"call_id": None},
        {"event_id": ""},
        {"event_id": "0g"},
        {"event_id": "ab cd"},
        {"event_id": 7},
        {"event_type": "commits"},
        {"event_type": ["commit"]},
        {"status": None},
        {"timestamp": ...},
        {"timestamp": 0},
        {"timestamp": "2026-01-01"},
        {"schema_version": ...},
        {"cost_actual_usd": 0.01},
        {"cost_actual_usd": "NaN"},
        {"cost_actual_usd": "1e999999999"},
        {"cost_actual_usd": "0.0000000001"},
        {"cost_actual_usd": "9999999999"},
        {"cost_actual": "1"},
        {"secret": "1"},
        {"attempts": True},
        {"attempts": 2**63},
        {"estimated": 1},
        {"provider": 5},
        {"usage": None},
        {"usage": [1]},
        {"records": {}},
        {"records": ["a"]},
        {"charges": [["b", "", 0, 7]]},
        {"charges": [{"budget": "b", "scope": "", "window_start": 0}]},
        {"charges": [{"budget": "b", "scope": "", "window_start": 0, "amount": 0.5}]},
        {"charges": [{"budget": "b", "scope": "", "window_start": 0, "amount": 2**63 - 1}] * 2},
        {"trace_id": "xyz"},
        {"cost_rates": nested(300)},
    ],
    ids=lambda values: str(values)[:60],
)
def test_a_line_that_is_no_event_is_skipped(ledger, other, values):
    """A malformed line is counted and named, nothing of it is stored or told, and the others are imported."""
    seed(ledger, 3)
    header, first, second, third = exported(ledger)
    found, told = imported(other, header, first, changed(second, **{"user_id": "secret", **values}), third)
    assert found == Imported(stored=2, malformed=1)
    assert len(told) == 1
    assert told[0].startswith("line 3: ")
    assert told[0].endswith("; the line was skipped")
    assert "secret" not in told[0]
    assert log(other) == log(ledger)[::2]
    assert other.verify() == []


@pytest.mark.parametrize("line", [b"{", b"nonsense", b"7", b"[]", b"{}", b"\xff\x00", b'{"tollspan_export": "x"}'])
def test_a_torn_or_foreign_line_is_skipped(ledger, other, line):
    """What is no JSON object, or the rest of one, is counted; empty lines and further headers are not."""
    seed(ledger, 2)
    header, first, second = exported(ledger)
    found, told = imported(other, first, line + b"\n", b"\n", header, b"  \r\n", second[:-1])
    assert found == Imported(stored=2, malformed=1)
    assert [text[:7] for text in told] == ["line 2:"]


def test_the_last_line_may_be_torn(ledger, other):
    """An export that is still being written is imported as far as it goes; the rest comes with the next import."""
    seed(ledger, 2)
    lines = exported(ledger)
    assert imported(other, *lines[:2], lines[2][:-9])[0] == Imported(stored=1, malformed=1)
    assert imported(other, *lines)[0] == Imported(stored=1, known=1)


def test_a_line_without_an_end_takes_no_memory(other, monkeypatch):
    """A line longer than any event is malformed as a whole, and what follows it is read."""
    monkeypatch.setattr("tollspan.ledger._archive._LONGEST_LINE", 1000)
    with Ledger(None) as ledger:
        seed(ledger, 1, reason=None)
        line = exported(ledger)[1]
        assert len(line) < 1000
        found, told = imported(other, b"x" * 5500 + b"\n", line, b"y" * 999 + b"\n", b"z" * 4000)
    assert found == Imported(stored=1, malformed=3)
    assert [text[:7] for text in told] == ["line 1:", "line 3:", "line 4:"]


def test_the_same_id_with_other_content_is_a_conflict(ledger, other):
    """The event that is stored stays, and balances too; the conflict is named with its line and what differs."""
    seed(ledger, 2)
    header, first, second = exported(ledger)
    imported(other, header, first)
    found, told = imported(other, header, changed(first, cost_actual_usd="5"), second, changed(second, user_id="eve"))
    assert found == Imported(stored=1, conflicts=2)
    assert "line 2: event" in told[0]
    assert "is stored with another cost_actual_nusd, spend_nusd; it was not stored" in told[0]
    assert "line 4: event" in told[1]
    assert log(other) == log(ledger)
    assert spent(other) == spent(ledger)


def test_an_event_of_a_newer_version_is_refused(ledger, other):
    """What this version may misunderstand is not stored, even where it looks familiar; the sentence says what to do."""
    seed(ledger, 2)
    header, first, second = exported(ledger)
    found, told = imported(other, header, changed(first, schema_version=2, new_field=1), second)
    assert found == Imported(stored=1, refused=1)
    wanted = "line 2: the event has schema version 2, this tollspan knows 1: upgrade tollspan, and import again"
    assert told == [wanted]
    with pytest.raises(LedgerError, match="this export has format 2, this tollspan knows 1: upgrade tollspan first"):
        imported(other, changed(header, tollspan_export=2), second)


def test_an_event_of_a_pruned_call_is_refused(ledger):
    """What was pruned counts already in the opening balances: it would be counted twice."""
    ledger.write_event(commit(call_id=new_call_id(time.time() - 9 * DAY_S).hex(), charges=(CHARGE,)))
    seed(ledger, 1)
    lines = exported(ledger)
    ledger.prune(2)
    before = spent(ledger)
    found, told = imported(ledger, *lines)
    assert found == Imported(known=1, refused=1)
    assert "line 2: event" in told[0]
    assert "pruned" in told[0]
    assert spent(ledger) == before
    assert ledger.verify() == []


def test_a_ledger_or_a_parquet_file_is_no_export(ledger, other, tmp_path):
    """Files that are taken for an export by mistake are named for what they are, and change nothing."""
    seed(ledger, 1)
    ledger.snapshot_to(tmp_path / "copy.db")
    with pytest.raises(LedgerError, match="is a ledger, not an export of one"):
        other.import_jsonl(tmp_path / "copy.db")
    with pytest.raises(LedgerError, match="is a Parquet file, which cannot be imported"):
        imported(other, b"PAR1\x15\x04\n")
    assert not other.path.exists()
    with pytest.raises(FileNotFoundError):
        other.import_jsonl(tmp_path / "nothing.jsonl")


def test_a_file_full_of_problems_tells_of_the_first_ones(other, caplog):
    """Twenty problems are told one by one, by default to the log; all are counted."""
    found = other.import_jsonl(io.BytesIO(b"nonsense\n" * 1000))
    assert found == Imported(malformed=1000)
    assert found.problems == 1000
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "line 21: there is a problem too; from here on they are only counted"


# ---- killed in the middle

EXPORT = """
import sys
from pathlib import Path
from tollspan.ledger import Ledger

def progress(done, total):
    print(done, flush=True)
    sys.stdin.readline()

Ledger(sys.argv[1]).export_{}(Path(sys.argv[2]), progress=progress)
"""
IMPORT = EXPORT.replace("export_{}", "import_jsonl")


def killed(text, ledger, file, after):
    """Run a script until it has made so many steps, and kill it there; what it told at each."""
    with script(text, ledger.path, file) as process:
        told = []
        for step in range(after):
            if step:
                print(file=process.stdin, flush=True)
            told.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return told


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGKILL")
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_export_goes_on(ledger, other, file, after):
    """After SIGKILL between any pages, an export again makes the file whole: nothing is missing or there twice."""
    seed(ledger, 2300)
    assert killed(EXPORT.format("jsonl"), ledger, file, after)[-1] == f"{500 * after}\n"
    assert file.stat().st_size < len(b"".join(exported(ledger)))
    ledger.export_jsonl(file)
    assert file.read_bytes().splitlines(keepends=True) == exported(ledger)
    assert other.import_jsonl(file) == Imported(stored=2300)


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGKILL")
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_import_goes_on(ledger, other, file, after):
    """After SIGKILL between any batches, an import again stores what is missing, and balances are right throughout."""
    seed(ledger, 2300)
    ledger.export_jsonl(file)
    killed(IMPORT, other, file, after)
    there = 500 * after - 1  # a batch is as many lines, and the first one is the header
    assert len(list(other.events)) == there
    assert other.verify() == []
    assert other.import_jsonl(file) == Imported(stored=2300 - there, known=there)
    assert log(other) == log(ledger)
    assert spent(other) == spent(ledger)
    assert other.verify() == []


# ---- memory


def test_memory_stays_the_same_for_a_log_of_any_length(ledger, other, file):
    """20,000 events, whose objects would take more than 100 MB, pass through both ways in less than 20 MB."""
    seed(ledger, 20_000)
    for work in (lambda: ledger.export_jsonl(file), lambda: other.import_jsonl(file)):
        tracemalloc.start()
        try:
            work()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20_000_000
    assert other.latest_offset() == 20_000


# ---- Parquet


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    """A folder to come, with parts of four events in groups of two."""
    monkeypatch.setattr(parquet_room, "_GROUP", 2)
    monkeypatch.setattr(parquet_room, "_PART_ROWS", 4)
    return tmp_path / "new" / "parquet"


def rows(folder):
    """The rows of all parts."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    return [row for path in parts(folder) for row in parquet.read_table(folder / path).to_pylist()]


def parts(folder):
    return sorted(path.name for path in folder.iterdir())


def test_parquet_has_every_field(ledger, folder):
    """A row has an event's fields, with money as exact decimals and objects as JSON, and what the event spends."""
    typical(ledger)
    assert ledger.export_parquet(folder) == 9
    found, wanted = rows(folder), list(ledger.events)
    for name in ("offset", "event_id", "timestamp", "cost_actual_usd", "estimated", "error_message", "spend_usd"):
        assert [row[name] for row in found] == [getattr(event, name) for event in wanted]
    assert list(found[0]) == [*(field.name for field in fields(LedgerEvent)), "spend_usd"]
    assert [json.loads(row["usage"]) for row in found] == [event.usage for event in wanted]
    assert json.loads(found[1]["charges"]) == [{"budget": "b [requests]", "scope": "", "window_start": 0, "amount": 7}]


def test_parquet_grows_by_parts(ledger, folder):
    """Exported again, a folder gets parts with what it lacks; nothing but whole parts is in it."""
    for count in (9, 0, 3):
        seed(ledger, count)
        assert ledger.export_parquet(folder) == count
    assert [row["offset"] for row in rows(folder)] == list(range(1, 13))
    spans = [(1, 4), (5, 8), (9, 9), (10, 12)]
    assert parts(folder) == [f"events-{first:015}-{last:015}.parquet" for first, last in spans]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGKILL")
def test_a_killed_parquet_export_goes_on(ledger, folder):
    """After SIGKILL the parts that are whole stay, the begun one is made anew, and no event is missing or twice."""
    seed(ledger, 11)
    small = "from tollspan.ledger import _parquet\n_parquet._GROUP, _parquet._PART_ROWS = 2, 4\n"
    killed(small + EXPORT.format("parquet"), ledger, folder, 3)
    assert [name for name in parts(folder) if name.startswith("events")] == [f"events-{1:015}-{4:015}.parquet"]
    assert any(name.endswith(".partial") for name in parts(folder))
    (folder / ".000000000000099.partial").write_bytes(b"of another one that was killed")
    assert ledger.export_parquet(folder) == 7
    assert [row["offset"] for row in rows(folder)] == list(range(1, 12))
    assert all(name.startswith("events") for name in parts(folder))


def test_a_folder_of_another_ledger_or_other_bounds_is_left_alone(ledger, other, folder):
    """Parts of one export never stand beside those of another; a damaged last part is named."""
    seed(ledger, 2)
    seed(other, 3)
    ledger.export_parquet(folder, until=1e12)
    with pytest.raises(LedgerError, match="was exported from another ledger"):
        other.export_parquet(folder, until=1e12)
    with pytest.raises(LedgerError, match="with other bounds"):
        ledger.export_parquet(folder)
    assert len(parts(folder)) == 1
    (folder / parts(folder)[0]).write_bytes(b"PAR1 no more")
    with pytest.raises(LedgerError, match="is damaged or no part of an export"):
        ledger.export_parquet(folder, until=1e12)


def test_an_export_to_parquet_that_fails_leaves_no_part(ledger, folder):
    """Where an export ends with an error, only whole parts are left behind."""
    seed(ledger, 7)

    def fail(done, _total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.export_parquet(folder, progress=fail)
    assert parts(folder) == [f"events-{1:015}-{4:015}.parquet"]


def test_without_pyarrow_the_command_to_get_it_is_told(ledger, folder, monkeypatch):
    """The error is the exact pip command, and no folder is made."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LedgerError) as raised:
        ledger.export_parquet(folder)
    assert str(raised.value) == 'Parquet needs pyarrow: pip install "tollspan[parquet]"'
    assert not folder.exists()


def test_parquet_goes_into_a_folder(ledger, file):
    """A file in its place is left as it is."""
    file.write_text("mine")
    with pytest.raises(LedgerError, match="is a file: Parquet is exported as parts in a folder"):
        ledger.export_parquet(file)
    assert file.read_text() == "mine"


def test_an_imported_ledger_is_a_ledger(ledger, other, file):
    """Events that come later, holds and a snapshot work on an imported ledger as on any."""
    call_id = new_call_id()
    hold = LedgerEvent(event_type="precheck_hold", call_id=call_id.hex())
    ledger.write_event(hold)
    ledger.export_jsonl(file)
    other.import_jsonl(file)
    assert other.writer.ask(a_request(requests_limit(1))).wait()
    end = commit(call_id=call_id.hex(), event_id=event_id_for(call_id, "commit").hex(), charges=(CHARGE,))
    assert other.append(end) == 3
    assert other.balance(B) == Balance(spent=7, held=1)
    with closing(sqlite3.connect(other.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
