"""What the doctor says of budgets: definitions that disagree, limits set over them, bounds that were passed."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tollspan.ledger import (
    BudgetDefinition,
    BudgetSyntaxError,
    KnownBudget,
    Ledger,
    Settings,
    format_amount,
    format_limit,
)

from ._findings import Finding
from ._render import money, plain
from ._today import number
from ._when import shown

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_MANY = 0.02
_TOPIC = "budgets"
_COUNTS = ("unit", "window", "match", "each")
_SAYS = ("limit", *_COUNTS)  # not the mode, which often differs where people type
_ALL = (*_SAYS, "mode", "on_limit", "fallback_model", "max_wait_timeout_s", "output_bound", "cut_stream", "warn_at")


def budget_findings(ledger: Ledger, settings: Settings) -> Iterator[Finding]:
    """Look at all budgets of a ledger."""
    try:
        known = {budget.definition.name: budget for budget in ledger.known_budgets()}
        rivals = ledger.rival_budgets(time.time() - _DAY_S)
        overrides = {override.name: override for override in ledger.overrides}
    except BudgetSyntaxError as error:
        yield Finding(_TOPIC, "problem", str(error), "upgrade tollspan: a newer one may have written it")
        return
    own = {name: each.definition for name, each in overrides.items() if each.definition is not None}
    defined = own | {name: budget.definition for name, budget in known.items()}
    defined |= {budget.name: budget for budget in settings.budgets}
    yield Finding(_TOPIC, "ok", f"{len(defined)} known")
    yield from _rivals([rival for rival in rivals if rival.definition.name not in own])
    yield from _disagreeing(known, own, settings)
    yield from _overrides(ledger, defined)
    if any(budget.output_bound == "learned" for budget in defined.values()):
        yield from _learned(ledger)


def _rivals(rivals: Sequence[KnownBudget]) -> Iterator[Finding]:
    """One name with two definitions: each process goes by its own, so they share a balance and not its limit."""
    named: dict[str, list[BudgetDefinition]] = defaultdict(list)
    for rival in rivals:
        named[rival.definition.name].append(rival.definition)
    for name, budgets in named.items():
        what = _differences(_ALL, *budgets)
        limits = dict.fromkeys(format_limit(budget.limit, budget.unit, budget.window) for budget in budgets)
        text = (
            f"processes began to use budget {plain(name)!r} with {len(budgets)} definitions in the last 24 hours: "
            f"another {what} ({', '.join(limits)})"
        )
        advice = "where code was changed, see that all processes have it; else give each budget a name of its own"
        yield Finding(_TOPIC, "note", text, advice)


def _disagreeing(
    known: Mapping[str, KnownBudget], own: Mapping[str, BudgetDefinition], settings: Settings
) -> Iterator[Finding]:
    """What is configured here, or set from the command line, beside what was last used."""
    advice = "give each budget a name of its own, or the same definition everywhere"
    here = {budget.name: budget for budget in settings.budgets}
    for name, budget in known.items():
        for other, where, fields in (
            (here.get(name), "configured here", _SAYS),
            (own.get(name), "set from the command line", _COUNTS),  # its limit is in force over any other
        ):
            if other is not None and (what := _differences(fields, budget.definition, other)):
                text = f"budget {plain(name)!r} is {where} with another {what} than was last used"
                yield Finding(_TOPIC, "note", text, advice)


def _differences(fields: Sequence[str], first: BudgetDefinition, *others: BudgetDefinition) -> str:
    return " and ".join(name for name in fields if any(getattr(first, name) != getattr(o, name) for o in others))


def _overrides(ledger: Ledger, defined: Mapping[str, BudgetDefinition]) -> Iterator[Finding]:
    now = time.time()
    for override in ledger.overrides:
        name, text = plain(override.name), format_amount(override.limit, override.unit)
        advice = f"tollspan budget remove '{name}'"
        budget = defined.get(override.name)
        if not override.holds(now):
            ended = shown(override.until or now, "UTC")
            yield Finding(_TOPIC, "note", f"{text} set for budget {name!r} ended {ended} UTC", advice)
        elif budget is not None and budget.unit != override.unit:
            said = f"{text} set for budget {name!r}, which counts {budget.unit}: it changes nothing"
            yield Finding(_TOPIC, "note", said, advice)


def _learned(ledger: Ledger) -> Iterator[Finding]:
    bounds = ledger.learned_outputs()
    for bound in bounds:
        name = f"{plain(bound.model)} {plain(bound.operation)}"
        above = f"{100 * bound.miss_rate:.1f} % above"
        text = f"learned: {name}: {number(bound.tokens, 'token')}, from {number(bound.answers, 'answer')}, {above}"
        if bound.miss_rate > _MANY:
            yield Finding(_TOPIC, "note", text, 'output_bound = "clamp" lets no answer pass')
        else:
            yield Finding(_TOPIC, "ok", text)
    if not bounds:
        yield Finding(_TOPIC, "ok", "learned: no model has given 30 answers lately; until then calls are clamped")


def underholds(ledger: Ledger) -> Iterator[Finding]:
    """Calls that cost more than was held: by so much a strict limit may have been passed."""
    found = ledger.underholds(time.time() - _WEEK_S)
    for model in found:
        name = f"{plain(model.provider)}/{plain(model.model)}"
        text = (
            f"{number(model.calls, 'call')} of {name} in the last 7 days cost {money(model.excess_usd)} more than held"
        )
        advice = 'output_bound = "learned" and TOLLSPAN_HOLD_USD may hold too little; if neither is used, report it'
        yield Finding("holds", "note", text, advice)
    if not found:
        yield Finding("holds", "ok", "no call of the last 7 days cost more than was held for it")
