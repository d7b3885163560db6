"""What a provider says a day of a model has cost: the lines of an export, summed as they are read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

Measure = Literal["usd", "tokens"]

_MOST_USD = Decimal(9_000_000_000)
_MOST_TOKENS = 10**15
_YEARS = range(2015, 2100)


class BillError(ValueError):
    """An export cannot be read; the text names the file, the place in it, what is wrong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """One line of an export. `model` None: it names none, like tax or a tool; `item` says what it is for.

    `usd` or `tokens` is what the export counts in. `tier` is a service tier with prices of its own, `cached` whether
    the line is of cached input.
    """

    day: date
    model: str | None
    item: str
    usd: Decimal = Decimal(0)
    tokens: int = 0
    tier: str | None = None
    cached: bool = False


@dataclass(slots=True)
class Cell:
    """The lines of one day and model, summed. `rounding` is the most by which they can be off because of decimals."""

    usd: Decimal = Decimal(0)
    tokens: int = 0
    lines: int = 0
    cached_usd: Decimal = Decimal(0)
    rounding: Decimal = Decimal(0)
    tiers: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    items: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def add(self, line: BillLine) -> None:
        """Count a line."""
        self.usd += line.usd
        self.tokens += line.tokens
        self.lines += 1
        exponent = line.usd.as_tuple().exponent
        if line.usd and isinstance(exponent, int):
            self.rounding += Decimal(5).scaleb(exponent - 1)
        if line.cached:
            self.cached_usd += line.usd
        if line.tier is not None:
            self.tiers[line.tier] += line.usd
        self.items[line.item] += line.usd

    def merge(self, other: "Cell") -> None:
        """Count all lines of another one."""
        self.usd += other.usd
        self.tokens += other.tokens
        self.lines += other.lines
        self.cached_usd += other.cached_usd
        self.rounding += other.rounding
        for mine, its in ((self.tiers, other.tiers), (self.items, other.items)):
            for name, usd in its.items():
                mine[name] += usd


@dataclass(slots=True, kw_only=True)
class Bill:
    """An export, read: its lines by day (UTC) and model, and what else it tells.

    `days` are those it covers, with or without lines; it begins at `first` and ends at `last`, where it tells. `more`
    tells that further pages are missing, `others` counts the rows of other services, and `elsewhere_usd` is what was
    paid to somebody else.
    """

    format: str
    provider: str
    measure: Measure
    cells: dict[tuple[date, str | None], Cell] = field(default_factory=dict)
    days: set[date] = field(default_factory=set)
    first: datetime | None = None
    last: datetime | None = None
    more: bool = False
    others: int = 0
    elsewhere_usd: Decimal = Decimal(0)

    def add(self, line: BillLine) -> None:
        """Count a line."""
        self.days.add(line.day)
        cell = self.cells.get((line.day, line.model))
        if cell is None:
            cell = self.cells[line.day, line.model] = Cell()
        cell.add(line)

    def cover(self, start: datetime, end: datetime | None) -> None:
        """Note a span that the export has, whether lines are in it or not."""
        self.days.add(start.date())
        self.first = min(self.first or start, start)
        if end is not None:
            self.last = max(self.last or end, end)

    def merge(self, other: "Bill") -> None:
        """Count all that another export of the same kind has."""
        for key, cell in other.cells.items():
            self.cells.setdefault(key, Cell()).merge(cell)
        self.days |= other.days
        self.first = min(filter(None, (self.first, other.first)), default=None)
        self.last = max(filter(None, (self.last, other.last)), default=None)
        self.more = self.more and other.more
        self.others += other.others
        self.elsewhere_usd += other.elsewhere_usd

    @property
    def cut_days(self) -> set[date]:
        """The days that it has only a part of, because it begins or ends inside of them."""
        return {at.date() for at in (self.first, self.last) if at is not None and at.time() != time()}

    @property
    def models(self) -> set[str]:
        """The models that it names."""
        return {model for _, model in self.cells if model is not None}


