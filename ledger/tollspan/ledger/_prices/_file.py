"""The user's own prices: the TOML file named by TOLLSPAN_PRICES, which goes before all others (docs/prices.md)."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tollspan.ledger._prices._entries import FieldError, PriceEntry, merged, read_entry
from tollspan.ledger._prices._names import provider_id_of, tier_of
from tollspan.ledger._prices._toml_lines import Places
from tollspan.ledger._windows import did_you_mean

_ALIASES = ("deployments", "aliases")
_TABLES = ("price", *_ALIASES)


class PriceFileError(ValueError):
    """The user's price file cannot be used; the text names the file, the line, the entry, the field and what to do."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a model: `target` is the name to look up, after the provider and a slash where that changes."""

    provider: str | None
    name: str
    target: str
    line: int | None = None


@dataclass(frozen=True, eq=False)
class PriceFile:
    """What a price file says. `entries` are in the order in which they are asked, those of one glob latest first."""

    path: Path | None = None
    entries: tuple[PriceEntry, ...] = ()
    aliases: tuple[Alias, ...] = ()
    _turns: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        ends = {end for entry in self.entries for end in (entry.since, entry.until) if math.isfinite(end)}
        object.__setattr__(self, "_turns", tuple(sorted(ends)))

    def find(
        self, provider_id: str | None, names: Iterable[str], at: float, service_tier: str | None = None
    ) -> PriceEntry | None:
        """The entry that is in force for a model at an instant (epoch seconds), under any of its names."""
        tiers = (None, tier_of(service_tier))
        for entry in self.entries:
            if entry.since <= at < entry.until and entry.service_tier in tiers and entry.matches(provider_id, names):
                return entry
        return None

    def alias_of(self, provider_id: str | None, names: Iterable[str]) -> str | None:
        """The `model` or `provider/model` that a model of a provider stands for, None where it stands for itself."""
        alias = self.find_alias(provider_id, names)
        return alias.target if alias else None

    def find_alias(self, provider_id: str | None, names: Iterable[str]) -> Alias | None:
        """The alias of a model, under any of its names: one of its provider first, and an exact one before a glob."""
        wanted = [name.lower() for name in names]
        for provider in dict.fromkeys((provider_id, None)):
            own = [alias for alias in self.aliases if alias.provider == provider]
            for alias in own:
                if alias.name in wanted:
                    return alias
            for alias in own:
                if any(fnmatchcase(name, alias.name) for name in wanted):
                    return alias
        return None

    def moment(self, at: float, step: float) -> float:
        """An instant up to `at` at which the same entries are in force as then, the same for all of a step's."""
        start = at // step * step
        begun = bisect_right(self._turns, at) if self._turns else 0
        return max(start, self._turns[begun - 1]) if begun else start


NO_PRICES = PriceFile()


def read_price_file(path: Path) -> PriceFile:
    """What a price file says. Raises PriceFileError."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
    except OSError as error:
        raise PriceFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise PriceFileError(f"{path}: is not text in UTF-8: {error}") from error
    return parse_price_file(text, path)


def parse_price_file(text: str, path: Path) -> PriceFile:
    """What the text of a price file says. Raises PriceFileError."""
    import tomllib  # noqa: PLC0415 - most programs have no price file

    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except ValueError as error:  # its text tells line and column
        raise PriceFileError(f"{path}: {error}") from error
    reading = _Reading(path, Places(text))
    for name in document:
        if name not in _TABLES:
            near = did_you_mean(name, _TABLES)
            known = "write prices as [[price]] tables, other names of models as [deployments] and [aliases]"
            raise reading.error(f"{name!r} is not known{near}; {known}", reading.places.line(name))
    aliases = [alias for name in _ALIASES for alias in reading.aliases(name, document.get(name, {}))]
    return PriceFile(path, reading.entries(document.get("price", [])), tuple(aliases))


@dataclass(frozen=True, slots=True)
class _Reading:
    """A file that is being read."""

    path: Path
    places: Places

    def error(self, text: str, line: int | None) -> PriceFileError:
        return PriceFileError(f"{self.path}, line {line}: {text}" if line else f"{self.path}: {text}")

    def entries(self, raw: Any) -> tuple[PriceEntry, ...]:
        if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
            raise self.error("'price' must be written as [[price]] tables", self.places.line("price"))
        groups: dict[tuple[str | None, str], dict[tuple[Any, ...], PriceEntry]] = {}
        for number, one in enumerate(raw):
            try:
                entry = read_entry(one, self.places.line("price", number))
                group = groups.setdefault((entry.provider, entry.model), {})
                group[entry.key] = merged(group[entry.key], entry) if entry.key in group else entry
            except FieldError as error:
                line = self.places.line("price", number, error.name)
                raise self.error(f"[[price]] entry {number + 1}: {error}", line) from None
        return tuple(entry for group in groups.values() for entry in sorted(group.values(), key=lambda e: e.rank))

    def aliases(self, table: str, raw: Any, provider: str | None = None) -> list[Alias]:
        keys = (table, provider) if provider else (table,)
        if not isinstance(raw, Mapping):
            text = f'[{table}] must be a table of names, like prod-chat = "openai/gpt-4o"'
            raise self.error(text, self.places.inner_line(*keys))
        found: list[Alias] = []
        for name, target in raw.items():
            line = self.places.inner_line(*keys, name)
            if isinstance(target, Mapping) and provider is None:
                found += self.aliases(table, target, name)
            elif isinstance(target, str) and target.strip(" /"):
                found.append(Alias(provider_id_of(provider), name.lower(), target.strip(), line))
            else:
                text = f'[{".".join(keys)}]: {name!r} must name a model, like "openai/gpt-4o", not {target!r}'
                raise self.error(text, line)
        return found
