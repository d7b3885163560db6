"""Which kind of export a file is, told from its content, and the reader that it needs."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Literal, get_args

from tollspan.ledger._errors import LedgerError
from tollspan.ledger._parquet import load_pyarrow
from tollspan.ledger._reconcile import _anthropic, _aws, _openai, _openrouter
from tollspan.ledger._reconcile._bill import Bill, BillError
from tollspan.ledger._runs import Progress

BillFormat = Literal["openai-costs", "openai-usage", "anthropic-cost", "anthropic-usage", "openrouter", "aws-cur"]
BILL_FORMATS: tuple[BillFormat, ...] = get_args(BillFormat)

_GZIP, _PARQUET, _ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"
_JSON_BEGINS = (b"{", b"[")
_DELIMITERS = ",\t;"
_NOT_SPACE = re.compile(r"\S")
_BATCH_ROWS = 10_000
_LARGEST_JSON = 1 << 28

_Records = Iterator[tuple[str, Mapping[str, str]]]

_READERS: dict[str, Callable[[Sequence[Mapping[str, Any]], str], Bill]] = {
    "openai-costs": _openai.read_costs,
    "openai-usage": _openai.read_usage,
    "anthropic-cost": _anthropic.read_costs,
    "anthropic-usage": _anthropic.read_usage,
    "openrouter": _openrouter.read_activity,
}
_TABLES: tuple[tuple[BillFormat, frozenset[str], Callable[[_Records], Bill]], ...] = (
    ("openai-costs", frozenset({"start_time", "amount_value"}), _openai.read_costs_csv),
    ("openai-usage", frozenset({"start_time", "num_model_requests", "model"}), _openai.read_usage_csv),
    ("anthropic-cost", frozenset({"usage_date_utc", "cost_usd"}), _anthropic.read_costs_csv),
    ("anthropic-usage", frozenset({"usage_date_utc", "usage_output_tokens"}), _anthropic.read_usage_csv),
    ("openrouter", frozenset({"created_at", "cost_total"}), _openrouter.read_activity_csv),
    ("openrouter", frozenset({"date", "usage"}), _openrouter.read_activity_csv),
)


def read_bill(path: Path, form: BillFormat | None = None, progress: Progress | None = None) -> Bill:
    """The bill that a file holds; of which format, it tells itself, unless `form` does. Raises BillError, OSError."""
    try:
        return _read(path, form, progress)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BillError(f"{path} is gzip, but damaged or cut: {error}; export it again") from error


def _read(path: Path, form: BillFormat | None, progress: Progress | None) -> Bill:
    with _opened(path, progress) as stream:
        head = stream.peek(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head.startswith(_PARQUET):
            return _checked(path, form, "aws-cur", lambda: _aws.read_cur(_parquet_records(path, progress), str(path)))
        if head.startswith(_ZIP):
            raise BillError(f"{path} is a zip archive; unpack it first")
        if head.startswith(_JSON_BEGINS):
            return _read_json(path, stream, form)
        return _read_csv(path, io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), form)


# ---- JSON


def _read_json(path: Path, stream: IO[bytes], form: BillFormat | None) -> Bill:
    pages = _pages(path, stream)
    told = form or _told(pages)
    if told is None:
        raise BillError(
            f"{path} is JSON, but none of the exports that can be read: {', '.join(BILL_FORMATS)}; "
            "save the answer of the API as it is, or say which one it is with --format"
        )
    if told not in _READERS:
        raise BillError(f"{path} is JSON, and {told} is CSV or Parquet; leave --format out")
    return _READERS[told](pages, str(path))


def _pages(path: Path, stream: IO[bytes]) -> list[Mapping[str, Any]]:
    """The pages of an answer: one document, a list of them, or one after the other. Money stays decimal."""
    content = stream.read(_LARGEST_JSON + 1)
    if len(content) > _LARGEST_JSON:
        raise BillError(f"{path} has more than {_LARGEST_JSON >> 20} MB of JSON; split it by days, and name each part")
    decoder = json.JSONDecoder(parse_float=Decimal)
    found: list[Any] = []
    try:
        text, at = content.decode("utf-8-sig").rstrip(), 0
        while at < len(text):
            document, at = decoder.raw_decode(text, _NOT_SPACE.search(text, at).start())  # type: ignore[union-attr]
            found += document if isinstance(document, list) else [document]
    except UnicodeDecodeError as error:
        raise BillError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise BillError(f"{path} is no whole JSON: {error}; export it again") from error
    for number, page in enumerate(found, 1):
        if not isinstance(page, Mapping) or not isinstance(page.get("data"), list):
            raise BillError(
                f"{path}: page {number} has no list `data`; save the answer of the API as it is{_told_error(page)}"
            )
    return found


def _told_error(page: Any) -> str:
    # Not its message, which may quote a part of the key.
    error = page.get("error") if isinstance(page, Mapping) else None
    kind = error.get("type") if isinstance(error, Mapping) else None
    return f" (it is an error: {kind!r})" if isinstance(kind, str) else ""


def _told(pages: Sequence[Mapping[str, Any]]) -> BillFormat | None:
    """The format of the first line that tells one."""
    for page in pages:
        for entry in page["data"]:
            if not isinstance(entry, Mapping):
                continue
            if "date" in entry and "usage" in entry:
                return "openrouter"
            results = entry.get("results")
            for result in results if isinstance(results, list) else ():
                if isinstance(result, Mapping) and (found := _told_by(entry, result)):
                    return found
    return None


def _told_by(bucket: Mapping[str, Any], result: Mapping[str, Any]) -> BillFormat | None:
    if "starting_at" in bucket:
        return "anthropic-cost" if "amount" in result else "anthropic-usage" if "output_tokens" in result else None
    if "start_time" not in bucket:
        return None
    return "openai-costs" if "amount" in result else "openai-usage" if "input_tokens" in result else None


# ---- CSV and Parquet


def _read_csv(path: Path, lines: IO[str], form: BillFormat | None) -> Bill:
    try:
        header = lines.readline(1 << 20)
        names, delimiter = _columns(header)
        if {_aws.START, _aws.COST} <= {*map(_aws.column_of, names)}:
            records = _records(path, lines, [_aws.column_of(name) for name in names], delimiter)
            return _checked(path, form, "aws-cur", lambda: _aws.read_cur(records, str(path)))
        for told, needed, read in _TABLES:
            if needed <= {*names} and form in (None, told):
                return read(_records(path, lines, names, delimiter))
    except UnicodeDecodeError as error:
        raise BillError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise BillError(f"{path} is no CSV: {error}") from error
    columns = ", ".join(names)[:200]
    if form is not None:
        raise BillError(
            f"{path} is no CSV of {form}: its columns are {columns}; leave --format out, or export it again"
        )
    raise BillError(
        f"{path} is none of the exports that can be read ({', '.join(BILL_FORMATS)}): its first line is {columns!r}; "
        "the file must have the header that it was exported with"
    )


def _columns(header: str) -> tuple[list[str], str]:
    found = [(next(csv.reader([header], delimiter=delimiter), []), delimiter) for delimiter in _DELIMITERS]
    names, delimiter = max(found, key=lambda one: len(one[0]))
    return [name.strip() for name in names], delimiter


def _records(path: Path, lines: IO[str], names: Sequence[str], delimiter: str) -> _Records:
    """The rows by column, each with its place in the file; empty lines are left out."""
    reader = csv.reader(lines, delimiter=delimiter)
    for values in reader:
        place = f"{path}: line {reader.line_num + 1}"
        if len(values) == len(names):
            yield place, dict(zip(names, values, strict=True))
        elif any(values):
            raise BillError(
                f"{place} has {len(values)} columns, the header {len(names)}; the file may be cut: export it again"
            )


def _parquet_records(path: Path, progress: Progress | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        arrow, parquet = load_pyarrow()
    except LedgerError as error:
        raise BillError(f"{path} is Parquet: {error}") from error
    try:
        with parquet.ParquetFile(path) as file:
            names = {name: _aws.column_of(name) for name in file.schema_arrow.names}
            wanted = [name for name, column in names.items() if column in _aws.COLUMNS]
            missing = {_aws.START, _aws.COST, _aws.TYPE} - {names[name] for name in wanted}
            if missing:
                raise BillError(
                    f"{path} is Parquet, but no Cost and Usage Report: it has no {', '.join(sorted(missing))}"
                )
            done = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                for number, row in enumerate(batch.to_pylist(), done + 1):
                    yield f"{path}: row {number}", {names[name]: value for name, value in row.items()}
                done += len(batch)
                if progress is not None:
                    progress(done, file.metadata.num_rows)
    except arrow.ArrowException as error:
        raise BillError(f"{path} is damaged Parquet: {error}; export it again") from error


def _checked(path: Path, form: BillFormat | None, told: BillFormat, read: Callable[[], Bill]) -> Bill:
    if form not in (None, told):
        raise BillError(f"{path} is an export of {told}, and not of {form}; leave --format out")
    return read()


class _Watched(io.FileIO):
    """A file that tells how much of it has been read."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(path)
        self._progress, self._size = progress, path.stat().st_size

    def readinto(self, buffer: Any, /) -> int | None:
        """Read, as any file does, and tell."""
        count = super().readinto(buffer)
        self._progress(self.tell(), self._size)
        return count


def _opened(path: Path, progress: Progress | None) -> "io.BufferedReader[Any]":
    """The file, unpacked where it is gzip."""
    file = path.open("rb") if progress is None else io.BufferedReader(_Watched(path, progress))
    if not file.peek(2).startswith(_GZIP):
        return file
    return io.BufferedReader(gzip.GzipFile(fileobj=file))
