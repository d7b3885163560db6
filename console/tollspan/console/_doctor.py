"""`tollspan doctor`: what is wrong, what may be, and what to do about it."""

import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollspan.instrumentation import GAPS, sdk_version
from tollspan.ledger import (
    SETTINGS,
    Difference,
    Ledger,
    LedgerError,
    PriceBook,
    PriceFileError,
    Settings,
    load_settings,
)

from ._budget_findings import budget_findings, underholds
from ._findings import Finding, Grade
from ._ledgers import NoLedger, existing_ledger, ledger_path
from ._render import console, money, plain, print_json
from ._sdks import Sdk, State, examine, hints
from ._today import number
from ._when import shown

_STYLES: dict[Grade, str] = {"ok": "green", "note": "yellow", "problem": "bold red"}
_WEEK_S = 7 * 86_400
_AHEAD_S = 60
_SHOWN_DIFFERENCES = 10
_LOG = "the logger `tollspan.ledger` of the process concerned says why"
_SECRETS = frozenset(row.name for row in SETTINGS if row.is_secret)
_DISABLED = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def show(url: str | None, *, verify: bool, as_json: bool) -> int:
    """Print what was found; the exit status is 1 when there is a problem. Never raises for what it is to report."""
    settings = load_settings(ledger=url, strict=False)
    sdks, broken = examine()
    findings = [
        *_settings(settings),
        *_ledger(settings, verify=verify),
        *_prices(settings),
        *_sdks(sdks, broken),
        *_zero_code(),
    ]
    if as_json:
        _print_json(findings, settings, sdks)
    else:
        _print_text(console(), findings)
    return int(any(finding.grade == "problem" for finding in findings))


# ---- what is looked at


def _settings(settings: Settings) -> Iterator[Finding]:
    for problem in settings.problems:
        yield Finding("settings", "problem", problem, "until then its default is used")
    changed = [s.name for s in SETTINGS if settings.source[s.name] != "default"]
    for name in changed:
        yield Finding("settings", "ok", f"{name} = {_value(settings, name)} ({settings.source[name]})")
    yield Finding("settings", "ok", f"{len(SETTINGS) - len(changed)} of {len(SETTINGS)} settings at their defaults")
    if settings.disabled:
        yield Finding("settings", "note", "tollspan is switched off: nothing is recorded", "unset TOLLSPAN_DISABLED")


def _value(settings: Settings, name: str) -> str | None:
    if name in _SECRETS and getattr(settings, name) is not None:
        return "a secret"
    value = "; ".join(b.name for b in settings.budgets) if name == "budget" else getattr(settings, name)
    return None if value is None else str(value)


def _ledger(settings: Settings, *, verify: bool) -> Iterator[Finding]:
    path = ledger_path(settings)
    try:
        with existing_ledger(settings) as ledger:
            yield from _file(ledger, ledger.path or Path())
            yield from _holds(ledger)
            yield from _trouble(ledger)
            yield from _unpriced(ledger)
            yield from _uncovered(ledger)
            yield from underholds(ledger)
            yield from budget_findings(ledger, settings)
            if verify:
                yield _verified(ledger.verify())
    except NoLedger as error:
        yield _no_ledger(path, str(error))
    except LedgerError as error:
        yield Finding("ledger", "problem", str(error))


def _no_ledger(path: Path | None, text: str) -> Finding:
    if path is not None and path.exists():
        return Finding("ledger", "problem", text)
    if path is None:
        return Finding("ledger", "note", text, "set TOLLSPAN_LEDGER=sqlite:///path")
    folder = next((parent for parent in path.parents if parent.exists()), path.parent)
    if not os.access(folder, os.W_OK):
        advice = "make it writable, or set TOLLSPAN_LEDGER to a file that you may write"
        return Finding("ledger", "problem", f"no ledger at {path}, and {folder} is not writable", advice)
    return Finding("ledger", "note", text)


def _file(ledger: Ledger, path: Path) -> Iterator[Finding]:
    size = sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())
    schema = ledger.store.query("PRAGMA user_version")[0][0]
    journal = str(ledger.store.query("PRAGMA journal_mode")[0][0]).upper()
    count, latest = ledger.store.query("SELECT count(*), max(timestamp) FROM event")[0]
    facts = f"schema {schema}, {journal}, {size / 1_000_000:.1f} MB, {number(count, 'event')}"
    yield Finding("ledger", "ok", f"{path}: {facts}")
    yield _writable(ledger)
    if journal != "WAL":
        yield Finding("ledger", "problem", f"the journal mode is {journal}, not WAL", "move it to a local disk")
    if latest is not None and latest > time.time() + _AHEAD_S:
        text = f"the last event is dated {shown(latest, 'UTC')} UTC, ahead of this clock"
        yield Finding("ledger", "note", text, "set the clock of the machine that wrote it, or of this one")


