"""W3C baggage: who a call belongs to, and which budgets it counts in, for the services that take part in it.

Only what the setting `baggage` lists goes out or is taken in: dimensions under their names with `tollspan.` before
them, and budgets as `tollspan.budget`. What comes in was written by somebody else: it is bounded, checked, never raises
and can only restrict. Whatever propagator the application uses encodes, sends and reads the entries.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import orjson
from opentelemetry.baggage import get_all, remove_baggage, set_baggage
from opentelemetry.context import Context

from tollspan.exporter import pipeline
from tollspan.ledger import BudgetDefinition, dump_definition, load_definition

from ._errors import OF_ENTRY

if TYPE_CHECKING:
    from ._entry import BudgetEntry

_log = logging.getLogger("tollspan.budget")

_PREFIX = "tollspan."
_BUDGET = "budget"
_LONGEST_VALUE = 256  # characters
_MOST_BUDGETS = 4
_LONGEST_BUDGETS = 2048  # bytes, percent-encoded: a propagator sends no more than 4096 for an entry
_LONGEST_WAIT_S = 60.0
_RUN_DIGITS = re.compile(r"[0-9a-f]{16}")
# What can only restrict a call.
_TRAVELLING_KEYS = (
    "name",
    "limit",
    "timezone",
    "match",
    "each",
    "mode",
    "on_limit",
    "max_wait_timeout_s",
    "output_bound",
    "cut_stream",
)
_DEFAULTS = orjson.loads(dump_definition(BudgetDefinition(name="-", limit=0, unit="USD", window=None)))

Written = Mapping[str, str | None]
"""What a process has put into baggage, by name; None where it took out what stood there."""


def travelling() -> tuple[str, ...]:
    """The names that are sent to other services and taken from them; none by default."""
    settings = pipeline().settings
    return () if not settings.baggage or settings.disabled else settings.baggage


def received(names: Iterable[str], written: Written, before: Mapping[str, object]) -> Mapping[str, object]:
    """The entries of the current baggage that others wrote, as they are; `before` is what our own ones replaced."""
    baggage = get_all()
    if not (baggage or written):
        return {}
    found: dict[str, object] = {}
    for name in names:
        value = baggage.get(_PREFIX + name)
        if name in written and value == written[name]:
            value = before.get(name)
        if value is not None:
            found[name] = value
    return found


def dimensions_of(entries: Mapping[str, object]) -> dict[str, str]:
    """The dimensions that others sent, without those that are malformed."""
    return {
        name: value
        for name, value in entries.items()
        if name != _BUDGET and isinstance(value, str) and _can_travel(name, value)
    }


def budgets_of(entries: Mapping[str, object]) -> tuple["BudgetEntry", ...]:
    """The budgets that others sent, each with the balance that it has there, without those that are malformed."""
    text = entries.get(_BUDGET)
    return _load(text) if isinstance(text, str) else ()


def to_write(
    names: Iterable[str],
    dimensions: Mapping[str, str],
    budgets: Iterable["BudgetEntry"],
    before: Mapping[str, object],
) -> Written:
    """What has to stand in baggage where these are in force; budgets go on travelling where ours join them."""
    written: dict[str, str | None] = {}
    for name in names:
        value = dimensions.get(name) if name != _BUDGET else _dump(budgets_of(before), budgets)
        if value is not None:
            # Without an identity of its own a call must not travel under the one that stood there before.
            written[name] = value if name == _BUDGET or _can_travel(name, value) else None
    return written


def rewritten(context: Context, old: Written, new: Written, before: Mapping[str, object]) -> Context:
    """The context with `new` in its baggage, and with what others had sent where only `old` stood."""
    for name in (*new, *(name for name in old if name not in new)):
        value = new[name] if name in new else before.get(name)
        key = _PREFIX + name
        context = remove_baggage(key, context) if value is None else set_baggage(key, value, context)
    return context


def _can_travel(name: str, value: str) -> bool:
    if 0 < len(value) <= _LONGEST_VALUE and value.isprintable():
        return True
    _say_once(f"a value of {name!r} is left out of W3C baggage: it needs 1 to {_LONGEST_VALUE} printable characters")
    return False


def _dump(first: Iterable["BudgetEntry"], ours: Iterable["BudgetEntry"]) -> str | None:
    """Budgets as a JSON list, outermost first, so that to enter one never stops another from travelling."""
    own = [entry for entry in ours if entry.open]
    if not own:
        return None
    fit: list[str] = []
    for table in dict.fromkeys(_table(entry) for entry in (*first, *own)):
        if len(fit) < _MOST_BUDGETS and len(quote_plus(_list([*fit, table]))) <= _LONGEST_BUDGETS:
            fit.append(table)
        else:
            _say_once(f"of the budgets in force, {_MOST_BUDGETS} and {_LONGEST_BUDGETS} bytes travel in W3C baggage")
    return _list(fit) if fit else None


def _list(tables: Iterable[str]) -> str:
    return f"[{','.join(tables)}]"


def _table(entry: "BudgetEntry") -> str:
    run = {"run": entry.run.removeprefix(OF_ENTRY)} if entry.run else {}
    return orjson.dumps(_shown(entry.definition) | run).decode()


@lru_cache(maxsize=256)
def _shown(definition: BudgetDefinition) -> dict[str, Any]:
    table = orjson.loads(dump_definition(definition))
    return {key: table[key] for key in _TRAVELLING_KEYS if table[key] != _DEFAULTS[key]}


@lru_cache(maxsize=256)
def _load(text: str) -> tuple["BudgetEntry", ...]:
    """The entries that a text stands for, made once for each text; none of them is ever closed."""
    return tuple(_entries(text))


def _entries(text: str) -> Iterator["BudgetEntry"]:
    from ._entry import BudgetEntry  # noqa: PLC0415 - entries look at the reach, which looks here

    for table in _tables(text):
        try:
            definition, run = _definition(table)
        except Exception as error:  # noqa: BLE001 - what others wrote may be wrong in any way
            _say_once(f"a budget in W3C baggage is left out, because it is malformed ({type(error).__name__})")
            continue
        entry = BudgetEntry(definition)
        entry.run, entry.is_received = run, True
        yield entry


def _tables(text: str) -> list[Any]:
    try:
        tables = orjson.loads(text) if len(text) <= _LONGEST_BUDGETS else None
    except ValueError:
        tables = None
    if not isinstance(tables, list):
        _say_once("the budgets in W3C baggage are left out, because they are malformed")
        return []
    if len(tables) > _MOST_BUDGETS:
        _say_once(f"only the first {_MOST_BUDGETS} budgets in W3C baggage hold")
    return tables[:_MOST_BUDGETS]


def _definition(table: Mapping[str, Any]) -> tuple[BudgetDefinition, str]:
    given = {key: table[key] for key in _TRAVELLING_KEYS if key in table}
    # Others choose neither a model for us, nor what we read and pay to its end.
    if given.get("on_limit") == "fallback":
        given["on_limit"] = "raise"
    if given.get("cut_stream") == "drain":
        given["cut_stream"] = "hold"
    run = table.get("run")
    if run is not None:
        if not _RUN_DIGITS.fullmatch(run):
            raise ValueError("a run has 16 hexadecimal digits")
        given["limit"] = f"{given['limit']} / total"  # the definitions of a ledger all have windows
    definition = load_definition(orjson.dumps(given).decode())
    definition = replace(definition, max_wait_timeout_s=min(definition.max_wait_timeout_s, _LONGEST_WAIT_S))
    return (definition, "") if run is None else (replace(definition, window=None), OF_ENTRY + run)


_said: set[str] = set()


def _say_once(text: str) -> None:
    """Say it the first time only: who sends nonsense may send it with each request."""
    if text not in _said:
        _said.add(text)
        _log.warning("%s", text)
