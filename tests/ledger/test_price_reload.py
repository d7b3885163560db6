"""A price file that changes while processes run: in force within a second, and never worse than it was."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tollspan.ledger import PriceBook, RateCard
from tollspan.ledger._prices import _live_file

FREE = '[[price]]\nmodel = "m"\nfree = true\n'
DEAR = '[[price]]\nmodel = "m"\ninput_mtok = 7\n'
CHEAP = '[[price]]\nmodel = "m"\ninput_mtok = 1\n'
WRONG = '[[price]]\nmodel = "m"\ninput_mtok = "cheap"\n'


class Clock:
    """The monotonic clock as the price file sees it."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_live_file, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prices.toml"


def write(path, text):
    """Put a new version in the place of the file, as editors do."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def price(book):
    found = book.resolve(provider="p", model="m", at=0)
    return found.cost({"tokens_in": 1_000_000}) / 10**9 if isinstance(found, RateCard) else None


def test_a_change_is_in_force_a_second_later(path, clock):
    """What was found before is forgotten; within the second, the file is not even looked at."""
    write(path, DEAR)
    book = PriceBook(overrides=path)
    assert price(book) == 7
    write(path, CHEAP)
    clock.now += 0.99
    assert price(book) == 7
    clock.now += 0.01
    assert price(book) == 1
    assert len(book._cache) == 1


def test_a_file_that_stays_as_it_is_is_not_read_again(path, clock, monkeypatch):
    """Once a second it is looked at, and no more than that."""
    write(path, DEAR)
    book = PriceBook(overrides=path)
    looks, reads = [], []
    state_of, read = _live_file._state_of, _live_file.read_price_file
    monkeypatch.setattr(_live_file, "_state_of", lambda p: looks.append(p) or state_of(p))
    monkeypatch.setattr(_live_file, "read_price_file", lambda p: reads.append(p) or read(p))
    for _ in range(3):
        clock.now += 1
        for _ in range(100):
            assert price(book) == 7
    assert (len(looks), len(reads)) == (3, 0)
    write(path, DEAR)
    clock.now += 1
    assert price(book) == 7
    assert len(reads) == 1


@pytest.mark.parametrize("bad", [WRONG, "[[price", None])
def test_a_wrong_version_leaves_the_last_good_one_in_force_and_is_told_once(path, clock, caplog, bad):
    """An edit in the middle, or a file that is gone, costs nobody a price; the next good version is taken."""
    write(path, DEAR)
    book = PriceBook(overrides=path)
    path.unlink() if bad is None else write(path, bad)
    for _ in range(3):
        clock.now += 1
        assert price(book) == 7
    (told,) = caplog.records
    assert "prices.toml" in told.getMessage()
    assert "last good version stays in force" in told.getMessage()
    write(path, CHEAP)
    clock.now += 1
    assert price(book) == 1
    assert len(caplog.records) == 1


@pytest.mark.parametrize("bad", [WRONG, None])
def test_a_file_that_is_put_right_after_the_start_is_taken(path, clock, caplog, bad):
    """An application that starts with a wrong file, or before there is one, does without it until it is right."""
    if bad is not None:
        write(path, bad)
    book = PriceBook(overrides=path, strict=False)
    assert price(book) is None
    assert "it is left out" in caplog.text
    write(path, FREE)
    clock.now += 1
    assert price(book) == 0


def test_a_program_may_change_its_directory(path, clock, monkeypatch, tmp_path_factory):
    """A relative path stays the one that it was at the start."""
    write(path, DEAR)
    monkeypatch.chdir(path.parent)
    book = PriceBook(overrides=Path(path.name))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    write(path, CHEAP)
    clock.now += 1
    assert price(book) == 1


def test_nobody_waits_for_who_reads(path, clock, monkeypatch):
    """While one thread reads a new version, the others go on with the old one."""
    write(path, DEAR)
    book = PriceBook(overrides=path)
    assert price(book) == 7
    reading, go_on, read = threading.Event(), threading.Event(), _live_file.read_price_file

    def slowly(path):
        reading.set()
        assert go_on.wait(20)
        return read(path)

    monkeypatch.setattr(_live_file, "read_price_file", slowly)
    write(path, CHEAP)
    clock.now += 1
    reader = threading.Thread(target=price, args=(book,))
    reader.start()
    assert reading.wait(20)
    clock.now += 5
    assert price(book) == 7
    go_on.set()
    reader.join()
    assert price(book) == 1


def test_a_card_that_was_looked_up_meanwhile_is_not_kept(path, clock, monkeypatch):
    """A thread that began with the old version leaves nothing of it to those who ask after the change."""
    write(path, DEAR)
    book = PriceBook(overrides=path)
    looking, go_on, look_up = threading.Event(), threading.Event(), book._look_up

    def slowly(asked):
        looking.set()
        assert go_on.wait(20)
        return look_up(asked)

    monkeypatch.setattr(book, "_look_up", slowly)
    late = threading.Thread(target=price, args=(book,))
    late.start()
    assert looking.wait(20)
    write(path, CHEAP)
    clock.now += 1
    book.own  # noqa: B018 - whoever comes by looks at the file
    go_on.set()
    late.join()
    assert price(book) == 1


def test_no_thread_ever_sees_an_older_version_again(path, monkeypatch):
    """Four threads ask while the file is replaced: to each the prices only rise, and in the end all see the last."""
    monkeypatch.setattr(_live_file, "LOOK_EVERY_S", 0.0)
    versions = [f'[[price]]\nmodel = "m"\ninput_mtok = {price}\n' for price in range(1, 31)]
    write(path, versions[0])
    book, done, seen = PriceBook(overrides=path), threading.Event(), [[] for _ in range(4)]

    def ask(prices):
        while not done.is_set():
            prices.append(price(book))
        prices.append(price(book))

    threads = [threading.Thread(target=ask, args=(prices,)) for prices in seen]
    for thread in threads:
        thread.start()
    for version in versions:
        write(path, version)
        book.own  # noqa: B018 - whoever comes by looks at the file
    done.set()
    for thread in threads:
        thread.join()
    assert price(book) == 30
    assert all(prices == sorted(prices) for prices in seen)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_of_a_fork_in_the_middle_of_reading_follows_the_file(path, clock, monkeypatch):
    """The lock that a thread of the parent had is no lock of the child's."""
    write(path, DEAR)
    book = PriceBook(overrides=path)
    with book._live._lock:
        write(path, CHEAP)
        clock.now += 1
        assert price(book) == 7
        child = os.fork()
        if child == 0:
            clock.now += 1
            os._exit(0 if price(book) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_running_process_follows_the_file(path):
    """For real, with nothing but a file that is replaced: the price of a process changes while it runs."""
    write(path, DEAR)
    code = f"""
import sys, time
from pathlib import Path
from tollspan.ledger import PriceBook
book = PriceBook(overrides=Path({str(path)!r}))
def price():
    return book.resolve(provider="p", model="m", at=0).cost({{"tokens_in": 1_000_000}}) // 10**9
print(price(), flush=True)
deadline = time.monotonic() + 60
while price() == 7 and time.monotonic() < deadline:
    time.sleep(0.01)
print(price(), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "7\n"
        write(path, CHEAP)
        assert process.stdout.readline() == "1\n"
