"""The inside of one transaction: events appended and counted, holds decided and released."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from ._errors import LedgerConflict
from ._events import SPENDING, Charge, LedgerEvent, call_id_prefix
from ._fetched import is_fetched, uncounted
from ._holds import Balance, Demand, Grant, Limit, Refusal, decide
from ._journal import Segment
from ._postings import Posting, event_of, posting_of
from ._pricing import PricingIds
from ._rows import COLUMNS, Row, charges_from, charges_json, to_row
from ._statements import take_texts, write_rows
from ._windows import room_at

Key = tuple[str, str, int]
Line = tuple[str, str]

LEDGER_BUDGET = ""
"""The balance that the ledger keeps of itself: USD per UTC day, for all calls and for each profile."""

DAY_MS = 86_400_000
_STORED = (*COLUMNS[:-1], "pricing_id")
_INSERT = f"INSERT INTO event ({', '.join(_STORED)})"
_UNLESS_KNOWN = "ON CONFLICT (event_id) DO NOTHING"  # OR IGNORE would pass over missing values too


@dataclass(slots=True, eq=False)
class Entry:
    """What to append; the hold (its event id) and the journal's note of the call's beginning that it settles.

    One that is a `substitute` stands for a settlement that could not be stored; one `if_held` is stored only where its
    hold turns out to be open. It is queued once: `segment` is where
    the journal has it, and `error` what came of it where it could not be stored.
    """

    posting: Posting
    release: bytes | None = None
    begun: Segment | None = None
    substitute: bool = False
    if_held: bool = False
    segment: Segment | None = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)
    is_urgent: bool = field(init=False)  # a budget counts it, and somebody may wait for what it gives back
    _row: Row | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.is_urgent = self.release is not None or bool(self.posting.charges)

    @classmethod
    def of(
        cls,
        event: LedgerEvent,
        release: bytes | None = None,
        begun: Segment | None = None,
        *,
        substitute: bool = False,
    ) -> "Entry":
        """An event that came from outside: it is encoded here. Raises TypeError for what no ledger can store."""
        entry = cls(posting_of(event), release, begun, substitute)
        entry._row = to_row(entry.posting)
        return entry

    @property
    def event(self) -> LedgerEvent:
        """The event, as all others see it."""
        return event_of(self.posting)

    @property
    def row(self) -> Row:
        """Its row. Raises TypeError for what no ledger can store."""
        if self._row is None:
            self._row = to_row(self.posting)
        return self._row


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """A hold to take if all its limits admit it.

    `describe` makes the precheck_hold once the amounts are known, `withdraw` the cancel of a hold that was
    granted when nobody waited for it any more. One that is `queued` does not overtake another of its batch that is.
    Its limits are those of now until `expires` (epoch seconds); `renew` gives the request as it is after that.
    """

    hold_id: bytes
    demand: Demand
    limits: tuple[Limit, ...]
    describe: Callable[[Grant], Posting]
    withdraw: Callable[[], Posting]
    queued: bool = False
    expires: float = inf
    renew: Callable[[], "HoldRequest"] | None = None

    @property
    def lines(self) -> set[Line]:
        """Where it stands in line if it has to: at the limits that wait."""
        return {limit.line for limit in self.limits if limit.waits}


class Batch:
    """One transaction, begun by the store; in a mere look at the ledger, what it would be.

    `pruned_ms` is the start (epoch milliseconds) up to which calls were pruned: their events are never taken again.
    """

    def __init__(self, connection: sqlite3.Connection, owner: str, pricing: PricingIds, pruned_ms: int = 0) -> None:
        self._connection = connection
        self._owner = owner
        self._pricing = pricing
        self._pruned = call_id_prefix(pruned_ms)
        self._in_line: set[Line] = set()
        self._steps: dict[Line, dict[int, list[int]]] = {}
        self._since: dict[Line, int] = {}
        self._counters: dict[Key, list[int]] = {}  # spent, held, estimated
        self._changed: set[Key] = set()
        self._held: list[tuple[HoldRequest, Grant, Posting]] = []
        self.stored: list[Posting] = []

    @property
    def balances(self) -> dict[Key, Balance]:
        """The balances that were looked at or changed, as they are now."""
        return {key: Balance(*counters) for key, counters in self._counters.items()}

    def append(self, entries: Sequence[Entry]) -> tuple[int, dict[int, str]]:
        """Store the events that are new and count them; replays and conflicts count nothing."""
        if not entries:
            return 0, {}
        if not any(map(_depends, entries)):
            return self._append(entries)
        duplicates = 0
        conflicts: dict[int, str] = {}
        for i, entry in enumerate(entries):
            added = self._added(entry) if _depends(entry) else [entry]
            known, wrong = self._append(added)
            duplicates += known or not added
            if wrong:
                conflicts[i] = wrong[0]
        return duplicates, conflicts

    def _added(self, entry: Entry) -> list[Entry]:
        """What an entry adds that depends on what is stored."""
        if entry.if_held:
            held = self._connection.execute("SELECT 1 FROM open_hold WHERE hold_id = ?", (entry.release,)).fetchone()
            return [entry] if held else []
        return [Entry.of(event) for event in uncounted(self._connection, entry.event)]

    def _append(self, entries: Sequence[Entry]) -> tuple[int, dict[int, str]]:
        fresh, conflicts = self._insert([entry.row for entry in entries])
        for entry, new in zip(entries, fresh, strict=True):
            if new:
                self.stored.append(entry.posting)
                self._count(entry.posting)
        self._release([entry.release for entry in entries if entry.release is not None])
        return fresh.count(False), conflicts

    def stands_behind(self, request: HoldRequest) -> bool:
        """Whether one before it waits for a balance that it needs as well; then the next ones stand behind it too."""
        behind = not self._in_line.isdisjoint(request.lines)
        if behind and len(request.limits) > 1:
            self._in_line.update(request.lines)
        return behind

    def answer(self, request: HoldRequest) -> Grant | Refusal:
        """Decide on a hold and count it, so that the next request meets what it left, or stands in line behind it."""
        answer = self._decide(request)
        if isinstance(answer, Grant):
            for limit, amount in zip(request.limits, answer.amounts, strict=True):
                self._change(limit.key, held=amount)
        elif answer.may_pass and request.queued:
            self._in_line.update(request.lines)
        return answer

    def hold(self, request: HoldRequest) -> Grant | Refusal:
        """Decide on a hold; `save_holds` stores those that are granted."""
        answer = self.answer(request)
        if isinstance(answer, Grant):
            self._held.append((request, answer, request.describe(answer)))
        return answer

    def save_holds(self) -> None:
        """Store the holds that were granted, all at once. Raises LedgerConflict for the id of an earlier hold."""
        if not self._held:
            return
        postings = [posting for *_, posting in self._held]
        fresh, _ = self._insert([to_row(posting) for posting in postings])
        for (request, *_), new in zip(self._held, fresh, strict=True):
            if not new:
                raise LedgerConflict(f"hold {request.hold_id.hex()} was taken before; each attempt needs its own id")
        self.stored += postings
        rows = [(r.hold_id, self._owner, charges_json(hold_charges(grant))) for r, grant, _ in self._held]
        write_rows(self._connection, "INSERT INTO open_hold", rows)

    def save_balances(self) -> None:
        """Write the counters that changed: the last thing of the transaction."""
        rows = [
            (*key, spent, estimated, held) for key in self._changed for spent, held, estimated in [self._counters[key]]
        ]
        write_rows(self._connection, "INSERT OR REPLACE INTO balance", rows)

    def _decide(self, request: HoldRequest) -> Grant | Refusal:
        demand = request.demand
        for limit in request.limits if request.queued else ():
            if limit.waits and limit.line in self._in_line:
                needed = demand.amount(limit.unit, demand.wanted_output)
                return Refusal(limit, self.standing(limit), needed, busy=True)
        answer = decide(demand, request.limits, [self.standing(limit) for limit in request.limits])
        if isinstance(answer, Refusal) and answer.limit.span:
            return replace(answer, limit=replace(answer.limit, reset_at=self._room_at(answer)))
        return answer

    def standing(self, limit: Limit) -> Balance:
        """The balance of a limit: of its window, or of all the steps that its rolling window looks back on."""
        if not limit.span:
            return Balance(*self._load(limit.key))
        counters = self._rolling(limit).values()
        return Balance(*(sum(column) for column in zip(*counters, strict=True)))

    def _rolling(self, limit: Limit) -> dict[int, list[int]]:
        """The steps that a rolling window looks back on: where each starts, and its counters."""
        line, since = limit.line, limit.window_start - limit.span
        steps = self._steps.get(line)
        if steps is None or since < self._since[line]:
            self._since[line] = since
            starts = {
                *step_starts(self._connection, line, since),
                *(key[2] for key in self._counters if key[:2] == line),
            }
            steps = self._steps[line] = {start: self._load((*line, start)) for start in sorted(starts)}
        steps.setdefault(limit.window_start, self._load(limit.key))
        return {start: counters for start, counters in steps.items() if start >= since}

    def _room_at(self, refusal: Refusal) -> float | None:
        """When a rolling window will have room, if nothing more is held or spent; None: never."""
        limit, balance = refusal.limit, refusal.balance
        missing = refusal.needed + balance.spent + balance.held - limit.limit
        steps = [(start, spent + held) for start, (spent, held, _) in sorted(self._rolling(limit).items())]
        return room_at(steps, missing, limit.span)

    def _insert(self, rows: Sequence[Row]) -> tuple[list[bool], dict[int, str]]:
        """Insert rows; tells for each whether it was new, and describes the ids that came with different content."""
        ids = self._pricing.of(self._connection, {row[-1] for row in rows})
        stored = [(*row[:-1], ids[row[-1]]) for row in rows]
        if all(row[0] >= self._pruned for row in rows):
            before = self._connection.total_changes
            self._connection.execute("SAVEPOINT rows")
            write_rows(self._connection, _INSERT, stored, _UNLESS_KNOWN)
            complete = self._connection.total_changes - before == len(rows)
            if not complete:
                self._connection.execute("ROLLBACK TO rows")
            self._connection.execute("RELEASE rows")
            if complete:
                return [True] * len(rows), {}
        # A replay is rare: only then is it worth a statement for each row to see which ones were there.
        fresh = [self._insert_one(row) for row in stored]
        conflicts = {i: self._conflict(row) for i, (row, new) in enumerate(zip(stored, fresh, strict=True)) if not new}
        return fresh, {i: text for i, text in conflicts.items() if text}

    def _insert_one(self, row: Row) -> bool:
        # Not by ON CONFLICT: an insert that finds its id taken uses up an offset.
        known = self._connection.execute("SELECT 1 FROM event WHERE event_id = ?", (row[0],)).fetchone()
        if known or row[0] < self._pruned:
            return False
        write_rows(self._connection, _INSERT, [row], _UNLESS_KNOWN)
        return True

    def _conflict(self, row: Row) -> str | None:
        if row[0] < self._pruned:
            return f"event {row[0].hex()} is of a call that was pruned, and was counted then"
        query = f"SELECT {', '.join(_STORED)} FROM event WHERE event_id = ?"
        stored = self._connection.execute(query, (row[0],)).fetchone()
        changed = [name for name, old, new in zip(COLUMNS, stored, row, strict=True) if old != new]
        return f"event {row[0].hex()} is stored with another {', '.join(changed)}" if changed else None

    def _count(self, posting: Posting) -> None:
        if posting.event_type not in SPENDING:
            return
        estimated, spend = posting.estimated, posting.spend_nusd
        for charge in posting.charges:
            self._change(key_of(charge), charge.amount, estimated=charge.amount if estimated else 0)
        if spend is not None:
            for key in ledger_keys(int.from_bytes(posting.call_id[:6]), posting.profile_id):
                self._change(key, spend, estimated=spend if estimated else 0)

    def _release(self, hold_ids: Sequence[bytes]) -> None:
        for charges in take_texts(self._connection, "charges", "open_hold", "hold_id", hold_ids):
            for charge in charges_from(charges):
                self._change(key_of(charge), held=-charge.amount)

    def _change(self, key: Key, spent: int = 0, *, held: int = 0, estimated: int = 0) -> None:
        counters = self._load(key)
        counters[0] += spent
        counters[1] += held
        counters[2] += estimated
        self._changed.add(key)

    def _load(self, key: Key) -> list[int]:
        counters = self._counters.get(key)
        if counters is None:
            counters = self._counters[key] = list(balance_of(self._connection, key))
        return counters


def _depends(entry: Entry) -> bool:
    """Whether what an entry adds depends on those before it: of a hold that may not be there, or an answer fetched."""
    return entry.if_held or (entry.posting.response_id is not None and is_fetched(entry.posting))


def hold_charges(grant: Grant) -> tuple[Charge, ...]:
    """The amounts held by a grant, as charges."""
    return tuple(charge_of(limit, amount) for limit, amount in zip(grant.limits, grant.amounts, strict=True))


def charge_of(limit: Limit, amount: int) -> Charge:
    """An amount in the balance that a call is counted in."""
    account, scope, window_start = limit.key
    return Charge(budget=account, scope=scope, window_start=window_start, amount=amount)


def key_of(charge: Charge) -> Key:
    """The balance that a charge counts in."""
    return (charge.budget, charge.scope, charge.window_start)


def ledger_keys(started_ms: int, profile_id: str | None) -> tuple[Key, ...]:
    """The ledger's own balances that a spend counts in: the UTC day in which the call began, of all and its profile."""
    day = started_ms // DAY_MS * DAY_MS // 1000
    everyone = (LEDGER_BUDGET, "", day)
    return (everyone,) if profile_id is None else (everyone, (LEDGER_BUDGET, f"profile={profile_id}", day))


def step_starts(connection: sqlite3.Connection, line: Line, since: int) -> list[int]:
    """Where the balances of a rolling window start, from an instant on (epoch seconds)."""
    query = "SELECT window_start FROM balance WHERE budget = ? AND scope = ? AND window_start >= ?"
    return [row[0] for row in connection.execute(query, (*line, since))]


def balance_of(connection: sqlite3.Connection, key: Key) -> tuple[int, int, int]:
    """What a balance has spent, holds, and has spent by estimate."""
    query = "SELECT spent, held, estimated FROM balance WHERE budget = ? AND scope = ? AND window_start = ?"
    return connection.execute(query, key).fetchone() or (0, 0, 0)
