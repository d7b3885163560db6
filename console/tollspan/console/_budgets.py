"""`tollspan budget status`: every budget in its current window."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console

from tollspan.ledger import Balance, BudgetOverride, Unit, format_amount

from ._ledgers import existing_ledger, settings_for
from ._render import CURRENCY, Numbers, console, plain, print_json, print_table
from ._standings import (
    Known,
    Standing,
    as_dict,
    exactly,
    limit_text,
    looks_back,
    options,
    override_dict,
    standings,
    until_text,
)
from ._when import iso, shown

_BAR = 12
_DAY_S = 86_400


def show(url: str | None, *, as_json: bool) -> int:
    """Print the budgets; the exit status is 1 when one is over its limit."""
    settings, now = settings_for(url), time.time()
    with existing_ledger(settings) as ledger:
        budgets = standings(ledger, settings, now)
        overrides = list(ledger.overrides)
    if as_json:
        print_json(
            {
                "currency": CURRENCY,
                "budgets": [_as_dict(budget) for budget in budgets],
                "overrides": [
                    override_dict(each, settings.timezone) | {"in_force": each.holds(now)} for each in overrides
                ],
            }
        )
    else:
        _print_text(console(), budgets, [each for each in overrides if each.holds(now)], settings.timezone)
    return int(any(budget.is_over for budget in budgets))


def _as_dict(standing: Standing) -> dict[str, Any]:
    budget = standing.budget
    zone = budget.window.timezone
    return as_dict(budget) | {
        "resets_at": None if standing.reset_at is None else iso(standing.reset_at, zone),
        "balances": [_balance(scope, balance, budget) for scope, balance in standing.balances.items()],
    }


def _balance(scope: str, balance: Balance, budget: Known) -> dict[str, Any]:
    unit = budget.definition.unit
    return {
        "scope": scope,
        "spent": exactly(balance.spent, unit),
        "estimated": exactly(balance.estimated, unit),
        "held": exactly(balance.held, unit),
        "remaining": exactly(_remaining(balance, budget.limit), unit),
        "over_limit": balance.spent > budget.limit,
    }


def _print_text(
    screen: Console, budgets: Sequence[Standing], overrides: Iterable[BudgetOverride], timezone: str
) -> None:
    if not budgets:
        screen.print(
            'no budgets yet: set TOLLSPAN_BUDGET="5 USD / day", or use budget("5 USD / day", name=...) in code, or '
            '`tollspan budget set everything "5 USD / day"`'
        )
    for number, budget in enumerate(budgets):
        if number:
            screen.print()
        screen.print(_title(budget), style="bold red" if budget.is_over else "bold")
        for line in _more(budget.budget):
            screen.print(plain(line), style="dim")
        if budget.balances:
            _print_balances(budget)
        else:
            screen.print(f"no call of any {plain(budget.budget.definition.each)} in this window yet")
    for override in _alone(budgets, overrides):
        until = until_text(override.until, timezone)
        screen.print(f"\n{plain(override.name)}: {format_amount(override.limit, override.unit)}", style="bold")
        screen.print(f"set from the command line, {until}", style="dim")
        screen.print("the limit of a budget without a window: the ledger knows no other of that name", style="dim")


def _alone(budgets: Iterable[Standing], overrides: Iterable[BudgetOverride]) -> list[BudgetOverride]:
    used = {each.budget.definition.name for each in budgets if each.budget.override is not None}
    return [override for override in overrides if override.name not in used]


def _title(standing: Standing) -> str:
    budget = standing.budget
    definition, window = budget.definition, budget.window
    name = plain(definition.name)
    # Budgets from the environment are named by their own limit.
    named = definition.name.startswith("env: ") and budget.limit == definition.limit
    parts = [name if named else f"{name}: {limit_text(budget)}"]
    if definition.unit != "concurrent":
        parts += [definition.mode, _renewal(standing)]
    if budget.seen is not None and budget.source != "configuration" and budget.seen < time.time() - _DAY_S:
        parts.append(f"last used {shown(budget.seen, window.timezone, form='%Y-%m-%d')}")
    return ", ".join(parts)


def _renewal(standing: Standing) -> str:
    window = standing.budget.window
    if window.span:
        return f"looks back {looks_back(window)}"
    if standing.reset_at is None:
        return "never resets"
    return f"resets {shown(standing.reset_at, window.timezone)} {window.timezone}"


def _more(budget: Known) -> Iterator[str]:
    definition, override = budget.definition, budget.override
    if override is not None:
        until = until_text(override.until, budget.window.timezone)
        if budget.source == "command line":
            yield f"set from the command line, {until}"
        else:
            own = format_amount(definition.limit, definition.unit)
            yield f"limit from the command line, {until}; {budget.source} says {own}"
    yield from options(definition)


def _print_balances(standing: Standing) -> None:
    limit, unit = standing.budget.limit, standing.budget.definition.unit
    balances = list(standing.balances.values())
    scopes = [plain(scope) if scope else "all" for scope in standing.balances]
    at_once = unit == "concurrent"
    spent = [] if at_once else [Numbers("spent", "spent", [_cell(balance.spent, unit) for balance in balances])]
    held = ("in flight", "now") if at_once else ("held", "held")
    print_table(
        {"scope": scopes, "used": [bar(balance, limit) for balance in balances]},
        [
            Numbers("", "", [_share(balance, limit) for balance in balances]),
            *spent,
            Numbers(*held, [_cell(balance.held, unit) for balance in balances]),
            Numbers("remaining", "left", [_cell(_remaining(balance, limit), unit) for balance in balances]),
        ],
    )


def _cell(value: int, unit: Unit) -> str:
    return str(value) if unit == "concurrent" else format_amount(value, unit)


def _share(balance: Balance, limit: int) -> str:
    over = "OVER " if balance.spent > limit else ""
    return f"{over}{100 * (balance.spent + balance.held) / limit:.0f} %" if limit else f"{over}-"


def bar(balance: Balance, limit: int) -> str:
    """How much of a limit is spent (#), held by calls in flight (+) and free (.), in blocks where stdout has them."""
    spent, held, free = "█▒░" if "utf" in (sys.stdout.encoding or "").lower() else "#+."
    whole = max(limit, 1)
    to_spent = min(_BAR, round(_BAR * balance.spent / whole))
    to_held = min(_BAR, round(_BAR * (balance.spent + balance.held) / whole))
    return spent * to_spent + held * (to_held - to_spent) + free * (_BAR - to_held)


def _remaining(balance: Balance, limit: int) -> int:
    return max(0, limit - balance.spent - balance.held)
