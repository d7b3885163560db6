"""The log as Parquet, for other programs: a folder of parts, each named by its first and last offset."""

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson

from ._archive import Progress, Selected, alone, check_header, check_origin
from ._errors import LedgerError
from ._events import LedgerEvent
from ._lines import MARK
from ._store import SQLiteStore

_GROUP = 10_000
_PART_ROWS = 500_000
_PART = re.compile(r"events-(\d{15})-(\d{15})\.parquet")
_PARTIAL = "partial"
_WHOLE = ("offset", "http_status", "attempts", "schema_version")
_MONEY = ("cost_est_usd", "cost_actual_usd")
_JSON = ("usage", "cost_rates", "timing", "tags", "records", "charges")


def export_parquet(
    store: SQLiteStore,
    folder: Path,
    *,
    selected: Selected | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the events that a folder lacks, as parts of at most half a million; gives how many events.

    A part is named by its first and last offset, and appears when it is whole. Raises OSError, LedgerUnavailable, and
    LedgerError where pyarrow is missing, or the folder holds the export of something else.
    """
    arrow, parquet = load_pyarrow()
    selected = selected or Selected()
    if folder.exists() and not folder.is_dir():
        raise LedgerError(f"{folder} is a file: Parquet is exported as parts in a folder; name another one")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".tollspan-lock", folder):
        for left in folder.glob(f".*.{_PARTIAL}"):
            left.unlink()
        after = _last_exported(store, folder, selected, parquet)
        schema = _schema(arrow).with_metadata({MARK: orjson.dumps(selected.header)})
        count, part = 0, None
        try:
            for page in selected.pages(store, after, progress, size=_GROUP):
                part = part or _Part(folder, page[0].offset or 0, parquet, schema)
                part.write(page, arrow)
                count += len(page)
                part = None if part.finish_at(_PART_ROWS) else part
            if part is not None:
                part.finish_at(0)
        except BaseException:
            if part is not None:
                part.abandon()
            raise
    return count


class _Part:
    """A part that is being written, under a name that nobody takes for a part."""

    def __init__(self, folder: Path, first: int, parquet: Any, schema: Any) -> None:
        self._first = self._last = first
        self._path = folder / f".{first:015}.{_PARTIAL}"
        self._rows = 0
        self._schema = schema
        self._writer = parquet.ParquetWriter(self._path, schema, compression="zstd")

    def write(self, page: Sequence[LedgerEvent], arrow: Any) -> None:
        self._writer.write_table(arrow.Table.from_pylist([_cells(event) for event in page], schema=self._schema))
        self._rows += len(page)
        self._last = page[-1].offset or 0

    def finish_at(self, rows: int) -> bool:
        """Give it its name if it has so many rows."""
        if self._rows < rows:
            return False
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        self._path.replace(self._path.with_name(f"events-{self._first:015}-{self._last:015}.parquet"))
        return True

    def abandon(self) -> None:
        self._writer.close()
        self._path.unlink(missing_ok=True)


def _last_exported(store: SQLiteStore, folder: Path, selected: Selected, parquet: Any) -> int:
    parts = [(int(name[2]), path) for path in folder.iterdir() if (name := _PART.fullmatch(path.name))]
    if not parts:
        return 0
    offset, path = max(parts)
    try:
        with parquet.ParquetFile(path) as part:
            header = (part.schema_arrow.metadata or {}).get(MARK.encode(), b"")
            ids = part.read_row_group(part.num_row_groups - 1, columns=["event_id"])["event_id"]
            last = bytes.fromhex(ids[-1].as_py())
    except (ValueError, KeyError, IndexError) as error:  # those of pyarrow are ValueErrors
        raise LedgerError(f"{path} is damaged or no part of an export: move it away, and export again") from error
    check_header(path, header, selected)
    check_origin(store, folder, offset, last)
    return offset


def load_pyarrow() -> tuple[Any, Any]:
    """The packages of the extra. Raises LedgerError where they are missing."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise LedgerError('Parquet needs pyarrow: pip install "tollspan[parquet]"') from error
    return pa, pq


def _schema(arrow: Any) -> Any:
    types = {
        "timestamp": arrow.float64(),
        "estimated": arrow.bool_(),
        **dict.fromkeys(_WHOLE, arrow.int64()),
        **dict.fromkeys((*_MONEY, "spend_usd"), arrow.decimal128(19, 9)),
    }
    names = [*(field.name for field in fields(LedgerEvent)), "spend_usd"]
    return arrow.schema([(name, types.get(name, arrow.string())) for name in names])


def _cells(event: LedgerEvent) -> dict[str, Any]:
    """A row: what is no single value as the text of its JSON, and what the event adds to spend."""
    row = {field.name: getattr(event, field.name) for field in fields(LedgerEvent)}
    texts = {name: None if row[name] is None else orjson.dumps(row[name]).decode() for name in _JSON}
    return {**row, **texts, "spend_usd": event.spend_usd}
