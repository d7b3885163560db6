"""Changes of a price file that leave everything else in it as it is: comments, order, and how things are written."""

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tollspan.ledger._prices._entries import UNIT_FIELDS, FieldError, PriceEntry, read_entry
from tollspan.ledger._prices._file import PriceFileError, parse_price_file
from tollspan.ledger._prices._names import provider_id_of
from tollspan.ledger._prices._rates import PRICE_KEYS
from tollspan.ledger._prices._toml_lines import Places, Statement, Table, statements
from tollspan.ledger._prices._usage import DETAIL

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_KEY = ("model", "provider", "service_tier", "from", "until")
_UNIT = ("unit", "direction", "detail")
_FREE_WITHOUT = ("multiplier", "tiers", *UNIT_FIELDS)


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What became of a price file: its new text, and the line of the entry, which is `new` or was there already."""

    text: str
    line: int
    new: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry of the file as it is written."""

    entry: PriceEntry
    table: Table
    unit: tuple[Any, ...]


def set_price(text: str, path: Path, fields: Mapping[str, Any]) -> PriceChange:
    """The text of a price file in which an entry has these fields, as TOML has them.

    The entry of the same model, provider and dates keeps its other fields, but for those that contradict: `free` and
    prices take each other's place. A new one goes before the first entry that would hide it, or else to the end.
    Raises PriceFileError where the file, or what it would become, cannot be used.
    """
    parse_price_file(text, path)
    try:
        wanted = read_entry({"hold_usd": 0, **fields}, None)  # a hold makes an entry of what only adds to another
    except FieldError as error:
        raise PriceFileError(f"{path}: {error}") from None
    found = _read(text, path)
    same = [one for one in found if one.entry.key == wanted.key]
    of_unit = [one for one in same if not {*_UNIT} & {*fields} or one.unit == _unit_of(fields)]
    if of_unit:
        changed = _changed(text, path, of_unit, fields)
    else:
        at = _place_for(text, found, wanted)
        changed = _inserted(text, at, _block(fields))
    parse_price_file(changed, path)
    line = next(one.table.header.line for one in _read(changed, path) if one.entry.key == wanted.key)
    return PriceChange(changed, line, not of_unit)


def set_alias(text: str, path: Path, name: str, provider: str | None, target: str) -> PriceChange:
    """The text of a price file in which a name, at a provider or at any, stands for the model `target`.

    Raises PriceFileError where the file cannot be used.
    """
    parse_price_file(text, path)
    table = ("aliases",) if provider is None else ("deployments", provider_id_of(provider) or provider)
    own = list(_fields_of(text, table))
    line = f"{_key(name)} = {_toml(target)}\n"
    stands = next((one for one in own if one.keys[0].lower() == name.lower() and not one.is_header), None)
    if stands is not None:
        changed = text[: _value_of(stands, name, path)] + f" {_toml(target)}" + text[stands.stop :]
    elif own:
        at = own[-1].end
        changed = text[:at] + ("" if text[:at].endswith("\n") else "\n") + line + text[at:]
    else:
        changed = _inserted(text, len(text), f"[{'.'.join(map(_key, table))}]\n{line}")
    found = parse_price_file(changed, path).find_alias(provider_id_of(provider), (name,))
    return PriceChange(changed, found.line if found and found.line else 0, stands is None)


def _fields_of(text: str, table: Sequence[str]) -> Iterator[Statement]:
    """The header of a table of names, and its fields."""
    inside = False
    for one in statements(text):
        if one.is_header:
            inside = one.keys[0] == table[0] and list(map(provider_id_of, one.keys[1:])) == [
                provider_id_of(part) for part in table[1:]
            ]
        if inside:
            yield one


def _read(text: str, path: Path) -> list[_Found]:
    import tomllib  # noqa: PLC0415 - only commands change a price file

    raw = tomllib.loads(text, parse_float=Decimal).get("price", [])
    tables = Places(text).tables.get("price", [])
    if len(raw) != len(tables):
        raise PriceFileError(f"{path}: 'price = [...]' cannot be added to; write its entries as [[price]] tables")
    return [_Found(read_entry(o, t.header.line), t, _unit_of(o)) for o, t in zip(raw, tables, strict=True)]


def _unit_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an entry prices by `unit`: those of several units stand beside each other."""
    return tuple(fields.get(name) for name in _UNIT)


def _changed(text: str, path: Path, same: Sequence[_Found], fields: Mapping[str, Any]) -> str:
    """The text with fields changed where they stand, added to the first of the tables, or taken out."""
    edits: list[tuple[int, int, str]] = []
    added: dict[str, Any] = {}
    for name, value in fields.items():
        stands = next((one.table.fields[name] for one in same if name in one.table.fields), None)
        if stands is None:
            added[name] = value
        elif name not in _KEY:  # those are the same, however they are written
            edits.append((_value_of(stands, name, path), stands.stop, f" {_toml(value)}"))
    for name, stands in _contradicted(same, fields):
        _value_of(stands, name, path)
        edits.append((stands.start, stands.end, ""))
    if added:
        end = same[0].table.end
        edits.append((end, end, _lines(added) if text[:end].endswith("\n") else "\n" + _lines(added)))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _contradicted(same: Sequence[_Found], fields: Mapping[str, Any]) -> list[tuple[str, Statement]]:
    """The fields that cannot stay beside the new ones."""
    standing = [(name, stands) for one in same for name, stands in one.table.fields.items() if name not in fields]
    if fields.get("free"):
        return [(name, stands) for name, stands in standing if _is_price(name)]
    return [(name, stands) for name, stands in standing if name == "free"] if any(map(_is_price, fields)) else []


def _is_price(name: str) -> bool:
    return name in _FREE_WITHOUT or name.partition(DETAIL)[0] in PRICE_KEYS


def _value_of(stands: Statement, name: str, path: Path) -> int:
    if stands.value is None or len(stands.keys) > 1:
        raise PriceFileError(f"{path}, line {stands.line}: {name!r} is a table of its own; change it by hand")
    return stands.value


def _place_for(text: str, found: Sequence[_Found], wanted: PriceEntry) -> int:
    """Where a new entry is not hidden: before the first that matches its model, and the comments above that one."""
    for one in found:
        if (one.entry.provider, one.entry.model) == (wanted.provider, wanted.model):
            break  # entries of one glob are asked together, wherever they stand
        if one.entry.matches(wanted.provider, (wanted.model,)):
            return _above_comments(text, one.table.header.start)
    return len(text)


def _above_comments(text: str, start: int) -> int:
    while start:
        before = text.rfind("\n", 0, start - 1) + 1
        if not text[before:start].lstrip().startswith("#"):
            break
        start = before
    return start


def _inserted(text: str, at: int, block: str) -> str:
    before, after = text[:at], text[at:]
    if before and not before.endswith("\n"):
        before += "\n"
    gap = "\n" if before and not before.endswith("\n\n") else ""
    return f"{before}{gap}{block}" + (f"\n{after}" if after else "")


def _block(fields: Mapping[str, Any]) -> str:
    return "[[price]]\n" + _lines(fields)


def _lines(fields: Mapping[str, Any]) -> str:
    return "".join(f"{_key(name)} = {_toml(value)}\n" for name, value in fields.items())


def _key(name: str) -> str:
    """A key as TOML has it: in quotes where it must be."""
    return name if _BARE.fullmatch(name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, int):
        return str(value)
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
