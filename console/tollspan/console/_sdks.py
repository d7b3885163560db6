"""Which SDKs are installed, and whether every call site of the table is where it is expected."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points, requires
from typing import Any, Literal

from tollspan.instrumentation import CALL_SITES, INSTALLATION, CallSite, sdk_version

State = Literal["in place", "not yet", "moved", "gone", "unresolved"]
"""`not yet`: the SDK is older than the method. `gone`: newer. `moved`: the method is covered at its newer place."""

_log = logging.getLogger("tollspan.console")
_MODULES = {"grpcio": "grpc", "boto3": "botocore", "websocket-client": "websocket"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of call sites, and what was found."""

    site: CallSite
    state: State

    @property
    def name(self) -> str:
        """Where the method is expected."""
        return f"{self.site.module}.{self.site.name}"

    @property
    def operation(self) -> str | None:
        """What the method does, as `gen_ai.operation.name` has it; None where only the wire tells."""
        return self.site.reader.operation if self.site.reader else None


@dataclass(frozen=True, slots=True)
class Sdk:
    """An SDK of the table: its version, None where it is not installed, its rows, and the HTTP libraries it may use."""

    name: str
    version: str | None
    rows: tuple[Row, ...]
    wires: tuple[str, ...] = ()

    def names(self, state: State) -> list[str]:
        """The call sites in a state."""
        return [row.name for row in self.rows if row.state == state]

    @property
    def operations(self) -> list[str]:
        """What the methods in place do, as far as their rows tell."""
        return sorted({row.operation for row in self.rows if row.state == "in place" and row.operation})


def examine() -> tuple[list[Sdk], list[str]]:
    """Import the modules of the installed SDKs with the instrumentation in place, see what it covers, and undo it.

    Gives the SDKs, and the methods of HTTP libraries that were imported but could not be covered.
    """
    with _quiet(), _installed() as state:
        for module in dict.fromkeys(site.module for site in CALL_SITES if sdk_version(site.sdk)):
            _import(module)
        in_place = {site for site in CALL_SITES if state.get(site) == "in place"}
        wires = {target: found for target, found in state.items() if not isinstance(target, CallSite)}
    broken = [f"{wire.module}.{wire.name}" for wire, found in wires.items() if found == "unresolved"]
    libraries = {wire.module.partition(".")[0] for wire in wires}
    return [_sdk(name, in_place, libraries) for name in dict.fromkeys(site.sdk for site in CALL_SITES)], broken


def _sdk(name: str, in_place: set[CallSite], libraries: AbstractSet[str]) -> Sdk:
    version = sdk_version(name)
    if version is None:
        return Sdk(name, None, ())
    rows = (Row(site, _state(site, version, in_place)) for site in CALL_SITES if site.sdk == name)
    return Sdk(name, version, tuple(rows), wires_of(name, libraries))


def wires_of(name: str, libraries: AbstractSet[str]) -> tuple[str, ...]:
    """Which of these HTTP libraries a distribution requires; those of its extras are left out."""
    return tuple(sorted(libraries & set(_required(name))))


def _required(name: str) -> Iterator[str]:
    for line in requires(name) or ():
        if "extra ==" not in line:
            found = re.match(r"[\w.-]+", line)
            yield _MODULES.get(found[0].lower(), found[0].lower()) if found else ""


def _state(site: CallSite, version: str, in_place: set[CallSite]) -> State:
    if site in in_place:
        return "in place"
    if _numbers(version) < _numbers(site.since):
        return "not yet"
    if site.until is not None and _numbers(version) >= _numbers(site.until):
        return "gone"
    newer = (
        other
        for other in in_place
        if (other.sdk, other.name, other.reader) == (site.sdk, site.name, site.reader)
        and _numbers(other.since) > _numbers(site.since)
    )
    return "moved" if next(newer, None) else "unresolved"


def hints(sdks: list[Sdk]) -> list[str]:
    """Who else makes spans of the same calls: harmless to the ledger, confusing in a trace."""
    found = []
    for sdk in sdks:
        native = sdk.name == "anthropic" and sdk.version and _numbers(sdk.version) >= (2,)
        if native and os.environ.get("ANTHROPIC_OPEN_TELEMETRY", "").lower() != "false":
            found.append(
                f"anthropic {sdk.version} makes spans of its own: a trace shows two for a call, the ledger counts one; "
                "ANTHROPIC_OPEN_TELEMETRY=false turns its own off"
            )
    found += [
        f"{entry.dist.name} {entry.dist.version} instruments {entry.name} too: a trace shows two spans for a call, the "
        f"ledger counts one; OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={entry.name} turns the other off"
        for entry in entry_points(group="opentelemetry_instrumentor")
        if entry.dist is not None and any(sdk.name in entry.name for sdk in sdks)
    ]
    return found


def _import(module: str) -> None:
    try:
        import_module(module)
    except ImportError:
        pass  # its rows tell
    except Exception:  # noqa: BLE001 - logged; an SDK that cannot be imported is a finding about its rows, and no end
        _log.debug("importing %s failed", module, exc_info=True)


@contextmanager
def _installed() -> Iterator[Mapping[Any, str]]:
    """The instrumentation in place, as it was before afterwards; gives the state of each row and wire."""
    was_active = INSTALLATION.active
    INSTALLATION.install()
    try:
        yield INSTALLATION.state
    finally:
        if not was_active:
            INSTALLATION.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """The instrumentation logs what it does not find; the doctor says it in its own words."""
    log = logging.getLogger("tollspan.instrumentation")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
