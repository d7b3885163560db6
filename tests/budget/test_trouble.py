"""Trouble with the ledger, the disk or the configuration: strict refuses, and everything else goes on."""

import logging
import re
import sqlite3
import time
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

from tollspan.budget import BudgetExhausted, LedgerOutOfReach, UnpricedModel, budget, scope
from tollspan.exporter import pipeline
from tollspan.ledger import Ledger, LedgerError, LedgerEvent, Ticket, internal_errors


@pytest.fixture(autouse=True)
def _in_production(monkeypatch):
    """Our own errors are swallowed, as they are in production: what reaches a caller here reaches users."""
    monkeypatch.setattr(internal_errors, "raising", False)


def _under_a_file(path):
    path.parent.joinpath("file").write_text("no folder", encoding="utf-8")
    return path.parent / "file" / "ledger.db", nullcontext()


def _a_directory(path):
    path.mkdir()
    return path, nullcontext()


def _corrupt(path):
    path.write_bytes(b"this is no SQLite file at all, and it is long enough to look at. " * 100)
    return path, nullcontext()


def _newer(path):
    _written(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    return path, nullcontext()


def _locked(path):
    _written(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return path, closing(connection)


def _written(path):
    with Ledger(path) as ledger:
        ledger.append(LedgerEvent(event_type="exposure"))


TROUBLES = {
    _under_a_file: "File exists",
    _a_directory: "it is a directory|unable to open",
    _corrupt: "it is damaged or no ledger",
    _newer: "written by a newer tollspan",
    _locked: "locked",
}


@pytest.fixture(params=TROUBLES, ids=lambda make: make.__name__.strip("_"))
def trouble(request, tmp_path, configure):
    """A ledger that cannot be written; gives what the error says of it."""
    path, held = request.param(tmp_path / "trouble.db")
    with held:
        configure(ledger=f"sqlite:///{path}", busy_timeout_ms=50)
        yield TROUBLES[request.param]


@pytest.mark.parametrize("on_limit", ["raise", "wait"])
def test_strict_sends_nothing_when_its_hold_cannot_be_written(trouble, chat, provider, on_limit):
    """The refusal tells what is wrong with the ledger and what to do, soon, before anything is sent."""
    began = time.monotonic()
    with budget("5 USD", name="b", on_limit=on_limit), pytest.raises(LedgerOutOfReach, match=trouble) as refused:
        chat(max_tokens=5)
    assert "a strict budget cannot be checked: " in str(refused.value)
    assert refused.value.__cause__ is not None
    assert time.monotonic() - began < 5
    assert provider.requests == []


async def test_strict_sends_nothing_from_a_task_either(trouble, achat, provider):
    """As from a thread."""
    with budget("5 USD", name="b"), pytest.raises(LedgerOutOfReach, match=trouble):
        await achat(max_tokens=5)
    assert provider.requests == []


@pytest.mark.parametrize("options", [{"mode": "best_effort"}, {"on_limit": "warn"}, None], ids=str)
def test_everything_else_goes_on_and_the_log_says_what_is_lost(trouble, chat, provider, caplog, options):
    """best_effort, a budget that warns, and no budget: the call is answered, soon, and an error is logged once."""
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "tollspan"):
        with budget("5 USD", name="b", **options) if options else nullcontext():
            for _ in range(3):
                assert chat(max_tokens=5).usage.completion_tokens == 5
        assert time.monotonic() - began < 5
        assert not pipeline().ledger.flush(1)
    assert len(provider.requests) == 3
    waits = r"Events wait in (memory|the journal) until it can be written"
    assert len([message for message in caplog.messages if re.search(waits, message)]) == 1


def test_strict_sends_nothing_when_only_the_hold_cannot_be_written(chat, provider, book, monkeypatch):
    """The balance can be read and has room, but the disk is full: reading is not enough to let a call out."""
    with budget("5 USD", name="b") as handle, scope(session="wider than what is left of a page " * 200):
        chat(max_tokens=5)
        assert (handle.spent, handle.held) == (provider.billed_usd(), 0)
        with monkeypatch.context() as full:
            _fill(book, full)
            for _ in range(3):
                with pytest.raises(LedgerOutOfReach, match="full; free some disk space"):
                    chat(max_tokens=5)
            assert len(provider.requests) == 1
            assert (handle.spent, handle.held) == (provider.billed_usd(), 0)
        with book.writer.store_lock:
            book.store.close()
        chat(max_tokens=5)
        assert (handle.spent, handle.held) == (provider.billed_usd(), 0)
    assert book.verify() == []


def _fill(book, monkeypatch):
    """Let the file not grow any more, whenever it is opened."""
    store = book.store
    open_ = store._open

    def full():
        connection = open_()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with book.writer.store_lock:
        store.close()
    monkeypatch.setattr(store, "_open", full)


def test_an_interrupt_is_an_interrupt_also_when_the_ledger_fails(trouble, chat, provider, monkeypatch):
    """KeyboardInterrupt at the moment of the ledger's error is not replaced by it, and lets nothing out."""
    wait = Ticket.wait

    def interrupted(self, timeout_s=None):
        with suppress(LedgerError):
            wait(self, timeout_s)
        raise KeyboardInterrupt

    with budget("5 USD", name="b"), monkeypatch.context() as patched:
        patched.setattr(Ticket, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            chat(max_tokens=5)
    assert provider.requests == []


def test_a_ledger_that_comes_back_is_used_again(chat, tmp_path, configure, provider):
    """Once the lock is gone strict calls are admitted, without a restart."""
    path, held = _locked(tmp_path / "trouble.db")
    line = configure(ledger=f"sqlite:///{path}", busy_timeout_ms=50)
    with held, budget("5 USD", name="b"), pytest.raises(LedgerOutOfReach):
        chat(max_tokens=5)
    with budget("5 USD", name="b") as handle:
        chat(max_tokens=5)
        assert (handle.spent, handle.held) == (provider.billed_usd(), 0)
    assert line.ledger.verify() == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("TOLLSPAN_BUDGET=5 USD / dya", "did you mean day?"),
        ("TOLLSPAN_BUDGET=usr=ada: 5 USD / day", "did you mean user?"),
        ("TOLLSPAN_MODE=strct", "did you mean strict?"),
        ("TOLLSPAN_BUGDET=5 USD / day", "did you mean TOLLSPAN_BUDGET?"),
    ],
)
def test_a_wrong_setting_never_stops_an_application(calls, monkeypatch, caplog, setting, told):
    """A typing error in the environment is logged with the right spelling, and the default is used."""
    variable, _, value = setting.partition("=")
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.ERROR, "tollspan"):
        _, admission = calls.ask()
    assert admission.budgets == ()
    (message,) = caplog.messages
    assert variable in message
    assert told in message


def test_a_wrong_key_in_the_file_stops_neither_calls_nor_budgets(calls, caplog):
    """An unknown key of tollspan.toml is logged with its line; the budgets beside it hold."""
    Path("tollspan.toml").write_text(
        'mdoe = "strict"\n[[budget]]\nname = "b"\nlimit = "0.15 USD / month"\nmode = "strict"\n', encoding="utf-8"
    )
    with caplog.at_level(logging.ERROR, "tollspan"):
        calls.spend(10_000)
    with pytest.raises(BudgetExhausted):
        calls.ask()
    (message,) = caplog.messages
    assert "tollspan.toml, line 1, mdoe is no setting (did you mean mode?)" in message


def test_an_unknown_model_stops_only_what_is_strict(chat, provider):
    """Unpriced: best_effort and no budget go on, strict in USD refuses."""
    with budget("5 USD", name="b"), pytest.raises(UnpricedModel):
        chat(model="gpt-unheard-of")
    chat(model="gpt-unheard-of", max_tokens=5)
    with budget("5 USD", name="b", mode="best_effort"):
        chat(model="gpt-unheard-of", max_tokens=5)
    assert len(provider.requests) == 2
