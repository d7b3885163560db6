"""The settings: one table that feeds flags, the environment, TOML files and the reference in the documentation.

A flag wins over the environment, which wins over a file, which wins over the default. The file is the one that
TOLLSPAN_CONFIG names, else the nearest `tollspan.toml`, or `pyproject.toml` with a table `[tool.tollspan]`, from the
working directory upwards. An empty variable counts as unset, as in OpenTelemetry's specification of the environment.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ._definitions import (
    BudgetDefinition,
    BudgetSyntaxError,
    Mode,
    budgets_from_table,
    parse_budgets,
)
from ._setting_values import (
    MEMORY,
    SQLITE,
    as_budget,
    as_dimensions,
    as_ledger,
    as_mode,
    as_pairs,
    as_path,
    as_providers,
    as_seconds,
    as_switch,
    as_text,
    as_url,
    as_usd,
    as_whole,
    at_home,
)
from ._windows import Window, did_you_mean

CONFIG_VARIABLE = "TOLLSPAN_CONFIG"

_PREFIX = "TOLLSPAN_"
_DEFAULT_LEDGER = "sqlite:///{data}/tollspan/ledger.db"
_HEADER = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]")


class ConfigurationError(ValueError):
    """A setting is wrong; the text says where it stands, what is wrong, and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table: `name` is the key in TOML too, `parse` raises ValueError, `doc` is one line of Markdown.

    The value of one that `is_secret` is shown to nobody.
    """

    name: str
    env: str
    default: Any
    parse: Callable[[Any], Any]
    doc: str
    is_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force, each as SETTINGS describes it.

    `source` says where each setting came from (`default`, `flag`, `environment TOLLSPAN_MODE`, or the path of a file),
    and `problems` what was found wrong and passed over. `hold_usd` is in USD, `output_floor` in tokens.
    """

    ledger: str
    mode: Mode
    budgets: tuple[BudgetDefinition, ...]
    prices: Path | None
    profile: str | None
    tags: Mapping[str, str]
    disabled: bool
    include_usage: bool
    cost_attributes: bool
    providers: Mapping[str, str]
    hold_usd: Decimal | None
    output_floor: int
    count_tokens: bool
    timezone: str
    busy_timeout_ms: int
    journal: bool
    queue_limit: int
    keep_days: int | None
    flush_on_sigterm: bool
    record_unsampled: bool
    wait_on_rate_limit: bool
    max_wait_timeout_s: float
    retry_budget_s: float
    drain_cut_streams: bool
    refuse_uncovered: bool
    baggage: tuple[str, ...]
    webhook: str | None = field(repr=False)
    source: Mapping[str, str]
    problems: tuple[str, ...]


def load_settings(
    *, environ: Mapping[str, str] | None = None, directory: Path | None = None, strict: bool = True, **overrides: Any
) -> Settings:
    """Load the settings for a process with this environment in this directory; its own ones by default.

    `overrides` are flags by the name of the setting; None is a flag that was not given. With `strict` the first problem
    raises ConfigurationError. Without, each problem is listed in `problems`, the setting concerned has its default, and
    nothing is raised, so that a typing error never stops an application.
    """
    environ = os.environ if environ is None else environ
    reading = _Reading(environ=environ, flags=_flags(overrides), strict=strict)
    reading.find_file(directory)
    reading.check_names()
    values = {setting.name: reading.value(setting) for setting in SETTINGS}
    values["budgets"] = reading.budgets(values.pop("budget"), values["mode"], values["timezone"])
    return Settings(**values, source=reading.source, problems=tuple(reading.problems))


def settings_reference() -> str:
    """Render SETTINGS as a Markdown table for the documentation."""
    lines = [
        "| `tollspan.toml` | environment | default | meaning |",
        "|---|---|---|---|",
        f"| | `{CONFIG_VARIABLE}` | the nearest file | The file that the settings are read from. |",
        *(f"| `{row.name}` | `{row.env}` | {_shown(row.default)} | {row.doc} |" for row in SETTINGS),
    ]
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if default in (None, (), {}):
        return "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text.replace('{data}', '<data directory>')}`"


def _row(name: str, default: Any, parse: Callable[[Any], Any], doc: str, *, is_secret: bool = False) -> Setting:
    return Setting(name=name, env=_PREFIX + name.upper(), default=default, parse=parse, doc=doc, is_secret=is_secret)


