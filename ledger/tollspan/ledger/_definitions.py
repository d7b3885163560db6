"""What a budget is, which calls it counts, and the texts and tables that budgets are written in."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from math import isfinite
from typing import Any, Literal, get_args

from ._money import to_nano, to_usd
from ._units import Unit, account_of, unit_of
from ._windows import WINDOW_KINDS, Window, did_you_mean

Mode = Literal["strict", "best_effort"]
OnLimit = Literal["raise", "wait", "warn", "fallback"]
CutStream = Literal["hold", "estimate", "drain"]

MODES: tuple[Mode, ...] = get_args(Mode)
DIMENSIONS = ("profile", "user", "team", "session", "run", "model", "provider", "operation", "service")
MAX_LIMIT = 2**63 - 1  # balances are signed 64-bit columns

_CHOICES: dict[str, tuple[str, ...]] = {
    "unit": get_args(Unit),
    "mode": MODES,
    "on_limit": get_args(OnLimit),
    "cut_stream": get_args(CutStream),
}
_AT_ONCE = Window("hour", rolling=True)
"""How long a call counts as one of those at once, if nobody hears of its end."""
LONGEST_WAIT_S = 1_000_000_000
"""The longest wait that may be asked for, in seconds: threads cannot wait much longer."""
_OUTPUT_BOUNDS = ("clamp", "max", "learned")
_UNITS: dict[str, Unit] = {
    "usd": "USD",
    "token": "tokens",
    "tokens": "tokens",
    "request": "requests",
    "requests": "requests",
    "concurrent": "concurrent",
}
_ENTRY_KEYS = (
    "name",
    "limit",
    "match",
    "each",
    "mode",
    "on_limit",
    "max_wait_timeout_s",
    "timezone",
    "output_bound",
    "cut_stream",
    "fallback_model",
    "warn_at",
)
_LIMIT = re.compile(
    r"(?P<dollar>\$)?\s*(?P<amount>[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)"
    r"\s*(?P<unit>(?!per\b)[A-Za-z]+)?\s*(?:(?:/|\bper\b)\s*(?P<rolling>(?i:rolling)\b\s*)?(?P<window>\S+))?"
)


class BudgetSyntaxError(ValueError):
    """A budget is written wrongly; the text says where, what is wrong, and how to write it.

    `entry` is the position of the table that is wrong, counted from 1, where the budget stands in a list of tables.
    """

    entry: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetDefinition:
    """One limit: how much, per which window, for which calls, and what happens to a call that does not fit.

    `limit` is in nano-USD, tokens, requests or calls at once, as `unit` says; 0 refuses every call. `window` None means
    the block that declares the budget. `match` maps dimensions (`DIMENSIONS`, or `tag:<name>`) to globs of
    `fnmatch.fnmatchcase`, all of which must match; it is given as a mapping and kept as a sorted tuple of pairs.
    `each` names the dimension of which every value has a balance of its own. `max_wait_timeout_s` is in seconds.
    `output_bound` is `clamp`, `max`, `learned` or a number of tokens. `fallback_model` is asked instead where
    `on_limit` is `fallback`. `warn_at` are fractions of the limit, in ascending order. Raises BudgetSyntaxError for
    values that make no sense.
    """

    name: str
    limit: int
    unit: Unit
    window: Window | None
    match: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    each: str | None = None
    mode: Mode = "strict"
    on_limit: OnLimit = "raise"
    max_wait_timeout_s: float = 60.0
    output_bound: str | int = "clamp"
    cut_stream: CutStream = "hold"
    fallback_model: str | None = None
    warn_at: tuple[float, ...] = ()
    _patterns: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            _check(self)
            match = _sorted_match(self.match)
        except BudgetSyntaxError as error:
            raise BudgetSyntaxError(f"budget {self.name!r}, {error}") from None
        object.__setattr__(self, "match", match)
        object.__setattr__(self, "max_wait_timeout_s", float(self.max_wait_timeout_s))
        object.__setattr__(self, "warn_at", tuple(sorted({float(share) for share in self.warn_at})))
        object.__setattr__(self, "_patterns", tuple((dimension, _compiled(glob)) for dimension, glob in match))

    @property
    def account(self) -> str:
        """The name under which its balances are kept."""
        return account_of(self.name, self.unit)

    @property
    def is_strict(self) -> bool:
        """Whether its calls are held on disk before they are sent; only what is held can be counted at once."""
        return self.mode == "strict" or self.unit == "concurrent"

    def scope(self, dimensions: Mapping[str, str]) -> str | None:
        """Tell the balance that a call with these dimensions counts in: `""`, or like `user=ada`; None for no balance.

        A call that lacks a dimension of `match`, or the one of `each`, does not count.
        """
        for dimension, pattern in self._patterns:
            value = dimensions.get(dimension)
            if value is None or pattern.match(value) is None:
                return None
        if self.each is None:
            return ""
        value = dimensions.get(self.each)
        return None if value is None else f"{self.each}={value}"


def parse_limit(text: str, timezone: str = "UTC") -> tuple[int, Unit, Window | None]:
    """Read amount, unit and window: `5 USD / day`, `$5/rolling week`, `60 requests per minute`, `8 concurrent`.

    The amount is exact, in nano-USD, tokens, requests or calls at once; the window is None where the text names none.
    Raises BudgetSyntaxError.
    """
    if not isinstance(text, str):
        raise BudgetSyntaxError(f"{text!r} is not a text; write a limit like '5 USD / day'")
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        raise BudgetSyntaxError(f"{text.strip()!r} {_malformed(text)}; write it like 5 USD / day or 9000 tokens / hour")
    unit = _unit(found)
    return _amount(found["amount"], unit), unit, _window(found, unit, timezone)


def format_limit(limit: int, unit: Unit, window: Window | None) -> str:
    """Write the normal text of a limit, which `parse_limit` reads back: `5 USD / day`."""
    amount = f"{to_usd(limit).normalize():f}" if unit == "USD" else str(limit)
    return f"{amount} {unit}" if window is None or unit == "concurrent" else f"{amount} {unit} / {window}"


def parse_budgets(text: str, *, mode: Mode, timezone: str = "UTC") -> tuple[BudgetDefinition, ...]:
    """Read the budgets of a text such as `5 USD / day; user=*: 1 USD / hour; model=gpt-4*,user=ada: 2 USD / day`.

    `user=*` keeps one balance per user. A name is `env: ` and the normal form of the text, so that every process with
    the same text shares the balance. Raises BudgetSyntaxError.
    """
    pieces = [piece for piece in map(str.strip, text.split(";")) if piece]
    return _unique(_from_piece(piece, mode, timezone) for piece in pieces)


def budgets_from_table(
    entries: list[Mapping[str, Any]], *, where: str, mode: Mode, timezone: str
) -> tuple[BudgetDefinition, ...]:
    """Read the budgets of the `[[budget]]` tables of a TOML file; `where` names it in errors, unless empty.

    `mode` and `timezone` hold where a table does not say otherwise. Raises BudgetSyntaxError, which knows the `entry`.
    """
    budgets: list[BudgetDefinition] = []
    for number, entry in enumerate(entries, start=1):
        try:
            budgets = [*_unique([*budgets, _from_entry(entry, number, mode, timezone)])]
        except ValueError as error:
            wrong = BudgetSyntaxError(f"{where}: {error}" if where else str(error))
            wrong.entry = number
            raise wrong from None
    return tuple(budgets)


def _from_piece(piece: str, mode: Mode, timezone: str) -> BudgetDefinition:
    # The last colon, because `tag:team=x` and the names of models have colons too.
    selector, _, limit_text = piece.rpartition(":")
    if "=" in limit_text:
        raise BudgetSyntaxError(f"{piece!r} has no colon before its limit; write it like user=ada: 5 USD / day")
    limit, unit, window = _with_window(limit_text, timezone)
    match = _selector(selector) if selector.strip() else {}
    normal = ",".join(f"{dimension}={glob}" for dimension, glob in sorted(match.items()))
    every = [dimension for dimension, glob in match.items() if glob == "*"]
    if len(every) > 1:
        raise BudgetSyntaxError(f"{piece!r} has more than one '=*'; write it like user=*,model=gpt-4*: 1 USD / hour")
    return BudgetDefinition(
        name=" ".join(filter(None, ("env:", normal, format_limit(limit, unit, window)))),
        limit=limit,
        unit=unit,
        window=window,
        match={dimension: glob for dimension, glob in match.items() if glob != "*"},
        each=every[0] if every else None,
        mode=mode,
    )


def _selector(text: str) -> dict[str, str]:
    match: dict[str, str] = {}
    for part in text.split(","):
        dimension, _, glob = map(str.strip, part.partition("="))
        if not glob:
            raise BudgetSyntaxError(f"{part.strip()!r} matches nothing; write it like user=ada or model=gpt-4*")
        if dimension in match:
            raise BudgetSyntaxError(
                f"{text.strip()!r} names {dimension} twice; write two budgets with a ; between them"
            )
        _check_dimension(dimension)
        match[dimension] = glob
    return match


def _from_entry(entry: Mapping[str, Any], number: int, mode: Mode, timezone: str) -> BudgetDefinition:
    if not isinstance(entry, Mapping):
        raise BudgetSyntaxError(f"budget number {number} is not a table; write [[budget]] and its keys below")
    name = entry.get("name")
    if not name:
        raise BudgetSyntaxError(f'budget number {number} has no name; write name = "summaries"')
    if unknown := next((key for key in entry if key not in _ENTRY_KEYS), None):
        near = did_you_mean(unknown, _ENTRY_KEYS)
        raise BudgetSyntaxError(f"budget {name!r} has no key {unknown!r}{near}; its keys are {', '.join(_ENTRY_KEYS)}")
    try:
        limit, unit, window = _with_window(entry.get("limit", ""), entry.get("timezone", timezone))
    except ValueError as error:
        raise BudgetSyntaxError(f"budget {name!r}, limit: {error}") from None
    options = {key: value for key, value in entry.items() if key not in ("name", "limit", "timezone")}
    return BudgetDefinition(name=name, limit=limit, unit=unit, window=window, **{"mode": mode, **options})


def _unique(budgets: Iterable[BudgetDefinition]) -> tuple[BudgetDefinition, ...]:
    named: dict[str, BudgetDefinition] = {}
    for budget in budgets:
        if named.setdefault(budget.name, budget) is not budget:
            raise BudgetSyntaxError(f"budget {budget.name!r} stands there twice; remove one, or give it another name")
    return tuple(named.values())


def _with_window(text: str, timezone: str) -> tuple[int, Unit, Window]:
    limit, unit, window = parse_limit(text, timezone)
    if window is None:
        raise BudgetSyntaxError(f"{text.strip()!r} has no window; say / day, / month or / total")
    return limit, unit, window


def _malformed(text: str) -> str:
    if text.strip().lstrip("$ ").startswith("-"):
        return "is negative, and a limit is 0 or more"
    return "has a comma, where an amount has a point or nothing" if "," in text else "is not a limit"


def _unit(found: re.Match[str]) -> Unit:
    word: str = found["unit"] or ("USD" if found["dollar"] else "")
    unit = _UNITS.get(word.lower())
    if unit is None or (found["dollar"] and unit != "USD"):
        wrong = f"has the unit {word!r}{did_you_mean(word, _CHOICES['unit'])}" if word else "has no unit"
        raise BudgetSyntaxError(f"{found[0]!r} {wrong}; write USD, tokens, requests or concurrent, like 5 USD / day")
    return unit


def _amount(text: str, unit: Unit) -> int:
    exact = Decimal(text)
    limit = to_nano(exact) if unit == "USD" else int(exact)
    if limit > MAX_LIMIT:
        raise BudgetSyntaxError(f"{text} {unit} is more than a ledger can count; write at most 9000000000 USD")
    if (to_usd(limit) if unit == "USD" else limit) != exact:
        smallest = "0.000000001 USD" if unit == "USD" else f"1 {unit}"
        raise BudgetSyntaxError(f"{text} {unit} is not a multiple of {smallest}; write it like 5 USD or 1000 tokens")
    return limit


def _window(found: re.Match[str], unit: Unit, timezone: str) -> Window | None:
    word: str | None = found["window"]
    if unit == "concurrent":
        if word is not None:
            raise BudgetSyntaxError(
                f"{found[0]!r} has a window, and calls at once have none; write it like 8 concurrent"
            )
        return replace(_AT_ONCE, timezone=timezone)
    if word is None:
        return None
    kind = next((kind for kind in WINDOW_KINDS if kind == word.lower()), None)
    if kind is None:
        near = did_you_mean(word, WINDOW_KINDS)
        raise BudgetSyntaxError(
            f"{found[0]!r} has the window {word!r}{near}; write one of {', '.join(WINDOW_KINDS)}, like 5 USD / day, or "
            "one that looks back, like 5 USD / rolling day"
        )
    try:
        return Window(kind, timezone, rolling=bool(found["rolling"]))
    except ValueError as error:
        raise BudgetSyntaxError(str(error)) from None


def _check(budget: BudgetDefinition) -> None:
    if not isinstance(budget.name, str) or not budget.name.strip():
        raise BudgetSyntaxError('name: a budget needs one; write name = "summaries"')
    if unit_of(budget.name) != "USD":
        raise BudgetSyntaxError("name: it ends like an account of the ledger; leave out the brackets at its end")
    for key, choices in _CHOICES.items():
        if (value := getattr(budget, key)) not in choices:
            near = did_you_mean(str(value), choices)
            raise BudgetSyntaxError(f"{key}: {value!r} is none of {', '.join(choices)}{near}")
    if not _is_whole(budget.limit) or not 0 <= budget.limit <= MAX_LIMIT:
        raise BudgetSyntaxError(f"limit: {budget.limit!r} is not a whole number from 0 to {MAX_LIMIT}")
    if budget.unit == "concurrent" and (budget.window is None or budget.window.span != _AT_ONCE.span):
        raise BudgetSyntaxError("limit: calls at once have no window; write it like 8 concurrent")
    if budget.each is not None:
        _check_dimension(budget.each)
    _check_way_out(budget)
    _check_shares(budget.warn_at)
    if budget.warn_at and budget.unit == "concurrent":
        raise BudgetSyntaxError("warn_at: calls at once are never spent, and nothing would be told; leave it out")


def _check_way_out(budget: BudgetDefinition) -> None:
    seconds, bound = budget.max_wait_timeout_s, budget.output_bound
    if not _is_number(seconds) or not 0 <= seconds <= LONGEST_WAIT_S:
        raise BudgetSyntaxError(f"max_wait_timeout_s: {seconds!r} is not a number of seconds; write it like 60")
    if bound not in _OUTPUT_BOUNDS and not (isinstance(bound, int) and _is_whole(bound) and bound > 0):
        choices = ", ".join(_OUTPUT_BOUNDS)
        raise BudgetSyntaxError(f"output_bound: {bound!r} is none of {choices}, nor a number of tokens like 4096")
    model = budget.fallback_model
    if model is not None and (not isinstance(model, str) or not model.strip()):
        raise BudgetSyntaxError(f"fallback_model: {model!r} is no model; write it like gpt-5-mini")
    if (budget.on_limit == "fallback") != (model is not None):
        raise BudgetSyntaxError('fallback_model: it belongs to on_limit="fallback"; write both of them, or neither')


def _check_shares(shares: Any) -> None:
    if not isinstance(shares, list | tuple) or not all(_is_number(share) and share > 0 for share in shares):
        raise BudgetSyntaxError(f"warn_at: {shares!r} is no list of fractions of the limit; write it like [0.5, 0.8]")


def _check_dimension(dimension: str) -> None:
    if dimension in DIMENSIONS or (isinstance(dimension, str) and dimension.startswith("tag:") and dimension != "tag:"):
        return
    near = did_you_mean(str(dimension), DIMENSIONS)
    known = ", ".join(DIMENSIONS)
    raise BudgetSyntaxError(f"{dimension!r} is no dimension of a call{near}; write one of {known}, or tag:<name>")


def _sorted_match(match: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(match, Mapping | tuple):
        raise BudgetSyntaxError(f"match: {match!r} is not a mapping; write it like {{'model': 'gpt-4*'}}")
    pairs = dict(match)
    for dimension, glob in pairs.items():
        _check_dimension(dimension)
        if not isinstance(glob, str) or not glob:
            raise BudgetSyntaxError(f"match: {dimension} has {glob!r}, which is no glob; write it like 'gpt-4*'")
    return tuple(sorted(pairs.items()))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float | Decimal) and isfinite(value))


@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
