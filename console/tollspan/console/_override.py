"""`tollspan budget set`, `raise` and `remove`: limits that change while processes run, without a line of code."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import click

from tollspan.ledger import (
    BudgetDefinition,
    BudgetOverride,
    Ledger,
    QueryError,
    Settings,
    Unit,
    Window,
    did_you_mean,
    format_limit,
    open_ledger,
    parse_limit,
)

from ._ledgers import NoLedger, existing_ledger, ledger_path, settings_for
from ._render import plain, print_json
from ._standings import Known, as_dict, exactly, known, options, override_dict, until_text
from ._when import instant

_AHEAD = re.compile(r"(?:in\s+)?(\d{1,6})\s*(m|min|minutes?|h|hours?|d|days?|w|weeks?)")
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BARE = re.compile(r"[0-9._]+")
_LIKE = "write one to come, like 2h, 'in 3 days', tomorrow, 2026-12-01 or 2026-12-01T12:00"


class BudgetUseError(QueryError):
    """What is asked of a budget makes no sense; the text says what to write."""


@dataclass(frozen=True, slots=True)
class _Budgets:
    """What is known of all budgets: those in force, and every override, ended ones too."""

    ledger: Ledger
    settings: Settings
    now: float
    known: Mapping[str, Known]
    overrides: Mapping[str, BudgetOverride]

    def live(self, name: str) -> BudgetOverride | None:
        """The override of a name that is in force."""
        override = self.overrides.get(name)
        return override if override is not None and override.holds(self.now) else None

    def zone(self, name: str) -> str:
        """The time zone of a budget, or the configured one."""
        budget = self.known.get(name)
        return self.settings.timezone if budget is None else budget.window.timezone

    def near(self, name: str) -> str:
        """A hint at the name that was perhaps meant."""
        return did_you_mean(name, [*self.known, *self.overrides])


def set_(
    url: str | None, name: str, limit: str, *, until: str | None, limit_only: bool, as_json: bool, **more: Any
) -> None:
    """Set a limit for a budget that is known, or a budget of its own for any other name, and say what holds now."""
    settings, written = settings_for(url), _written(more)
    with _made(settings) as ledger:
        budgets = _look(ledger, settings)
        ends = _until(until, written.get("timezone") or budgets.zone(name))
        if limit_only or _is_defined_elsewhere(budgets, name):
            override = _limit_of(budgets, name, limit, written, anywhere=limit_only)
        else:
            override = _own(budgets, name, limit, written)
        _save(budgets, replace(override, until=ends), as_json=as_json)


def raise_(url: str | None, name: str, amount: str, *, lower: bool, until: str | None, as_json: bool) -> None:
    """Set a higher limit for a budget, and say what it was and what it is."""
    settings = settings_for(url)
    with existing_ledger(settings) as ledger:
        budgets = _look(ledger, settings)
        ends = _until(until, budgets.zone(name))
        override = _raised(budgets, name, amount, lower=lower)
        _save(budgets, override if ends is None else replace(override, until=ends), as_json=as_json)


def remove(url: str | None, name: str, *, as_json: bool) -> None:
    """Take back what was set for a budget, and say what holds now."""
    settings = settings_for(url)
    with existing_ledger(settings) as ledger:
        overrides = {override.name: override for override in ledger.overrides}
        override = overrides.get(name)
        if override is None or not ledger.remove_override(name):
            raise BudgetUseError(_nothing_set(_look(ledger, settings), name))
        after = _look(ledger, settings).known.get(name)
    ended = not override.holds(time.time())
    if override.definition is not None and (after is None or after.definition == override.definition):
        after = None
    if as_json:
        was = override_dict(override, settings.timezone)
        print_json({"removed": was | {"in_force": not ended}, "budget": None if after is None else as_dict(after)})
        return
    had = " (it had ended)" if ended else ""
    click.echo(f"removed: budget {plain(name)!r}, {override.text}{had}")
    if after is not None:
        click.echo(f"now: {after.text}, as {after.source} says")
    elif override.definition is not None:
        click.echo("now: no such budget")
    else:
        click.echo("now: as code says")


# ---- what is asked


def _written(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a budget that were given, as BudgetDefinition takes them."""
    written = {name: value for name, value in given.items() if value not in (None, ())}
    if "match" in written:
        written["match"] = _pairs(written["match"])
    if "warn_at" in written:
        written["warn_at"] = tuple(map(_share, written["warn_at"]))
    if str(written.get("output_bound", "")).isdecimal():
        written["output_bound"] = int(written["output_bound"])
    return written


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        dimension, _, glob = map(str.strip, text.partition("="))
        if not dimension or not glob:
            raise BudgetUseError(f"--match: {text!r} matches nothing; write it like user=ada or model=gpt-4*")
        if dimension in pairs:
            raise BudgetUseError(f"--match: {dimension} is there twice; a glob like a* can match many values")
        pairs[dimension] = glob
    return pairs