SETTINGS: tuple[Setting, ...] = (
    _row(
        "ledger",
        _DEFAULT_LEDGER,
        as_ledger,
        "Where the ledger is: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:`, or a path that "
        "ends in `.db`. A relative path in a file is relative to that file. The data directory is `$XDG_DATA_HOME` or "
        "`~/.local/share`, `~/Library/Application Support` on macOS, `%LOCALAPPDATA%` on Windows.",
    ),
    _row(
        "mode",
        "best_effort",
        as_mode,
        "`strict` or `best_effort`, for the budgets below that do not say it themselves.",
    ),
    _row("budget", (), as_budget, "A text like `5 USD / day; user=*: 1 USD / hour`, or `[[budget]]` tables in a file."),
    _row(
        "prices", None, as_path, "A file of prices that go before the built-in ones; in a file, relative to that file."
    ),
    _row("profile", None, as_text, "The profile of calls for which no scope sets one."),
    _row("tags", {}, as_pairs, "Tags of every call, like `feature=search,team=core`; a table in a file."),
    _row("disabled", False, as_switch, "Do nothing at all: no spans, no ledger, no budgets."),
    _row("include_usage", True, as_switch, "Ask OpenAI streams for their usage, and hide the chunk that carries it."),
    _row("cost_attributes", True, as_switch, "Put the cost of a call on its span."),
    _row("providers", {}, as_providers, "Whose prices apply at a host: `gateway.corp:8443=openai`; a table in a file."),
    _row("hold_usd", None, as_usd, "USD that strict mode holds for a call without bound or price; unset: refuse it."),
    _row("output_floor", 256, as_whole(16), "The fewest output tokens that `clamp` may grant a call."),
    _row(
        "count_tokens",
        False,
        as_switch,
        "Ask the provider how many input tokens a call has before a strict budget holds its cost: one more round trip.",
    ),
    _row(
        "timezone",
        "UTC",
        lambda value: Window("day", as_text(value)).timezone,
        "The IANA time zone of budgets that do not name one, like `Europe/Berlin`.",
    ),
    _row("busy_timeout_ms", 5000, as_whole(0), "Milliseconds to wait for a ledger that another process is writing."),
    _row(
        "journal",
        True,
        as_switch,
        "Keep events in a file of the process until they are in the ledger: kills lose none.",
    ),
    _row("queue_limit", 100_000, as_whole(1000), "Events that wait in memory for a ledger that cannot be written."),
    _row("keep_days", None, as_whole(1), "Days after which events are pruned; balances stay. Unset: never."),
    _row("flush_on_sigterm", True, as_switch, "Write what is queued when SIGTERM comes, then do what was to be done."),
    _row(
        "record_unsampled", True, as_switch, "Count LLM calls in spans of other instrumentations that are not sampled."
    ),
    _row("wait_on_rate_limit", False, as_switch, "Wait where a provider's rate limit is met, and ask again."),
    _row("max_wait_timeout_s", 60.0, as_seconds, "The longest single wait for a provider's rate limit, in seconds."),
    _row("retry_budget_s", 90.0, as_seconds, "Seconds from a call's first attempt in which its waits must end."),
    _row("drain_cut_streams", False, as_switch, "Read streams that were left early to their usage, in the background."),
    _row(
        "refuse_uncovered",
        False,
        as_switch,
        "Refuse, where a strict budget matches, a request to a model that comes by no covered method of an SDK.",
    ),
    _row(
        "baggage",
        (),
        as_dimensions,
        "What travels to other services in W3C baggage, and is taken from it: `user,run,tag:feature`, and `budget`. It "
        "goes to every host that is called.",
    ),
    _row("webhook", None, as_url, "A URL that gets a POST when a budget passes one of its `warn_at`.", is_secret=True),
)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    text: str
    header: str
    table: Mapping[str, Any]

    def line(self, key: str, nth: int = 1) -> int | None:
        """Find the line of a key of ours, or of the nth table of that name: tomllib does not tell."""
        own = f"{self.header}.{key}" if self.header else key
        assigned = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]")
        table = ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            if header := _HEADER.match(line):
                table = header[1]
            if table == own if header else table == self.header and assigned.match(line):
                nth -= 1
                if nth == 0:
                    return number
        return None


