"""The ledger as its users see it: sync and async, writing through one queue, reading what is on disk."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

from ._batch import LEDGER_BUDGET, Entry, Key
from ._errors import LedgerError, LedgerUnavailable
from ._events import LedgerEvent
from ._holds import Balance
from ._index import found, run_ids
from ._lazy import LazyModule
from ._learned import LearnedBound, learned_bound, learned_bounds
from ._listeners import Listener
from ._money import to_usd
from ._overrides import BudgetOverride, Overrides, remove_override, save_override
from ._owners import ASIDE_SUFFIX, owners_folder
from ._prune import Pruned, count_before, prune_piece
from ._rows import from_row
from ._settings import Settings, load_settings
from ._single_flight import SingleFlight
from ._store import SQLiteStore
from ._sweep import Recovered
from ._windows import Window, room_at
from ._writer import Writer

if TYPE_CHECKING:
    from . import _adjust, _archive, _figures, _parquet, _queries, _reconcile, _reprice, _runs, _verify
    from ._archive import Imported, Progress
    from ._figures import (
        DailyModelCost,
        Difference,
        ErrorRate,
        KnownBudget,
        ModelLatency,
        OpenHolds,
        Overview,
        ReportRow,
        TimePoint,
        Trouble,
        UncoveredCalls,
        UnderheldCalls,
        UnpricedCalls,
    )
    from ._reconcile import BillFormat, Reconciled, Tolerance
    from ._reprice import Repriced, RepriceSelection
    from ._runs import RunKind, Undone
else:  # what no call needs
    _adjust, _archive, _figures, _parquet, _queries, _reconcile, _reprice, _runs, _verify = (
        LazyModule(f"{__package__}.{name}")
        for name in (
            "_adjust",
            "_archive",
            "_figures",
            "_parquet",
            "_queries",
            "_reconcile",
            "_reprice",
            "_runs",
            "_verify",
        )
    )

_PAGE = 1000
_WATCHED = 256
_DAY_S = 86_400
_TOLD_DAYS = 400
_LEARNED_S = 300


class Ledger:
    """An append-only ledger of LLM calls in one SQLite file; `path` None keeps it in memory.

    With `journal` an event survives the kill of its process from the moment that it is handed over. While the file
    cannot be written, events wait in memory up to `queue_limit`, and then in the journal. Events of calls that began
    more than `keep_days` days ago are pruned in the background; None keeps them.

    Methods that read first write what this process has queued, so they see it. Every method may be called from any
    thread; those that begin with `a` are for tasks and never block the event loop. Raises LedgerUnavailable where the
    file cannot be used.
    """

    def __init__(
        self,
        path: Path | str | None,
        *,
        busy_timeout_ms: int = 5000,
        journal: bool = True,
        queue_limit: int = 100_000,
        keep_days: int | None = None,
    ) -> None:
        self.path = None if path is None else Path(path).absolute()
        self.store = SQLiteStore(self.path, busy_timeout_ms=busy_timeout_ms)
        self.writer = Writer(self.store, journal=journal, queue_limit=queue_limit, keep_days=keep_days)
        self._recovered = self.path is None
        self._loading = SingleFlight()
        self._learned: dict[tuple[str | None, str, str | None], tuple[float, LearnedBound | None]] = {}

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """The ledger of a file that must exist, such as a snapshot. Raises FileNotFoundError."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no ledger at {path}")
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    # ---- writing

    def write_event(self, event: LedgerEvent) -> None:
        """Enqueue an event and return at once; it is on disk within 200 ms, or after `flush`."""
        self.writer.put(Entry.of(event))

    async def awrite_event(self, event: LedgerEvent, sync: bool = False) -> None:
        """Enqueue an event; with `sync`, return when it is on disk.

        With `sync` it raises LedgerConflict, and LedgerUnavailable where the event has to wait in memory.
        """
        if sync:
            await self.writer.put_durable(Entry.of(event), asyncio.get_running_loop()).wait_async()
        else:
            self.write_event(event)

    def append(self, event: LedgerEvent) -> int:
        """Store an event durably and give its offset; an event that is stored already keeps the offset it has.

        Of a fetched answer whose call is stored, the offset is that of the last event of that call's answer. Raises
        LedgerConflict, and LedgerUnavailable where the event has to wait in memory.
        """
        self.writer.put_durable(Entry.of(event)).wait()
        rows = self.store.query("SELECT offset FROM event WHERE event_id = ?", (bytes.fromhex(event.event_id),))
        if not rows:
            rows = found(self.store, "response_id", event.response_id or "")[-1:]
        return int(rows[0]["offset"])

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until what is queued is on disk; False when it was not so within `timeout_s` seconds."""
        until = time.monotonic() + timeout_s
        self._recover_once()
        try:
            while self.writer.pending:
                self.writer.put_durable(None).wait(max(until - time.monotonic(), 0))
                if not self.writer.journal.spilled:  # those are read back after what was queued
                    break
        except (TimeoutError, LedgerError):
            return False
        return True

    async def aflush(self, timeout_s: float = 5.0) -> bool:
        """As `flush`, for tasks."""
        return await asyncio.to_thread(self.flush, timeout_s)

    # ---- reading

    def spend_today(self, scope: Literal["all", "profile"] = "all", profile_id: str | None = None) -> float:
        """USD spent since midnight UTC, estimated spend included, open holds not; of one profile where one is named.

        A call counts on the day it began.
        """
        if scope == "profile" and profile_id is None:
            raise ValueError('scope="profile" needs a profile_id')
        day = Window("day", "UTC").start(time.time())
        key = (LEDGER_BUDGET, f"profile={profile_id}" if profile_id is not None else "", day)
        return float(to_usd(self.balance(key).spent))

    async def aspend_today(self, scope: Literal["all", "profile"] = "all", profile_id: str | None = None) -> float:
        """As `spend_today`, for tasks."""
        return await asyncio.to_thread(self.spend_today, scope, profile_id)

    def balance(self, key: Key, span: int = 0) -> Balance:
        """A balance by (account, scope, window start), as on disk after this process's queue.

        Of a rolling window, `span` is how many seconds it looks back from the start of its current step.
        """
        self.flush()
        return self.store.sum_since(key[:2], key[2] - span) if span else self._stored_balance(key)

    def cached_balance(self, key: Key, span: int = 0) -> Balance:
        """A balance as this process last saw it: at most 200 ms behind other processes, and no wait for a write.

        Raises LedgerUnavailable, at once where the writer has found it so.
        """
        view = self.writer.view
        known = None if span else view.balances.get(key)
        if known is not None:
            return known
        if self.writer.counts.last_error:
            raise LedgerUnavailable(self.writer.counts.last_error)
        if span:
            return view.sum_of(key, span)
        return self._loading.load(view.balances, key, lambda: self._stored_balance(key))

    def room_at(self, key: Key, span: int, missing: int) -> float | None:
        """When `missing` will have left a rolling window, by what is on disk; None: never. Raises LedgerUnavailable."""
        return room_at(self.store.steps_since(key[:2], key[2] - span), missing, span)

    def drift(self) -> int:
        """The largest difference between a balance that this process has in memory and the one on disk, in its unit.

        It is of calls that are being written, here or by others, and 0 in a quiet moment. Raises LedgerUnavailable.
        """
        known = list(self.writer.view.balances.items())[:_WATCHED]
        stored = ((balance, self._stored_balance(key)) for key, balance in known)
        return max((abs(a.spent - b.spent) + abs(a.held - b.held) for a, b in stored), default=0)

    @property
    def events(self) -> Iterator[LedgerEvent]:
        """Every event in order of offset, read page by page."""
        offset = 0
        while page := self.tail(offset, _PAGE):
            yield from page
            offset = page[-1].offset or 0

    def tail(self, from_offset: int = 0, limit: int | None = None) -> list[LedgerEvent]:
        """The events after an offset, in order: with the last offset seen, exactly those that are new."""
        self.flush()
        sql = "SELECT * FROM recorded WHERE offset > max(?, ?) ORDER BY offset LIMIT ?"
        rows = self.store.query(sql, (from_offset, self._hidden_up_to(), -1 if limit is None else limit))
        return [from_row(row) for row in rows]

    def latest_offset(self) -> int:
        """The offset of the last event, pruned or not; 0 for an empty ledger."""
        self.flush()
        return int(self.store.query("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'")[0][0])

    def events_for_run(self, run_id: str) -> list[LedgerEvent]:
        """The events of one run, in order of offset."""
        return self._found("run_id", run_id)

    def events_for_session(self, session_id: str) -> list[LedgerEvent]:
        """The events of one session, in order of offset."""
        return self._found("session_id", session_id)

    def events_for_trace(self, trace_id: str) -> list[LedgerEvent]:
        """The events of one trace (32 hexadecimal digits), in order of offset. Raises ValueError for another text."""
        return self._found("trace_id", bytes.fromhex(trace_id))

    def events_for_call(self, call_id: str) -> list[LedgerEvent]:
        """The events of one call, in order of offset; also those that `reset` hides. Raises ValueError for no id."""
        self.flush()
        return _queries.events_for_call(self.store, call_id=bytes.fromhex(call_id))

    def call_ids(self, prefix: str, limit: int = 100) -> list[str]:
        """The first calls whose id begins with these hexadecimal digits. Raises ValueError for another text."""
        self.flush()
        return _queries.call_ids(self.store, prefix=prefix, limit=limit)

    def runs(self) -> list[str]:
        """The run ids, in the order in which they were first seen."""
        self.flush()
        return run_ids(self.store, self._hidden_up_to())

    def _found(self, kind: str, value: bytes | str) -> list[LedgerEvent]:
        self.flush()
        return [from_row(row) for row in found(self.store, kind, value, self._hidden_up_to())]

    # ---- figures: calls count where they began; intervals are 15M, 1H, 1D, 7D, up to now

    def overview(self, interval: str = "1D", user_id: str | None = None) -> "Overview":
        """Requests, errors, latency, tokens and cost of an interval. Raises QueryError for another interval."""
        self.flush()
        return _queries.overview(self.store, interval=interval, user_id=user_id)

    def time_series(self, interval: str = "1D", user_id: str | None = None) -> "list[TimePoint]":
        """As `overview`, in steps of 1 minute (15M, 1H), 15 minutes (1D) or 1 hour (7D); first and last are partial."""
        self.flush()
        return _queries.time_series(self.store, interval=interval, user_id=user_id)

    def provider_model_latency(self, interval: str = "1D", user_id: str | None = None) -> "list[ModelLatency]":
        """How long the calls of each model at each provider took. Raises QueryError."""
        self.flush()
        return _queries.provider_model_latency(self.store, interval=interval, user_id=user_id)

    def daily_model_cost(
        self, interval: str = "7D", user_id: str | None = None, *, timezone: str = "UTC"
    ) -> "list[DailyModelCost]":
        """What each model cost on each day of a zone; the first day counts from where the interval begins.

        Raises QueryError.
        """
        self.flush()
        return _queries.daily_model_cost(self.store, interval=interval, user_id=user_id, timezone=timezone)

    def error_rate(self, interval: str = "1D", user_id: str | None = None) -> "list[ErrorRate]":
        """How often the calls of each model failed, and how often with HTTP status 429. Raises QueryError."""
        self.flush()
        return _queries.error_rate(self.store, interval=interval, user_id=user_id)

    def report(
        self,
        by: str | Sequence[str] = "model",
        *,
        since: float | dt.datetime | None = None,
        until: float | dt.datetime | None = None,
        tz: str = "UTC",
    ) -> "list[ReportRow]":
        """Calls, tokens and cost grouped by dimensions, such as `model` or `day,tag:feature`; by "" all in one row.

        Dimensions: model, provider, operation, user, profile, session, run, status, day, hour (of the zone `tz`), and
        tag:<name>. `since` is included, `until` is not: epoch seconds, or datetimes (naive ones are in `tz`). Raises
        QueryError for a dimension or a zone that does not exist.
        """
        self.flush()
        return _queries.report(self.store, by=by, since=since, until=until, timezone=tz)

    def unpriced(self, since: float | None = None) -> "list[UnpricedCalls]":
        """The models whose calls since an instant (epoch seconds) have no price."""
        self.flush()
        return _queries.unpriced(self.store, since=since)

    def uncovered(self, since: float | None = None) -> "list[UncoveredCalls]":
        """The calls since an instant (epoch seconds) that no call site covers: seen on the wire only."""
        self.flush()
        return _queries.uncovered(self.store, since=since)

    def underholds(self, since: float | None = None) -> "list[UnderheldCalls]":
        """The models whose calls since an instant (epoch seconds) cost more than was held for them."""
        self.flush()
        return _queries.underholds(self.store, since=since)

    def open_holds(self) -> "OpenHolds":
        """How many calls in flight hold something in a strict budget, and how much."""
        self.flush()
        return _queries.open_holds(self.store)

    def known_budgets(self) -> "list[KnownBudget]":
        """The budgets with a window that processes used with this ledger, by name. Raises BudgetSyntaxError."""
        self.flush()
        return _queries.known_budgets(self.store)

    def rival_budgets(self, since: float) -> "list[KnownBudget]":
        """The definitions of those names that had more than one since an instant (epoch seconds)."""
        self.flush()
        return _queries.rival_budgets(self.store, since=since)

    def balances(self, account: str, window_start: int, span: int = 0) -> dict[str, Balance]:
        """The balances of an account in the window that starts at an instant (epoch seconds), by scope.

        Of a rolling window, `span` is how many seconds it looks back from there.
        """
        self.flush()
        return _queries.balances(self.store, account=account, window_start=window_start, span=span)

    @property
    def overrides(self) -> Overrides:
        """The limits set over those of code and configuration, as this process last saw them: at most 200 ms ago."""
        return self.writer.view.overrides

    def override_budget(self, override: BudgetOverride) -> None:
        """Set a limit over that of code and configuration, or a budget; within a second it holds in every process.

        Raises LedgerUnavailable.
        """
        with self.writer.store_lock:
            save_override(self.store, override)
            self.writer.view.forget()

    def remove_override(self, name: str) -> bool:
        """Let a budget be again as code and configuration say; False where nothing was set over them."""
        with self.writer.store_lock:
            removed = remove_override(self.store, name)
            self.writer.view.forget()
        return removed

    def learned_output(self, provider: str | None, model: str, operation: str | None) -> LearnedBound | None:
        """What this ledger's latest answers say a model's output is bounded by, at most five minutes old.

        None where it has given fewer than 30 answers lately. Raises LedgerUnavailable.
        """
        asked = (provider, model, operation)
        known = self._learned.get(asked)
        if known is None or known[0] < time.monotonic():
            bound = learned_bound(self.store, *asked)
            known = self._learned[asked] = (time.monotonic() + _LEARNED_S, bound)
        return known[1]

    def learned_outputs(self) -> list[LearnedBound]:
        """The bounds of all models that have answered often enough, each with its misses. Raises LedgerUnavailable."""
        self.flush()
        return learned_bounds(self.store)

    def adjust(self, call_id: str, cost_usd: Decimal, *, reason: str) -> list[LedgerEvent]:
        """Correct what a call has cost: adjust events in the windows where it counts, durable when this returns.

        Gives the events; none where the cost is right already. Raises KeyError for a call that the ledger does not
        have, LedgerConflict where somebody else corrects it at the same moment, and LedgerUnavailable.
        """
        self.flush()
        events = _adjust.corrections(self.store, bytes.fromhex(call_id), cost_usd, reason)
        for event in events:
            self.writer.put_durable(Entry.of(event)).wait()
        return events

    def reprice(
        self,
        selection: "RepriceSelection",
        *,
        prices: Path | None = None,
        tz: str = "UTC",
        dry_run: bool = False,
        command: str | None = None,
        progress: "Progress | None" = None,
    ) -> "Repriced":
        """Bring past calls to what they cost by today's prices, and give the difference by model and day of a zone.

        `prices` is a price file that goes before the tables. Each call that costs something else gets one adjust, in
        the windows where it counts; with `dry_run` nothing is written. Again, or after an interruption, it goes on
        where it stopped: by the same selection or, where there is one, the same `command`. `undo` takes it back.
        Raises PriceFileError, QueryError for a zone that does not exist, and LedgerUnavailable.
        """
        self.flush()
        return _reprice.reprice(
            self.store,
            self.writer,
            selection,
            prices=prices,
            timezone=tz,
            dry_run=dry_run,
            command=command,
            progress=progress,
        )

    def reconcile(
        self,
        files: Sequence[Path],
        *,
        form: "BillFormat | None" = None,
        since: float | None = None,
        until: float | None = None,
        same: Mapping[str, str] | None = None,
        tolerance: "Tolerance | None" = None,
        adjust: bool = False,
        one_sided: bool = False,
        progress: "Progress | None" = None,
    ) -> "Reconciled":
        """Compare a provider's export of costs or usage, in one or more files, with this ledger by UTC day and model.

        `form` is told from the content, unless given. Only whole days from `since` to before `until` (epoch seconds).
        `same` says which model of the export is which of the ledger where their names do not tell; `tolerance` is 1 %
        or 0.01 USD. With `adjust`, each day of a model that both name is brought to what is billed, by one adjust;
        with `one_sided`, those of other models too. `undo` takes it back. `progress` is told how much of a file is
        read. Raises BillError, OSError, QueryError,
        LedgerUnavailable.
        """
        self.flush()
        return _reconcile.reconcile(
            self.store,
            self.writer,
            files,
            form=form,
            since=since,
            until=until,
            same=same or {},
            tolerance=tolerance or _reconcile.Tolerance(),
            adjust=adjust,
            one_sided=one_sided,
            progress=progress,
        )

    def undo(self, kind: "RunKind", run: str, *, progress: "Progress | None" = None) -> "Undone":
        """Take back what a run of `reprice` or `reconcile` has written, by adjusts that are its opposites.

        A call that was corrected since stays as it is. Again, it does nothing. Raises LedgerError for a run that the
        ledger does not have, and LedgerUnavailable.
        """
        self.flush()
        return _runs.undo_run(self.store, self.writer, kind, run, progress=progress)

    def tell_once(self, what: str) -> bool:
        """Whether nobody has asked to tell `what` before, in any process. Raises LedgerUnavailable."""
        with self.writer.store_lock, self.store.transaction() as connection:
            now = time.time()
            connection.execute("DELETE FROM told WHERE at < ?", (now - _TOLD_DAYS * _DAY_S,))
            return connection.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (what, now)).rowcount > 0

    # ---- the whole

    def verify(self) -> "list[Difference]":
        """The balances that are not what the log says: none, or there is a bug or a damaged file."""
        self.flush()
        return _verify.verify(self.store)

    def trouble(self) -> "Trouble":
        """What went wrong with this ledger so far, in any process."""
        self.flush()
        facts = {row["name"]: int(row["value"]) for row in self.store.query("SELECT name, value FROM ledger_fact")}
        aside = () if self.path is None else tuple(sorted(owners_folder(self.path).glob(f"*{ASIDE_SUFFIX}")))
        named = [fact.name for fact in fields(_figures.Trouble) if fact.name != "aside"]
        return _figures.Trouble(**{name: facts.get(name, 0) for name in named}, aside=aside)

    def snapshot_to(self, path: Path | str) -> None:
        """Copy the ledger, consistent while others write (SQLite's online backup). Raises FileExistsError."""
        if Path(path).exists():
            raise FileExistsError(f"{path} exists already; a snapshot is never written over something")
        self.flush()
        self.store.copy_to(Path(path))

    def export_jsonl(
        self,
        target: Path | str | BinaryIO,
        *,
        since: float | None = None,
        until: float | None = None,
        progress: "Progress | None" = None,
    ) -> int:
        """Write the log as JSON Lines, one event on a line; a file that is such an export gets what it lacks.

        Gives how many events were written. Only calls that began from `since` to before `until` (epoch seconds); events
        that `reset` hides are part of the log. `progress` is told how much is done, and of how much. Raises OSError,
        and LedgerError for a file that is something else or the export of another ledger; it is left as it is.
        """
        self.flush()
        where = Path(target) if isinstance(target, str) else target
        return _archive.export_jsonl(
            self.store, where, selected=_archive.Selected(since=since, until=until), progress=progress
        )

    def export_parquet(
        self,
        folder: Path | str,
        *,
        since: float | None = None,
        until: float | None = None,
        progress: "Progress | None" = None,
    ) -> int:
        """As `export_jsonl`, but as Parquet: parts in a folder, which cannot be imported. Needs the extra `parquet`.

        What is no single value is a column of JSON; `spend_usd` is what an event adds to spend.
        """
        self.flush()
        selected = _archive.Selected(since=since, until=until)
        return _parquet.export_parquet(self.store, Path(folder), selected=selected, progress=progress)

    def import_jsonl(
        self,
        source: Path | str | BinaryIO,
        *,
        progress: "Progress | None" = None,
        warn: Callable[[str], None] | None = None,
    ) -> "Imported":
        """Store the events of an export; those that are stored already stay as they are, so it may be run again.

        Ids and times are those of the export, offsets are new, and balances count what they count of any event. Holds
        are history: none is opened. Lines that are no events of this version, or conflict with what is stored, are left
        out: counted, and told to `warn` (default: logged), the first twenty of them. Raises OSError, LedgerUnavailable,
        and LedgerError for a file that is no export.
        """
        self.flush()
        where = Path(source) if isinstance(source, str) else source
        return _archive.import_jsonl(self.store, self.writer, where, progress=progress, warn=warn)

    def reset(self) -> None:
        """Hide the events so far from `events`, `tail` and `runs`; the log and all balances stay as they are."""
        latest = self.latest_offset()
        with self.writer.store_lock:
            self.store.hide_up_to(latest)

    def recover(self) -> Recovered:
        """Store what processes that are gone left in their journals, and settle their open calls at what they may cost.

        The first use of a ledger does it too. Raises LedgerUnavailable.
        """
        self._recovered = True
        return self.writer.recover()

    def prune(self, keep_days: float, *, progress: Callable[[int], None] | None = None) -> Pruned:
        """Delete the events of calls that began more than `keep_days` days ago; balances and `verify` stay right.

        It goes piece by piece, while others write; `progress` is told how many events have gone. Raises ValueError for
        less than one day, because calls that run may have begun then.
        """
        if keep_days < 1:
            raise ValueError(f"{keep_days} days are too few: calls of the last day are always kept; write 1 or more")
        self.recover()  # what dead processes left may be older than what is kept
        self.flush()
        before = time.time() - keep_days * _DAY_S
        total = Pruned()
        while True:
            with self.writer.store_lock:
                piece = prune_piece(self.store, before)
            if not piece.events:
                return total
            total.events += piece.events
            if progress is not None:
                progress(total.events)

    def count_before(self, instant: float) -> int:
        """How many events are of calls that began before an instant (epoch seconds), and could be pruned."""
        self.flush()
        return count_before(self.store, instant)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the events of each commit of this process, after it, in order, on a thread of its own.

        The events have their offsets. A listener that raises is logged, and the next ones are told all the same. Call
        what is given back to end it.
        """
        return self.writer.listeners.add(listener)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and close the file; the next use opens it again. Raises LedgerError if events remain."""
        left = self.writer.close(timeout_s)
        if left:
            raise LedgerError(f"{left} events could not be written: {self.writer.counts.last_error or 'out of time'}")

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """As `close`, for tasks."""
        await asyncio.to_thread(self.close, timeout_s)

    def _recover_once(self) -> None:
        if not self._recovered:
            self._recovered = True
            try:
                if self.path is not None and owners_folder(self.path).is_dir():
                    self.recover()
            except LedgerUnavailable:  # what is asked for reports it
                self._recovered = False

    def _stored_balance(self, key: Key) -> Balance:
        sql = "SELECT spent, held, estimated FROM balance WHERE budget = ? AND scope = ? AND window_start = ?"
        rows = self.store.query(sql, key)
        return Balance(*rows[0]) if rows else Balance()

    def _hidden_up_to(self) -> int:
        rows = self.store.query("SELECT value FROM ledger_fact WHERE name = 'hidden_up_to'")
        return int(rows[0]["value"]) if rows else 0


def open_ledger(url: str | None = None, *, settings: Settings | None = None) -> Ledger:
    """The configured ledger, or that of a URL.

    A URL is `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite:///:memory:`. Raises ConfigurationError for
    another kind.
    """
    if settings is None:
        settings = load_settings(ledger=url or None)
    location = settings.ledger.removeprefix("sqlite:///")
    return Ledger(
        None if location == ":memory:" else location,
        busy_timeout_ms=settings.busy_timeout_ms,
        journal=settings.journal,
        queue_limit=settings.queue_limit,
        keep_days=settings.keep_days,
    )