def _share(text: str) -> float:
    number = text.removesuffix("%").strip()
    with suppress(ValueError):
        return float(number) / 100 if text.endswith("%") else float(number)
    raise BudgetUseError(f"--warn-at: {text!r} is no share of the limit; write it like 0.8 or 80%")


def _until(text: str | None, timezone: str) -> float | None:
    """Epoch seconds of an instant to come. Raises QueryError."""
    if text is None:
        return None
    now, word = time.time(), text.strip().lower()
    if ahead := _AHEAD.fullmatch(word):
        return now + int(ahead[1]) * _SECONDS[ahead[2][0]]
    if word == "tomorrow":
        return float(Window("day", timezone).end(now) or now)
    at = -1.0
    with suppress(QueryError):
        at = instant(text, tz=timezone, now=now, option="--until")
    if at < 0:
        raise BudgetUseError(f"--until: {text!r} is no instant; {_LIKE}")
    if at <= now:
        raise BudgetUseError(f"--until: {text!r} is over; {_LIKE}")
    return at


def _amount(name: str, text: str, unit: Unit, window: Window | None) -> int:
    """A limit in a unit that is known: the text need not say it again, nor the window, and may say no other."""
    written = f"{text} {unit}" if _BARE.fullmatch(text.strip()) else text
    timezone = window.timezone if window else "UTC"
    most, says, into = parse_limit(written, timezone)
    if says != unit:
        raise BudgetUseError(f"budget {name!r} counts {unit}, and {text!r} is in {says}; write it like 20 {unit}")
    if into is not None and window is not None and into != window:
        raise BudgetUseError(
            f"budget {name!r} has the window {window}, and a limit from outside cannot change it: change it where "
            f"the budget is defined, or write {format_limit(most, unit, None)} without a window"
        )
    return most


# ---- what it comes to


def _is_defined_elsewhere(budgets: _Budgets, name: str) -> bool:
    budget = budgets.known.get(name)
    return budget is not None and budget.source != "command line"


def _limit_of(
    budgets: _Budgets, name: str, limit: str, written: Mapping[str, Any], *, anywhere: bool
) -> BudgetOverride:
    """Only the limit: what calls it counts is said where the budget is defined."""
    budget = budgets.known.get(name)
    where = budget.source if budget is not None else "code"
    if written:
        option = "--" + next(iter(written)).replace("_", "-")
        raise BudgetUseError(
            f"{option}: budget {name!r} is defined in {where}; change that there, and only its limit here"
        )
    if budget is not None and not (anywhere and budget.source == "command line"):
        unit = budget.definition.unit
        return BudgetOverride(name=name, limit=_amount(name, limit, unit, budget.window), unit=unit)
    most, unit, window = parse_limit(limit)
    if window is not None and unit != "concurrent":
        raise BudgetUseError(f"--limit-only: {limit!r} has a window; write {format_limit(most, unit, None)}")
    return BudgetOverride(name=name, limit=most, unit=unit)


def _own(budgets: _Budgets, name: str, limit: str, written: Mapping[str, Any]) -> BudgetOverride:
    """A budget of its own; of one that is set already, what is not written stays as it is."""
    before = budgets.known.get(name)
    zone = written.get("timezone") or budgets.zone(name)
    if before is not None and _BARE.fullmatch(limit.strip()):
        limit = f"{limit} {before.definition.unit}"
    elif before is None and _BARE.fullmatch(limit.strip()):
        raise BudgetUseError(f"no budget {name!r} is known{budgets.near(name)}; for a new one write like 20 USD / day")
    most, unit, window = parse_limit(limit, zone)
    if window is None and before is not None and before.definition.unit == unit:
        window = replace(before.window, timezone=zone)
    if window is None:
        raise BudgetUseError(
            f"{limit!r} has no window, and no budget {name!r} is known{budgets.near(name)}; say / day, / rolling hour "
            "or / total; or --limit-only, if a budget without a window has this name in code"
        )
    changes = {k: v for k, v in written.items() if k != "timezone"} | {"limit": most, "unit": unit, "window": window}
    definition = replace(before.definition, **_settled(changes)) if before else BudgetDefinition(name=name, **changes)
    return BudgetOverride(name=name, limit=most, unit=unit, definition=definition)