_NO_FILE = _File(Path(), "", "", {})


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One pass over flags, environment and file, and what was found wrong on the way."""

    environ: Mapping[str, str]
    flags: Mapping[str, Any]
    strict: bool
    file: _File = _NO_FILE
    source: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def report(self, problem: str, cause: Exception | None = None) -> None:
        if self.strict:
            raise ConfigurationError(problem) from cause
        self.problems.append(problem)

    def place(self, name: str, source: str, nth: int = 1) -> str:
        if source != str(self.file.path):
            return f"{name} ({source})"
        line = self.file.line(name, nth)
        return f"{source}, line {line}, {name}" if line else f"{source}, {name}"

    def find_file(self, directory: Path | None) -> None:
        named = self.environ.get(CONFIG_VARIABLE, "").strip()
        paths = [Path(directory or "", at_home(named))] if named else _nearest(directory)
        for path in paths:
            try:
                found = _read(path.absolute())
            except (OSError, ValueError, ArithmeticError) as error:
                way_out = f"correct it, or set {CONFIG_VARIABLE} to another file"
                self.report(f"{path} cannot be read: {error}; {way_out}", error)
                return
            if found is not None:
                self.file = found
                return
        if named:
            self.report(f"{named} (environment {CONFIG_VARIABLE}) has no table [tool.tollspan]; add it")

    def check_names(self) -> None:
        variables = [CONFIG_VARIABLE, *(setting.env for setting in SETTINGS)]
        for name in self.environ:
            if name.startswith(_PREFIX) and name not in variables:
                near = did_you_mean(name, variables)
                self.report(f"{name} (environment) is no setting{near}; write one of {', '.join(variables)}")
        keys = [setting.name for setting in SETTINGS]
        for key in self.file.table:
            if key not in keys:
                where, near = self.place(key, str(self.file.path)), did_you_mean(key, keys)
                self.report(f"{where} is no setting{near}; write one of {', '.join(keys)}")

    def value(self, setting: Setting) -> Any:
        name, variable = setting.name, self.environ.get(setting.env, "").strip()
        if name in self.flags:
            return self.parsed(setting, self.flags[name], "flag")
        if variable:
            return self.parsed(setting, variable, f"environment {setting.env}")
        if name in self.file.table:
            return self.parsed(setting, self.file.table[name], str(self.file.path))
        return self.default(setting)

    def parsed(self, setting: Setting, raw: Any, source: str) -> Any:
        try:
            value = setting.parse(raw)
        except ValueError as error:
            self.report(f"{self.place(setting.name, source)}: {error}", error)
            return self.default(setting)
        self.source[setting.name] = source
        return _beside(self.file.path, setting.name, value) if source == str(self.file.path) else value

    def default(self, setting: Setting) -> Any:
        self.source[setting.name] = "default"
        if setting.default != _DEFAULT_LEDGER:
            return copy(setting.default)
        data = _data_directory(self.environ, sys.platform)
        if data is not None:
            return _DEFAULT_LEDGER.replace("{data}", data.as_posix())
        self.report("no home directory is known, so the ledger is in memory; set TOLLSPAN_LEDGER=sqlite:///path")
        return MEMORY

    def budgets(self, raw: Any, mode: Mode, timezone: str) -> tuple[BudgetDefinition, ...]:
        source = self.source["budget"]
        try:
            if isinstance(raw, str):
                return parse_budgets(raw, mode=mode, timezone=timezone)
            if all(isinstance(entry, BudgetDefinition) for entry in raw):
                return tuple(raw)
            return budgets_from_table(raw, where="", mode=mode, timezone=timezone)
        except BudgetSyntaxError as error:
            self.report(f"{self.place('budget', source, error.entry or 1)}: {error}", error)
            self.source["budget"] = "default"
            return ()


def _flags(overrides: Mapping[str, Any]) -> dict[str, Any]:
    names = {setting.name: setting.name for setting in SETTINGS} | {"budgets": "budget"}
    for name in overrides:
        if name not in names:
            raise TypeError(f"{name!r} is no setting{did_you_mean(name, names)}")
    return {names[name]: value for name, value in overrides.items() if value is not None}


def _nearest(directory: Path | None) -> Iterator[Path]:
    try:
        here = Path(os.path.abspath(directory or ""))  # noqa: PTH100 - Path.absolute keeps `..`
    except OSError:  # the working directory was removed under us
        return
    for folder in (here, *here.parents):
        for name in ("tollspan.toml", "pyproject.toml"):
            path = folder / name
            if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises in a directory that is closed to us
                yield path


def _read(path: Path) -> _File | None:
    """Read our table of a TOML file; None for a pyproject.toml that has none; raises OSError, ValueError."""
    raw = path.read_bytes()
    is_pyproject = path.name == "pyproject.toml"
    if is_pyproject and b"tollspan" not in raw:  # most are not about us, and parsing takes milliseconds
        return None
    import tomllib  # noqa: PLC0415 - wanted only where there is a file

    text = raw.decode("utf-8-sig")
    document = tomllib.loads(text, parse_float=Decimal)
    if not is_pyproject:
        return _File(path, text, "", document)
    tool = document.get("tool")
    table = tool.get("tollspan") if isinstance(tool, Mapping) else None
    return _File(path, text, "tool.tollspan", table) if isinstance(table, Mapping) else None


def _beside(file: Path, name: str, value: Any) -> Any:
    if isinstance(value, Path):
        return file.parent / value
    if name == "ledger" and value != MEMORY:
        return SQLITE + (file.parent / value.removeprefix(SQLITE)).as_posix()
    return value


def _data_directory(environ: Mapping[str, str], platform: str) -> Path | None:
    """Find where a user's programs keep data; XDG_DATA_HOME counts if absolute (XDG Base Directory Specification)."""
    given = environ.get("LOCALAPPDATA" if platform == "win32" else "XDG_DATA_HOME", "")
    if given and (platform == "win32" or (platform != "darwin" and Path(given).is_absolute())):
        return Path(given)
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        return None
    under = {"win32": "AppData/Local", "darwin": "Library/Application Support"}
    return home / under.get(platform, ".local/share")
