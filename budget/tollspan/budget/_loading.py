"""`load_budgets(...)`: budgets from a file or a text, for a process that runs."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from tollspan.exporter import pipeline
from tollspan.ledger import (
    SETTINGS,
    BudgetDefinition,
    BudgetSyntaxError,
    ConfigurationError,
    Settings,
    load_settings,
)

BudgetSource = str | Mapping[str, Any] | BudgetDefinition
"""A text like `5 USD / day`, a table as below `[[budget]]`, or a definition."""

_HEADER = re.compile(r"\s*\[\[\s*(?:tool\s*\.\s*tollspan\s*\.\s*)?budget\s*\]\]")
_GOVERNING = ("mode", "timezone")
"""What holds for the budgets that do not say it themselves."""


class LoadedBudgets(tuple[BudgetDefinition, ...]):  # noqa: SLOT001 - a tuple of any length can have no slots
    """The budgets that were loaded, in force until `remove()`, or until the end of a `with` block."""

    def __new__(cls, budgets: Iterable[BudgetDefinition], remove: Callable[[], None]) -> Self:
        """The budgets, and what takes them out of force."""
        loaded = super().__new__(cls, budgets)
        loaded._remove = remove
        return loaded

    _remove: Callable[[], None]

    def remove(self) -> None:
        """Take them out of force again; what they had replaced is back. The second time nothing happens."""
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def load_budgets(source: str | os.PathLike[str] | Iterable[Mapping[str, Any] | BudgetDefinition]) -> LoadedBudgets:
    """Put budgets in force for all calls of this process, beside the configured ones, and give their definitions.

    `source` is the path of a TOML file, a TOML text, or a list of tables, in the shape of `[[budget]]` in tollspan.toml
    (in a pyproject.toml: `[[tool.tollspan.budget]]`). Budgets that do not say their `mode` or `timezone` take that of
    the process's settings, or of the source where only it says one; other settings in the source have no effect.

    A budget takes the place of one in force of the same name, and keeps its balance. Calls that stand in line already
    wait for what they asked for. Other processes load for themselves. To load a changed file anew, load it, and then
    `remove()` what was loaded before.

    Raises ConfigurationError where the source cannot be read, and BudgetSyntaxError where a budget is wrong; then
    nothing is in force of it.
    """
    line = pipeline()
    budgets = _read(source, line.settings)
    return LoadedBudgets(budgets, line.add_budgets(budgets))


def default_settings(**given: Any) -> Settings:
    """The settings in no environment and without a file; the ledger in memory. Raises ConfigurationError, TypeError."""
    return load_settings(environ={"TOLLSPAN_CONFIG": os.devnull}, ledger="sqlite:///:memory:", **given)


def definitions_of(sources: BudgetSource | Iterable[BudgetSource], **governing: Any) -> tuple[BudgetDefinition, ...]:
    """The definitions that these stand for, under a mode and a time zone. Raises BudgetSyntaxError."""
    items = [sources] if isinstance(sources, str | Mapping | BudgetDefinition) else [*sources]
    tables = [item for item in items if not isinstance(item, str | BudgetDefinition)]
    budgets = [*_defined(tables, governing)]
    for item in items:
        if isinstance(item, BudgetDefinition):
            budgets.append(item)
        elif isinstance(item, str):
            budgets += _defined(item, governing)
    _check(budgets)
    return tuple(budgets)


def _defined(raw: Any, governing: Mapping[str, Any]) -> tuple[BudgetDefinition, ...]:
    try:
        return default_settings(budget=raw, **governing).budgets
    except ConfigurationError as error:
        if isinstance(error.__cause__, BudgetSyntaxError):
            raise error.__cause__ from None
        raise


def _check(budgets: list[BudgetDefinition]) -> None:
    named: dict[str, BudgetDefinition] = {}
    for budget in budgets:
        if named.setdefault(budget.name, budget) is not budget:
            raise BudgetSyntaxError(f"budget {budget.name!r} stands there twice; remove one, or give it another name")
        if budget.window is None:
            raise BudgetSyntaxError(f"budget {budget.name!r} has no window; say / day, / month or / total")


def _read(source: Any, settings: Settings) -> tuple[BudgetDefinition, ...]:
    if not isinstance(source, str | os.PathLike):
        governing = {name: getattr(settings, name) for name in _GOVERNING}
        return _located("the list of budgets", "", lambda: definitions_of(source, **governing))
    where, text = ("the TOML text", str(source)) if _is_text(source) else _file(Path(source).expanduser())
    table = _table(where, text)
    governing = {name: _governing(name, table, settings, where) for name in _GOVERNING}
    budgets = _parsed_setting("budget", table, where)
    return _located(where, text, lambda: definitions_of(budgets, **governing))


def _is_text(source: str | os.PathLike[str]) -> bool:
    if not isinstance(source, str) or ("\n" not in source and source.endswith(".toml")):
        return False
    return any(sign in source for sign in "\n[=")


def _file(path: Path) -> tuple[str, str]:
    try:
        return str(path), path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}; write the path of a TOML file, a TOML text, or a list of tables"
        ) from error


def _table(where: str, text: str) -> Mapping[str, Any]:
    """The table that has the budgets: the whole document, or that of ours in one for many tools."""
    import tomllib  # noqa: PLC0415 - wanted only where there is something to load

    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError) as error:
        raise ConfigurationError(f"{where} is no TOML: {error}") from error
    tool = document.get("tool")
    table = tool.get("tollspan") if isinstance(tool, Mapping) else document
    if not isinstance(table, Mapping) or "budget" not in table:
        header = "[[budget]]" if tool is None else "[[tool.tollspan.budget]]"
        raise ConfigurationError(f"{where} has no budgets; write {header} and its keys below")
    names = [row.name for row in SETTINGS]
    if unknown := next((key for key in table if key not in names), None):
        raise ConfigurationError(f"{where}: {unknown!r} is no setting; budgets stand in [[budget]] tables")
    return table


def _governing(name: str, table: Mapping[str, Any], settings: Settings, where: str) -> Any:
    """A setting for all budgets of the source: flag and environment go before it, and it goes before other files."""
    decided = settings.source[name] == "flag" or settings.source[name].startswith("environment")
    if name not in table or decided:
        return getattr(settings, name)
    return _parsed_setting(name, table, where)


def _parsed_setting(name: str, table: Mapping[str, Any], where: str) -> Any:
    parse = next(row.parse for row in SETTINGS if row.name == name)
    try:
        return parse(table[name])
    except ValueError as error:
        raise ConfigurationError(f"{where}, {name}: {error}") from error


def _located(where: str, text: str, define: Callable[[], tuple[BudgetDefinition, ...]]) -> tuple[BudgetDefinition, ...]:
    """What `define` gives; where a budget is wrong, the error says where it stands."""
    try:
        return define()
    except BudgetSyntaxError as error:
        lines = [number for number, line in enumerate(text.splitlines(), start=1) if _HEADER.match(line)]
        nth = error.entry or 0
        place = f"{where}, line {lines[nth - 1]}" if 0 < nth <= len(lines) else where
        wrong = BudgetSyntaxError(f"{place}: {error}")
        wrong.entry = error.entry
        raise wrong from None
