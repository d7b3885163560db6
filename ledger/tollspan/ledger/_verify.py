"""Whether the counters equal the log: every balance is counted anew from events and open holds, and compared."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from sqlite3 import Connection, Row

from ._events import Charge
from ._figures import Difference
from ._holds import Balance
from ._rows import charges_from
from ._selection import statement
from ._store import LEDGER_BUDGET, Key, SQLiteStore
from ._windows import Window

_DAY = Window("day", "UTC")


def verify(store: SQLiteStore) -> list[Difference]:
    """The balances that are not what the log says, all read from one state of the ledger; none where all is well."""
    with closing(store.open_reader()) as reader:
        reader.execute("BEGIN")
        kept = _kept(reader)
        counted = _counted(reader)
    return [
        Difference(
            budget=key[0],
            scope=key[1],
            window_start=key[2],
            kept=kept.get(key, Balance()),
            counted=counted.get(key, Balance()),
        )
        for key in sorted({*kept, *counted})
        if kept.get(key, Balance()) != counted.get(key, Balance())
    ]


def _kept(reader: Connection) -> dict[Key, Balance]:
    rows = reader.execute("SELECT budget, scope, window_start, spent, held, estimated FROM balance")
    return {(row[0], row[1], row[2]): Balance(*tuple(row)[3:]) for row in rows}


def _counted(reader: Connection) -> dict[Key, Balance]:
    """The balances as the log has them: what was charged, and what open holds hold."""
    spent: defaultdict[Key, int] = defaultdict(int)
    estimated: defaultdict[Key, int] = defaultdict(int)
    held: defaultdict[Key, int] = defaultdict(int)
    for row in reader.execute(statement("charged")):
        for charge in _charges(row):
            spent[_key(charge)] += charge.amount
            estimated[_key(charge)] += charge.amount if row["estimated"] else 0
    for (charges,) in reader.execute("SELECT charges FROM open_hold"):
        for charge in charges_from(charges):
            held[_key(charge)] += charge.amount
    return {key: Balance(spent[key], held[key], estimated[key]) for key in {*spent, *held}}


def _charges(row: Row) -> Iterator[Charge]:
    """What an event counts in: its own charges, and the ledger's own balances of the UTC day its call began in."""
    yield from charges_from(row["charges"])
    if row["spend_nusd"] is None:
        return
    day = _DAY.start(int.from_bytes(row["call_id"][:6], "big") / 1000)
    scopes = [""] if row["profile_id"] is None else ["", f"profile={row['profile_id']}"]
    for scope in scopes:
        yield Charge(budget=LEDGER_BUDGET, scope=scope, window_start=day, amount=row["spend_nusd"])


def _key(charge: Charge) -> Key:
    return (charge.budget, charge.scope, charge.window_start)
