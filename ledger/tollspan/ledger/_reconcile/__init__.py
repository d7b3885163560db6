"""A provider's export of costs or usage against the ledger: read, compared by day and model, and settled on request."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tollspan.ledger._reconcile._bill import Bill, BillError
from tollspan.ledger._reconcile._compare import Explanation, Reconciled, ReconciledRow, Tolerance, compare
from tollspan.ledger._reconcile._files import BILL_FORMATS, BillFormat, read_bill
from tollspan.ledger._reconcile._settle import settle
from tollspan.ledger._runs import Progress
from tollspan.ledger._store import SQLiteStore
from tollspan.ledger._writer import Writer

__all__ = [
    "BILL_FORMATS",
    "BillError",
    "BillFormat",
    "Explanation",
    "Reconciled",
    "ReconciledRow",
    "Tolerance",
    "read_bills",
    "reconcile",
]


def read_bills(files: Sequence[Path], form: BillFormat | None = None, progress: Progress | None = None) -> Bill:
    """The bill that files of one kind hold together. Raises BillError and OSError."""
    bill: Bill | None = None
    for file in dict.fromkeys(path.resolve() for path in files):
        found = read_bill(file, form, progress)
        if bill is None:
            bill = found
        elif found.format != bill.format:
            raise BillError(
                f"{file} is an export of {found.format}, the others are of {bill.format}; reconcile each alone"
            )
        else:
            bill.merge(found)
    if bill is None:
        raise BillError("there is no file to read")
    return bill


def reconcile(
    store: SQLiteStore,
    writer: Writer,
    files: Sequence[Path],
    *,
    form: BillFormat | None,
    since: float | None,
    until: float | None,
    same: Mapping[str, str],
    tolerance: Tolerance,
    adjust: bool,
    one_sided: bool,
    progress: Progress | None = None,
) -> Reconciled:
    """Compare a bill with the ledger and, with `adjust`, bring the ledger to it; see Ledger.reconcile."""
    bill = read_bills(files, form, progress)
    found = compare(store, bill, since=since, until=until, same=same, tolerance=tolerance)
    if adjust:
        settle(store, writer, found, one_sided=one_sided)
        found.after = compare(store, bill, since=since, until=until, same=same, tolerance=tolerance)
    return found
