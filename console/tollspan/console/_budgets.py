"""`tollspan budget status`: every budget in its current window."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tollspan.ledger import Balance, BudgetDefinition, Ledger, Settings, Unit, Window, format_usd, to_usd

from ._ledgers import existing_ledger, settings_for
from ._render import CURRENCY, Numbers, console, exact, plain, print_json, print_table
from ._when import iso, shown

_BAR = 12
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget and its balances in the current window, by scope. `seen` is None for one that is configured here."""

    definition: BudgetDefinition
    window: Window
    seen: float | None
    reset_at: float | None
    balances: dict[str, Balance]

    @property
    def is_over(self) -> bool:
        """Whether any balance has more spent than the limit."""
        return any(balance.spent > self.definition.limit for balance in self.balances.values())


def show(url: str | None, *, as_json: bool) -> int:
    """Print the budgets; the exit status is 1 when one is over its limit."""
    settings, now = settings_for(url), time.time()
    with existing_ledger(settings) as ledger:
        budgets = standings(ledger, settings, now)
    if as_json:
        print_json({"currency": CURRENCY, "budgets": [_as_dict(budget) for budget in budgets]})
    else:
        _print_text(console(), budgets)
    return int(any(budget.is_over for budget in budgets))


def standings(ledger: Ledger, settings: Settings, now: float) -> list[Standing]:
    """The configured budgets and those that other code used with this ledger, as they stand at an instant."""
    seen: dict[str, float | None] = {known.definition.name: known.seen for known in ledger.known_budgets()}
    definitions = {known.definition.name: known.definition for known in ledger.known_budgets()}
    for configured in settings.budgets:
        definitions[configured.name], seen[configured.name] = configured, None
    return [
        _standing(ledger, definition, definition.window, seen[name], now)
        for name, definition in definitions.items()
        if definition.window is not None
    ]


def _standing(ledger: Ledger, definition: BudgetDefinition, window: Window, seen: float | None, now: float) -> Standing:
    balances = ledger.balances(definition.name, window.start(now))
    if definition.each is None:
        balances = {"": balances.get("", Balance())}
    by_use = sorted(balances.items(), key=lambda item: (-item[1].spent - item[1].held, item[0]))
    return Standing(definition, window, seen, window.end(now), dict(by_use))


def _as_dict(budget: Standing) -> dict[str, Any]:
    definition, window = budget.definition, budget.window
    return {
        "name": definition.name,
        "limit": _exact(definition.limit, definition.unit),
        "unit": definition.unit,
        "window": window.kind,
        "timezone": window.timezone,
        "resets_at": None if budget.reset_at is None else iso(budget.reset_at, window.timezone),
        "mode": definition.mode,
        "on_limit": definition.on_limit,
        "match": dict(definition.match),
        "each": definition.each,
        "configured": budget.seen is None,
        "last_seen": None if budget.seen is None else iso(budget.seen, window.timezone),
        "balances": [_balance(scope, balance, definition) for scope, balance in budget.balances.items()],
    }


def _balance(scope: str, balance: Balance, definition: BudgetDefinition) -> dict[str, Any]:
    unit = definition.unit
    return {
        "scope": scope,
        "spent": _exact(balance.spent, unit),
        "estimated": _exact(balance.estimated, unit),
        "held": _exact(balance.held, unit),
        "remaining": _exact(_remaining(balance, definition), unit),
        "over_limit": balance.spent > definition.limit,
    }


def _print_text(screen: Console, budgets: Sequence[Standing]) -> None:
    if not budgets:
        screen.print(
            'no budgets yet: set TOLLSPAN_BUDGET="5 USD / day", or use budget("5 USD / day", name=...) in code'
        )
    for number, budget in enumerate(budgets):
        if number:
            screen.print()
        screen.print(_title(budget), style="bold red" if budget.is_over else "bold")
        if budget.balances:
            _print_balances(budget)
        else:
            screen.print(f"no call of any {plain(budget.definition.each)} in this window yet")


def _title(budget: Standing) -> str:
    definition, window = budget.definition, budget.window
    zone = window.timezone
    reset = "never resets" if budget.reset_at is None else f"resets {shown(budget.reset_at, zone)} {zone}"
    limit = f"{_amount(definition.limit, definition.unit)} / {window.kind}"
    # Budgets from the environment are named by their own limit.
    named = definition.name.startswith("env: ")
    parts = [plain(definition.name) if named else f"{plain(definition.name)}: {limit}", definition.mode, reset]
    if budget.seen is not None and budget.seen < time.time() - _DAY_S:
        parts.append(f"last used {shown(budget.seen, zone, form='%Y-%m-%d')}")
    return ", ".join(parts)


def _print_balances(budget: Standing) -> None:
    limit, unit = budget.definition.limit, budget.definition.unit
    balances = list(budget.balances.values())
    scopes = [plain(scope) if scope else "all" for scope in budget.balances]
    print_table(
        {"scope": scopes, "used": [bar(balance, limit) for balance in balances]},
        [
            Numbers("", "", [_share(balance, limit) for balance in balances]),
            Numbers("spent", "spent", [_amount(balance.spent, unit) for balance in balances]),
            Numbers("held", "held", [_amount(balance.held, unit) for balance in balances]),
            Numbers("remaining", "left", [_amount(_remaining(b, budget.definition), unit) for b in balances]),
        ],
    )


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


def _remaining(balance: Balance, definition: BudgetDefinition) -> int:
    return max(0, definition.limit - balance.spent - balance.held)


def _amount(value: int, unit: Unit) -> str:
    return format_usd(value) if unit == "USD" else f"{value} {unit}"


def _exact(value: int, unit: Unit) -> str:
    return exact(to_usd(value)) or "" if unit == "USD" else str(value)
