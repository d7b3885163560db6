"""Whether the counters equal the log: every balance is counted anew from events and open holds, and compared."""

from collections import defaultdict
from contextlib import closing
from sqlite3 import Connection

from ._batch import Key, key_of
from ._figures import Difference
from ._holds import Balance
from ._prune import counted
from ._rows import charges_from
from ._selection import statement
from ._store import SQLiteStore


def verify(store: SQLiteStore) -> list[Difference]:
    """The balances that are not what the log says, all read from one state of the ledger; none where all is well."""
    with closing(store.open_reader()) as reader:
        reader.execute("BEGIN")
        kept = _kept(reader)
        found = _counted(reader)
    return [
        Difference(
            budget=key[0],
            scope=key[1],
            window_start=key[2],
            kept=kept.get(key, Balance()),
            counted=found.get(key, Balance()),
        )
        for key in sorted({*kept, *found})
        if kept.get(key, Balance()) != found.get(key, Balance())
    ]


def _kept(reader: Connection) -> dict[Key, Balance]:
    rows = reader.execute("SELECT budget, scope, window_start, spent, held, estimated FROM balance")
    return {(row[0], row[1], row[2]): Balance(*tuple(row)[3:]) for row in rows}


def _counted(reader: Connection) -> dict[Key, Balance]:
    """The balances as the log has them: what pruned events had charged, what the others did, what open holds hold."""
    spent: defaultdict[Key, int] = defaultdict(int)
    estimated: defaultdict[Key, int] = defaultdict(int)
    held: defaultdict[Key, int] = defaultdict(int)
    for budget, scope, window_start, *opening in reader.execute("SELECT * FROM opening"):
        spent[budget, scope, window_start], estimated[budget, scope, window_start] = opening
    for row in reader.execute(statement("charged")):
        for key, amount in counted(row):
            spent[key] += amount
            estimated[key] += amount if row["estimated"] else 0
    for (charges,) in reader.execute("SELECT charges FROM open_hold"):
        for charge in charges_from(charges):
            held[key_of(charge)] += charge.amount
    return {key: Balance(spent[key], held[key], estimated[key]) for key in {*spent, *held}}