def _writable(ledger: Ledger) -> Finding:
    try:
        with ledger.writer.store_lock:
            ledger.store.connection.execute("BEGIN IMMEDIATE")
            ledger.store.connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        advice = "make the file and its folder writable, or close the program that keeps it locked"
        return Finding("ledger", "problem", f"it cannot be written: {error}", advice)
    return Finding("ledger", "ok", "writable")


def _holds(ledger: Ledger) -> Iterator[Finding]:
    settled = ledger.recover().estimated
    if settled:
        text = f"{number(settled, 'call')} of ended processes settled at what was held: nobody knows the true cost"
        yield Finding("holds", "note", text)
    holds = ledger.open_holds()
    owners = len(ledger.store.open_hold_owners())
    amount = "" if holds.usd is None else f", holding {money(holds.usd)}"
    where = f" in {number(owners, 'process', 'processes')}" if owners else ""
    yield Finding("holds", "ok", f"{number(holds.calls, 'call')} in flight{where}{amount}")


def _trouble(ledger: Ledger) -> Iterator[Finding]:
    seen = ledger.trouble()
    if seen.lost_events:
        text = f"{number(seen.lost_events, 'event')} lost: the ledger could not be written, and there was no journal"
        yield Finding("ledger", "problem", text, "set TOLLSPAN_JOURNAL=true, and see that its disk has room")
    if seen.rejected_events or seen.conflicts:
        odd = number(seen.rejected_events + seen.conflicts, "event")
        yield Finding("ledger", "problem", f"{odd} could not be stored, or came twice with different content", _LOG)
    if seen.write_failures:
        text = f"writing failed {number(seen.write_failures, 'time')}, and was done again; nothing is lost by that"
        yield Finding("ledger", "note", text, _LOG)
    for path in seen.aside:
        text = f"{path} holds lines of a journal that could not be read or stored"
        yield Finding("ledger", "note", text, "look into it, then delete it")
    if seen.journal_replays or seen.orphan_holds:
        events, calls = number(seen.journal_replays, "event"), number(seen.orphan_holds, "call")
        text = (
            f"killed processes left {events} in journals, now stored, and {calls}, counted at what they may have cost"
        )
        yield Finding("ledger", "ok", text)


def _unpriced(ledger: Ledger) -> Iterator[Finding]:
    missing = ledger.unpriced(time.time() - _WEEK_S)
    for model in missing:
        name = f"{plain(model.provider)}/{plain(model.model)}"
        text = f"{number(model.calls, 'call')} of {name} in the last 7 days without a price: {plain(model.reason)}"
        advice = (
            f'write a [[price]] table with model = "{plain(model.model)}" into the file named by TOLLSPAN_PRICES; '
            "`tollspan prices check` tells the command that does it"
        )
        yield Finding("prices", "problem", text, advice)
    if not missing:
        yield Finding("prices", "ok", "every call of the last 7 days has a price")


def _uncovered(ledger: Ledger) -> Iterator[Finding]:
    for seen in ledger.uncovered(time.time() - _WEEK_S):
        text = (
            f"{number(seen.calls, 'call')} to {plain(seen.provider)} ({plain(seen.operation)}) in the last 7 days came "
            "by a way that no call site covers; they are recorded"
        )
        yield Finding("SDKs", "note", text, "raw HTTP, or a method of an SDK that this version does not know")


def _verified(differences: Sequence[Difference]) -> Finding:
    if not differences:
        return Finding("verify", "ok", "every balance equals the log")
    lines = [f"{number(len(differences), 'balance is', 'balances are')} not what the log says"]
    for found in differences[:_SHOWN_DIFFERENCES]:
        name = plain(found.budget) if found.budget else "the ledger's own"
        lines.append(
            f"{name} {plain(found.scope)} {found.window_start}: spent {found.kept.spent}, by the log "
            f"{found.counted.spent}; held {found.kept.held}, by the log {found.counted.held}; estimated "
            f"{found.kept.estimated}, by the log {found.counted.estimated}"
        )
    advice = "keep a copy of the file, and report it: this must not happen"
    return Finding("verify", "problem", "; ".join(lines), advice)


def _prices(settings: Settings) -> Iterator[Finding]:
    yield Finding("prices", "ok", f"genai-prices {version('genai-prices')}")
    if settings.prices is not None:
        try:
            PriceBook(overrides=settings.prices)
        except PriceFileError as error:
            advice = "until then processes keep its last good version, and new ones leave it out"
            yield Finding("prices", "problem", str(error), advice)
        else:
            yield Finding("prices", "ok", f"{settings.prices} goes before it")