def _settled(changes: dict[str, Any]) -> dict[str, Any]:
    """A way out that is written takes the place of the one before, as a fallback model belongs to it."""
    if "on_limit" in changes and changes["on_limit"] != "fallback":
        return {"fallback_model": None} | changes
    return changes


def _raised(budgets: _Budgets, name: str, text: str, *, lower: bool) -> BudgetOverride:
    """What is in force for a budget, with another limit; also its end stays as it is."""
    budget, live = budgets.known.get(name), budgets.live(name)
    if budget is not None:
        unit, window, before = budget.definition.unit, budget.window, budget.limit
    elif live is not None:
        unit, window, before = live.unit, None, live.limit
    else:
        raise BudgetUseError(_unknown(budgets, name))
    most = _amount(name, text, unit, window)
    if most < before and not lower:
        raise BudgetUseError(
            f"budget {name!r}: {format_limit(most, unit, None)} is less than {format_limit(before, unit, None)}, which "
            "holds now; add --lower to lower it"
        )
    if live is None or live.unit != unit:
        return BudgetOverride(name=name, limit=most, unit=unit)
    own = None if live.definition is None else replace(live.definition, limit=most)
    return replace(live, limit=most, definition=own)


def _save(budgets: _Budgets, override: BudgetOverride, *, as_json: bool) -> None:
    override = replace(override, at=budgets.now)
    budgets.ledger.override_budget(override)
    after = _look(budgets.ledger, budgets.settings)
    before, budget = budgets.known.get(override.name), after.known.get(override.name)
    if as_json:
        print_json(_as_dict(override, before, budget, budgets.settings.timezone))
        return
    text = budget.text if budget else override.text
    until = until_text(override.until, after.zone(override.name))
    click.echo(f"budget {plain(override.name)!r}: {text}, {until}")
    for line in options(budget.definition) if budget else ():
        click.echo(f"  {plain(line)}")
    click.echo(f"before: {_was(budgets, override)}")
    click.echo("in force within a second in every process that uses this ledger")


def _was(budgets: _Budgets, override: BudgetOverride) -> str:
    before, live = budgets.known.get(override.name), budgets.live(override.name)
    if before is None:
        if override.definition is not None:
            return f"no budget of this name{budgets.near(override.name)}"
        return live.text if live else "as code says"
    if before.override is None or before.source == "command line":
        return before.text
    own = format_limit(before.definition.limit, before.definition.unit, None)
    return f"{before.text}, where {before.source} says {own}"


def _as_dict(override: BudgetOverride, before: Known | None, budget: Known | None, timezone: str) -> dict[str, Any]:
    def limit(of: Known | None) -> str | None:
        return None if of is None else exactly(of.limit, of.definition.unit)

    return {
        "override": override_dict(override, timezone),
        "before": limit(before),
        "budget": None if budget is None else as_dict(budget),
    }


# ---- the ledger


@contextmanager
def _made(settings: Settings) -> Iterator[Ledger]:
    """The configured ledger, which is made where there is none; the database of another program is left as it is."""
    if ledger_path(settings) is None:
        raise NoLedger("the configured ledger is in memory, where no other process can read it: name a file")
    with open_ledger(settings=settings) as ledger:
        yield ledger


def _look(ledger: Ledger, settings: Settings) -> _Budgets:
    now = time.time()
    budgets = {budget.definition.name: budget for budget in known(ledger, settings, now)}
    return _Budgets(ledger, settings, now, budgets, {override.name: override for override in ledger.overrides})


def _unknown(budgets: _Budgets, name: str) -> str:
    override = budgets.overrides.get(name)
    if override is not None:
        return f"what was set for budget {name!r} has ended ({override.text}); set it again with `tollspan budget set`"
    return (
        f"no budget {name!r} is known{budgets.near(name)}; see `tollspan budget status`, or set one with `budget set`"
    )


def _nothing_set(budgets: _Budgets, name: str) -> str:
    budget = budgets.known.get(name)
    if budget is not None:
        return f"nothing is set for budget {name!r}: it is {budget.text}, as {budget.source} says; change it there"
    names = ", ".join(repr(other) for other in budgets.overrides)
    return f"nothing is set for budget {name!r}{did_you_mean(name, budgets.overrides)}; set are: {names or 'none'}"