def buckets(
    bill: Bill, pages: Iterable[Mapping[str, Any]], where: str, span: tuple[str, str]
) -> Iterator[tuple[str, datetime, Mapping[str, Any]]]:
    """The results of an API that answers in buckets of time: the place of each, when its bucket begins, and itself.

    `span` names the two ends of a bucket. The bill covers the buckets, empty ones too. Raises BillError.
    """
    for number, page in enumerate(pages):
        bill.more = bool(page.get("has_more"))
        prefix = f"{where}: {'' if number == 0 else f'page {number + 1}, '}data"
        for i, found in enumerate(rows(page.get("data"), prefix)):
            place = f"{prefix}[{i}]"
            bucket = table(found, place)
            start, end = (utc(bucket.get(name), f"{place}.{name}") for name in span)
            bill.cover(start, end)
            for j, result in enumerate(rows(bucket.get("results"), f"{place}.results")):
                yield f"{place}.results[{j}]", start, table(result, f"{place}.results[{j}]")


# ---- values, each with the place where it stands


def amount(value: Any, where: str) -> Decimal:
    """An amount in the unit of the export, exact. Raises BillError."""
    text = value.strip().removeprefix("$") if isinstance(value, str) else value
    if isinstance(text, bool) or not isinstance(text, str | int | Decimal):
        raise BillError(f"{where} is {value!r}, and no amount")
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise BillError(f"{where} is {value!r}, and no amount; write it like 0.0123") from None
    if not found.is_finite() or abs(found) > _MOST_USD:
        raise BillError(f"{where} is {value!r}, which is no amount that a ledger can count")
    return found


def tokens_of(record: Mapping[str, Any], names: Iterable[str], where: str) -> int:
    """The tokens of those fields that a record has. Raises BillError where it has none of them."""
    there = [name for name in names if name in record]
    if not there:
        raise BillError(f"{where} has none of the counts of tokens of a usage report; leave --format out")
    return sum(tokens(record[name], f"{where}{name}") for name in there)


def tokens(value: Any, where: str) -> int:
    """A count of tokens, 0 where there is none. Raises BillError."""
    if value is None or value == "":
        return 0
    try:
        found = int(value) if not isinstance(value, bool | float) else -1
    except ValueError:
        found = -1
    if not 0 <= found < _MOST_TOKENS:
        raise BillError(f"{where} is {value!r}, and no count of tokens")
    return found


def utc(value: Any, where: str) -> datetime:
    """An instant in UTC, of ISO 8601 (without an offset: UTC) or epoch seconds. Raises BillError."""
    try:
        found = _instant(value)
    except (ValueError, OverflowError, OSError):
        found = None
    if found is None or found.year not in _YEARS:
        raise BillError(f"{where} is {value!r}, and no day; it must be like 2026-11-01, or epoch seconds")
    return found


def usd_only(value: Any, where: str) -> None:
    """Raise BillError for another currency."""
    if str(value or "usd").strip().lower() != "usd":
        raise BillError(f"{where} is {value!r}: the ledger counts in USD; export the costs in USD")


def table(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object. Raises BillError."""
    if not isinstance(value, Mapping):
        raise BillError(f"{where} is no JSON object")
    return value


def rows(value: Any, where: str) -> list[Any]:
    """A JSON list. Raises BillError."""
    if not isinstance(value, list):
        raise BillError(f"{where} is no list")
    return value


def text(value: Any) -> str | None:
    """A text with something in it."""
    return value.strip() or None if isinstance(value, str) else None


def _is_epoch(value: Any) -> bool:
    """Whether a value is epoch seconds; 20261101 is a day."""
    if isinstance(value, str):
        return value.strip().isdecimal() and len(value.strip()) > len("20261101")
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _instant(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif _is_epoch(value):
        found = datetime.fromtimestamp(int(value), UTC)
    elif isinstance(value, str):
        found = datetime.fromisoformat(value.strip())
    else:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
