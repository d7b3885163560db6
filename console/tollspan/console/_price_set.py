"""`tollspan prices set`: a price in the user's file, which keeps its comments and its order."""

import contextlib
import datetime as dt
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from tollspan.ledger import PriceBook, PriceFileError, RateCard, Settings, set_alias, set_price

from ._ledgers import ledger_path, settings_for
from ._prices import Shown, example_usd, look_up
from ._render import exact, plain, print_json

_DATES = ("from", "until")
_SCOPE = ("provider", "service_tier", *_DATES)
_FILE = "prices.toml"
_BEGINNING = "# Prices that go before the built-in ones; docs/prices.md of tollspan tells what may stand here.\n"


def set_(url: str | None, model: str, *, as_json: bool, **options: Any) -> None:
    """Write what was given into the price file, in one step, and say what holds now."""
    settings = settings_for(url)
    path = (settings.prices or _default_path(settings)).absolute()
    fields = {"model": model} | _fields(options)
    target = fields.pop("alias_of", None)
    if target is None and fields.keys() <= {"model", *_SCOPE}:
        raise click.UsageError(
            "say what it costs: --input-mtok and --output-mtok, --price KEY=USD, --unit with --usd, --free or "
            "--multiplier; or --hold-usd, --max-output-tokens, --context-window; or --as MODEL, whose price it has"
        )
    if target is not None and not fields.keys() <= {"model", "provider"}:
        raise click.UsageError("--as: what it stands for has the price; give --provider with it, and nothing else")
    provider, (text, line_end) = fields.get("provider"), _text_of(path)
    change = set_alias(text, path, model, provider, target) if target else set_price(text, path, fields)
    _write(path, change.text, line_end)
    begins = fields.get("from")
    at = max(time.time(), _epoch(begins)) if isinstance(begins, dt.date) else time.time()
    now = look_up(PriceBook(overrides=path), model, provider, at, fields.get("service_tier"))
    hides = () if change.line in now.lines else now.lines
    if as_json:
        print_json(
            {"file": str(path), "line": change.line, "new": change.new, "in_use": settings.prices is not None}
            | {"hidden_by_lines": list(hides), "example_usd": exact(example_usd(now.found))}
        )
        return
    for line in _lines(path, change.line, now, hides, in_use=settings.prices is not None, new=change.new):
        click.echo(line)


def _fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the entry, as TOML has them, in the order in which they are best read."""
    given = {name: value for name, value in options.items() if value not in (None, (), False)}
    for text in given.pop("price", ()):
        key, equal, usd = text.partition("=")
        if not equal:
            raise click.UsageError(f"--price: {text!r} is no price; write it like images_kcount=40")
        given[key.strip()] = usd.strip()
    for name in _DATES:
        if f"{name}_" in given:
            given[name] = _date(given.pop(f"{name}_"), name)
    first = {name: given.pop(name) for name in _SCOPE if name in given}
    return first | {name: value.removeprefix("$") if isinstance(value, str) else value for name, value in given.items()}


def _date(text: str, name: str) -> dt.date:
    with contextlib.suppress(ValueError):
        return dt.date.fromisoformat(text)
    try:
        return dt.datetime.fromisoformat(text.upper())
    except ValueError:
        like = "2026-12-01 or 2026-12-01T12:00:00Z (without an offset it is UTC)"
        raise click.UsageError(f"--{name}: {text!r} is no date or instant; write it like {like}") from None


def _epoch(at: dt.date) -> float:
    moment = at if isinstance(at, dt.datetime) else dt.datetime(at.year, at.month, at.day, tzinfo=dt.UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


# ---- the file


def _default_path(settings: Settings) -> Path:
    """Where a price file is made when none is configured: beside the ledger."""
    ledger = ledger_path(settings)
    return (ledger.parent if ledger else Path.cwd()) / _FILE


def _text_of(path: Path) -> tuple[str, str]:
    """The text of the file, with plain line feeds, and what it has in their place."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return _BEGINNING, "\n"
    except (OSError, ValueError) as error:
        raise PriceFileError(f"{path}: cannot be read: {error}") from error
    return text.replace("\r\n", "\n"), "\r\n" if "\r\n" in text else "\n"


def _write(path: Path, text: str, line_end: str) -> None:
    """Put a text in the place of a file at once: whoever reads it meanwhile sees the old one, or the new one."""
    path = path.resolve()  # behind a link, the file it names is changed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline=line_end) as file:  # noqa: PTH123 - a descriptor has no path
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PriceFileError(f"{path}: cannot be written: {error.strerror or error}") from error


# ---- for people


def _lines(path: Path, line: int, now: Shown, hides: tuple[int, ...], *, in_use: bool, new: bool) -> Iterator[str]:
    yield f"{plain(str(path))}, line {line}: {'new entry' if new else 'changed'}"
    if hides:
        others = " and ".join(map(str, hides))
        yield f"but line {others} of it goes before that for {plain(now.model)}: change it, or move this above it"
    cost = example_usd(now.found)
    if isinstance(now.found, RateCard) and cost is not None:
        name = f"{plain(now.model)} at {plain(now.provider) if now.provider else 'any provider'}"
        yield f"{name}: 1000 tokens in and 1000 out cost ${cost.normalize():f}"
    if in_use:
        yield "in force within about a second in every process that uses this file"
    else:
        quoted = shlex.quote(str(path))
        yield "not in force yet, because no price file is configured; to use it:"
        yield f"  export TOLLSPAN_PRICES={plain(quoted)}"
        yield f"or in tollspan.toml:  prices = {plain(_toml_text(path))}"


def _toml_text(path: Path) -> str:
    return "'" + str(path) + "'" if "'" not in str(path) else '"' + str(path).replace("\\", "\\\\") + '"'
