"""`tollspan export`, `import` and `snapshot`: the log in files, and the ledger as it is at one moment."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from tollspan.ledger import Imported, Ledger, LedgerError, open_ledger

from ._ledgers import NoLedger, existing_ledger, ledger_path, settings_for
from ._progress import bar
from ._render import plain
from ._today import number
from ._when import instant

_STANDARD = "-"

Form = Literal["jsonl", "parquet"]


def export(
    url: str | None, file: str, *, form: Form, since: str | None, until: str | None, tz: str | None, as_json: bool
) -> None:
    """Write the log to a file, a folder of Parquet, or stdout; then the figures go to stderr."""
    settings = settings_for(url)
    zone, now = tz or settings.timezone, time.time()
    bounds = {
        "since": None if since is None else instant(since, tz=zone, now=now, option="--since"),
        "until": None if until is None else instant(until, tz=zone, now=now, option="--until"),
    }
    with existing_ledger(settings) as ledger, _explained(file), bar("exporting") as progress:
        count = _exporter(ledger, form)(_target(file), progress=progress, **bounds)
    _tell(
        {"events": count, "file": file, "format": form},
        f"{number(count, 'event')} exported to {_shown(file, 'stdout')}",
        as_json=as_json,
        err=file == _STANDARD,
    )


def import_(url: str | None, file: str, *, as_json: bool) -> int:
    """Store the events of an export in the ledger, which is made where there is none; gives the exit status."""
    settings = settings_for(url)
    path = ledger_path(settings)
    if path is None:
        raise NoLedger("the configured ledger is in memory and would be gone at once: name a file")
    with open_ledger(settings=settings) as ledger, _explained(file), bar("importing") as progress:
        source = sys.stdin.buffer if file == _STANDARD else file
        found = ledger.import_jsonl(source, progress=progress, warn=_warn)
    _tell(asdict(found) | {"file": file}, _said(found, _shown(file, "stdin"), path), as_json=as_json)
    return 1 if found.problems else 0


def snapshot(url: str | None, file: str, *, as_json: bool) -> None:
    """Copy the ledger to a new file."""
    with existing_ledger(settings_for(url)) as ledger, _explained(file):
        ledger.snapshot_to(file)
        size = Path(file).stat().st_size
        said = f"snapshot of {plain(str(ledger.path))}: {plain(file)}, {size / 1e6:.1f} MB"
        _tell({"ledger": str(ledger.path), "file": file, "bytes": size}, said, as_json=as_json)


def _exporter(ledger: Ledger, form: Form) -> Callable[..., int]:
    return ledger.export_parquet if form == "parquet" else ledger.export_jsonl


def _target(file: str) -> Any:
    return sys.stdout.buffer if file == _STANDARD else file


def _said(found: Imported, source: str, ledger: Path) -> str:
    text = (
        f"{number(found.stored, 'event')} imported from {source} into {plain(str(ledger))}, {found.known} known before"
    )
    left_out = (("malformed", found.malformed), ("in conflict", found.conflicts), ("refused", found.refused))
    problems = [f"{count} {name}" for name, count in left_out if count]
    return f"{text}; left out: {', '.join(problems)}" if problems else text


def _shown(file: str, standard: str) -> str:
    return standard if file == _STANDARD else plain(file)


def _tell(figures: dict[str, Any], text: str, *, as_json: bool, err: bool = False) -> None:
    if as_json:
        click.echo(orjson.dumps(figures), err=err)
    else:
        click.echo(text, err=err)


def _warn(text: str) -> None:
    click.echo(text, err=True)


@contextmanager
def _explained(file: str) -> Iterator[None]:
    """Turn what the file system says into one sentence; a reader of stdout that has gone is no error of ours."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LedgerError(f"{plain(file)}: {error.strerror}" if error.strerror else plain(str(error))) from error