def _sdks(sdks: list[Sdk], broken: list[str]) -> Iterator[Finding]:
    for sdk in sdks:
        if sdk.version is None:
            continue
        covered = f"{len(sdk.names('in place'))} of {len(sdk.rows)} call sites in place{_absent(sdk)}"
        yield Finding("SDKs", "ok", f"{sdk.name} {sdk.version}: {covered}{_described(sdk)}")
        for name in sdk.names("unresolved"):
            text = f"{name} is not there: calls by it are seen on the wire only"
            yield Finding("SDKs", "problem", text, f"use another version of {sdk.name}, and report this one")
    if missing := [sdk.name for sdk in sdks if sdk.version is None]:
        yield Finding("SDKs", "ok", f"not installed: {', '.join(missing)}")
    for gap in GAPS:
        if sdk_version(gap.sdk) is not None:
            yield Finding("SDKs", "ok", f"{gap.extent}: {gap.sdk}, {gap.surface}. {gap.reason}")
    for method in broken:
        advice = "use another version of that library, and report this one"
        yield Finding("SDKs", "problem", f"{method} is not there to cover: what is sent by it is not seen", advice)
    for hint in hints(sdks):
        yield Finding("SDKs", "note", hint)


def _absent(sdk: Sdk) -> str:
    whys: dict[State, str] = {
        "not yet": "newer than this version",
        "gone": "older than this version",
        "moved": "moved, covered at their new place",
    }
    return "".join(f", {len(names)} {why}" for state, why in whys.items() if (names := sdk.names(state)))


def _described(sdk: Sdk) -> str:
    does = f"; {', '.join(sdk.operations)}" if sdk.operations else ""
    return f"{does}; by {', '.join(sdk.wires)}" if sdk.wires else does


def _zero_code() -> Iterator[Finding]:
    if shutil.which("opentelemetry-instrument") is None:
        advice = "activate the environment that has it, or `pip install tollspan[auto]`; or call instrument() in code"
        yield Finding("zero-code", "note", "`opentelemetry-instrument` is not on the PATH", advice)
    elif _is_missing("opentelemetry-distro"):
        text = "opentelemetry-distro is not installed, so `opentelemetry-instrument` makes no spans"
        yield Finding("zero-code", "note", text, "pip install tollspan[auto]")
    else:
        yield Finding("zero-code", "ok", "`opentelemetry-instrument` is there")
    if {"tollspan", "*"} & {name.strip() for name in os.environ.get(_DISABLED, "").split(",")}:
        yield Finding("zero-code", "note", f"tollspan is switched off by {_DISABLED}", "take it out")


def _is_missing(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return True
    return False


# ---- how it is shown


def _print_text(screen: Console, findings: Sequence[Finding]) -> None:
    screen.print(
        f"tollspan {version('tollspan')}, Python {platform.python_version()}, {platform.system()}", style="bold"
    )
    for topic in dict.fromkeys(finding.topic for finding in findings):
        screen.print(f"\n{topic}", style="bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for finding in findings:
            if finding.topic == topic:
                _add(grid, finding)
        screen.print(grid)
    screen.print(f"\n{_summary(findings)}", style="bold")


def _add(grid: Table, finding: Finding) -> None:
    grid.add_row(Text(f"  {finding.grade}", style=_STYLES[finding.grade]), Text(finding.text))
    if finding.advice:
        grid.add_row(Text(""), Text(f"-> {finding.advice}", style="dim"))


def _summary(findings: Sequence[Finding]) -> str:
    problems = sum(finding.grade == "problem" for finding in findings)
    return f"{number(problems, 'problem')} found" if problems else "no problem found"


def _print_json(findings: Sequence[Finding], settings: Settings, sdks: Sequence[Sdk]) -> None:
    grades = [finding.grade for finding in findings]
    print_json(
        {
            "ok": "problem" not in grades,
            "problems": grades.count("problem"),
            "notes": grades.count("note"),
            "version": version("tollspan"),
            "findings": [asdict(finding) for finding in findings],
            "settings": {
                s.name: {"value": _value(settings, s.name), "source": settings.source[s.name]} for s in SETTINGS
            },
            "sdks": [
                {
                    "name": sdk.name,
                    "version": sdk.version,
                    "operations": sdk.operations,
                    "wires": sdk.wires,
                    "call_sites": [
                        {"name": row.name, "kind": row.site.kind, "operation": row.operation, "state": row.state}
                        for row in sdk.rows
                    ],
                    "gaps": [asdict(gap) for gap in GAPS if gap.sdk == sdk.name],
                }
                for sdk in sdks
            ],
        }
    )
