"""Seen from the kernel: a strict hold is on disk before its request begins, and best_effort waits for no disk."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tollspan.console._provider import Answer, LocalProvider

SHIM = Path(__file__).with_name("wire_and_disk.c")
# The first call of each kind opens what it needs; the next ones are judged: strict ones alone, then at once.
ALONE, AT_ONCE, UNHELD = range(1, 16), range(16, 48), range(49, 79)
CHILD = f"""
import openai
from concurrent.futures import ThreadPoolExecutor
from tollspan.budget import budget, scope
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument

instrument()
client = openai.OpenAI(api_key="local", max_retries=0)

def call(number, mode):
    mark = f"mark-{{number:04}}"
    with scope(run=mark), budget("10 USD / month", name=mode, mode=mode):
        client.chat.completions.create(
            model="gpt-4o", max_tokens=50, messages=[{{"role": "user", "content": "hello"}}],
            extra_headers={{"x-local-provider-key": mark}},
        )

call(0, "strict")
for number in {ALONE!r}:
    call(number, "strict")
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda number: call(number, "strict"), {AT_ONCE!r}))
call(48, "best_effort")
pipeline().ledger.flush()
for number in {UNHELD!r}:
    call(number, "best_effort")
"""


@dataclass(frozen=True)
class Seen:
    """Something that a thread did, in nanoseconds, and the calls whose marks stood in the bytes."""

    what: str
    thread: int
    begin: int
    end: int
    marks: frozenset[int]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a process that makes strict and best_effort calls does to its ledger's WAL and to its sockets, in order."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler (cc): system calls are watched by a preloaded library")
    folder = tmp_path_factory.mktemp("fsync")
    library, notes = folder / "wire_and_disk.so", folder / "notes"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    with LocalProvider(answer=lambda _: Answer(output_tokens=5)) as provider:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TOLLSPAN_")} | {
            "LD_PRELOAD": str(library),
            "WIRE_AND_DISK": str(notes),
            "TOLLSPAN_LEDGER": f"sqlite:///{folder}/ledger.db",
            "OPENAI_BASE_URL": provider.openai_url,
        }
        subprocess.run([sys.executable, "-c", CHILD], env=environ, cwd=folder, check=True, timeout=60)
    return [_seen(line.split()) for line in notes.read_text().splitlines()]


def _seen(fields):
    what, thread, begin, end, *marks = fields
    numbers = frozenset(int(mark.removeprefix("mark-")) for mark in marks)
    return Seen(what, int(thread), int(begin), int(end), numbers)


def _post(seen, number):
    (post,) = [s for s in seen if s.what == "post" and number in s.marks]
    return post


@pytest.mark.parametrize("numbers", [ALONE, AT_ONCE], ids=["alone", "at once"])
def test_a_strict_hold_is_on_disk_before_its_request_leaves(seen, numbers):
    """For each call: the hold is written to the WAL, then an fsync of it begins and ends, then the request begins."""
    for number in numbers:
        post = _post(seen, number)
        hold = min((s for s in seen if s.what == "wal" and number in s.marks), key=lambda s: s.end)
        synced = [s for s in seen if s.what == "sync" and s.begin >= hold.end and s.end <= post.begin]
        assert synced, f"the request of call {number} left before its hold was on disk"


def test_a_best_effort_call_waits_for_no_disk(seen):
    """No call under a best_effort budget makes the disk sync in its own thread, nor waits for a thread that does."""
    posts = [_post(seen, number) for number in UNHELD]
    syncs = [s for s in seen if s.what == "sync" and posts[0].begin <= s.end <= posts[-1].begin]
    assert {s.thread for s in syncs}.isdisjoint({p.thread for p in posts})
    assert len(syncs) < len(posts) / 2
