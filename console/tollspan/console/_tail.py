"""`tollspan tail`: one line for each event, as they come, whichever process writes them."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.text import Text

from tollspan.ledger import Ledger, LedgerEvent, time_zone

from ._ledgers import existing_ledger, settings_for
from ._render import CURRENCY, compact, console, exact, money, plain, print_json_line
from ._when import shown

_LAST = 10
_PAGE = 500
_POLL_S = 0.2
_MODEL_WIDTH = 19  # what the other columns leave of a line of 80
_COLUMNS = (("time", 8), ("in", 7), ("out", 7), ("cost", 13), ("status", 8), ("total", 12))
_ERROR_WIDTH = 15  # an error stands where its tokens would
_STYLES = {"error": "red", "refused": "red", "unpriced": "yellow"}


@dataclass(frozen=True, slots=True)
class Cells:
    """The parts of a line, as texts. `problem` names a style: what the reader should not overlook."""

    model: str
    tokens_in: str
    tokens_out: str
    error: str
    cost: str
    status: str
    problem: str | None


def show(
    url: str | None,
    *,
    offset: int | None,
    last: int | None,
    limit: int | None,
    follow: bool,
    tz: str | None,
    as_json: bool,
) -> None:
    """Print events until there are no more, `limit` is reached, or, while following, Ctrl-C is pressed."""
    settings = settings_for(url)
    zone = tz or settings.timezone
    time_zone(zone)
    with existing_ledger(settings) as ledger:
        try:
            start = (
                _start(ledger, last if last is not None else min(_LAST, limit or _LAST)) if offset is None else offset
            )
            events = _events(ledger, start, limit, follow=follow)
            if as_json:
                _print_json(events)
            else:
                _print_lines(console(), events, zone)
        except KeyboardInterrupt:
            return


def _start(ledger: Ledger, last: int) -> int:
    """The offset to begin after, so that so many events are shown before the ones to come."""
    return max(0, ledger.latest_offset() - last)


def _events(ledger: Ledger, offset: int, limit: int | None, *, follow: bool) -> Iterator[LedgerEvent]:
    left = limit
    while left is None or left > 0:
        page = ledger.tail(offset, _PAGE if left is None else min(left, _PAGE))
        yield from page
        if page:
            offset = page[-1].offset or offset
            left = None if left is None else left - len(page)
        elif follow:
            time.sleep(_POLL_S)
        else:
            return


def _print_json(events: Iterator[LedgerEvent]) -> None:
    total = Decimal(0)
    for event in events:
        total += event.spend_usd or 0
        print_json_line(as_dict(event) | {"total": exact(total)})


def _print_lines(screen: Console, events: Iterator[LedgerEvent], zone: str) -> None:
    total, date = Decimal(0), ""
    width = max(_MODEL_WIDTH, screen.width - 80 + _MODEL_WIDTH)
    for event in events:
        total += event.spend_usd or 0
        day = shown(event.timestamp, zone, form="%Y-%m-%d")
        if day != date:
            _print_header(screen, f"{day} ({zone})", width)
            date = day
        clock = shown(event.timestamp, zone, form="%H:%M:%S")
        screen.print(line(cells(event, width), clock, money(total), width), no_wrap=True, overflow="ignore", crop=False)


def _print_header(screen: Console, date: str, width: int) -> None:
    names = [name.rjust(size) for name, size in _COLUMNS]
    text = " ".join((names[0], "model".ljust(width), *names[1:4], "status".ljust(_COLUMNS[4][1]), names[5]))
    screen.print(date, style="bold")
    screen.print(text.rstrip(), style="dim", no_wrap=True, overflow="ignore", crop=False)


def line(parts: Cells, clock: str, total: str, width: int) -> Text:
    """A line of the table; `width` is that of the model's column."""
    sizes = dict(_COLUMNS)
    if parts.error:
        middle = _cut(parts.error, _ERROR_WIDTH).ljust(_ERROR_WIDTH)
    else:
        middle = f"{parts.tokens_in:>{sizes['in']}} {parts.tokens_out:>{sizes['out']}}"
    text = Text(f"{clock} {_cut(parts.model, width):<{width}} {middle} ")
    text.append(
        f"{parts.cost:>{sizes['cost']}} {parts.status:<{sizes['status']}}", style=_STYLES.get(parts.problem or "")
    )
    text.append(f" {total:>{sizes['total']}}")
    return text


def cells(event: LedgerEvent, width: int) -> Cells:
    """What a line says of an event."""
    status = _status(event)
    failed = status in ("refused", "error") or status.startswith("err ")
    unpriced = event.event_type == "commit" and event.spend_usd is None
    usage = event.usage
    return Cells(
        model=_model(event, width),
        tokens_in=compact(int(usage["tokens_in"])) if "tokens_in" in usage else "",
        tokens_out=compact(int(usage["tokens_out"])) if "tokens_out" in usage else "",
        error=plain(event.error_type) if failed and event.error_type and not usage else "",
        cost="unpriced" if unpriced else _cost(event),
        status=status,
        problem="error" if failed else "unpriced" if unpriced else None,
    )


def _model(event: LedgerEvent, width: int) -> str:
    full = f"{plain(event.provider)}/{plain(event.model)}"
    return full if len(full) <= width else plain(event.model)


def _cost(event: LedgerEvent) -> str:
    if event.event_type == "precheck_hold":
        return "" if event.cost_est_usd is None else money(event.cost_est_usd, estimated=True)
    return "" if event.spend_usd is None else money(event.spend_usd, estimated=event.estimated)


def _status(event: LedgerEvent) -> str:
    """In at most 8 characters: how a call ended, or which other event this is."""
    if event.event_type not in ("commit", "cancel"):
        return {"precheck_hold": "hold"}.get(event.event_type, event.event_type)
    if event.status == "cancelled":
        return "cancel"
    if event.status == "ok":
        return "ok"
    if not event.attempts:
        return "refused"
    return f"err {event.http_status}" if (event.http_status or 0) >= 400 else "error"  # noqa: PLR2004 - HTTP: an error


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def as_dict(event: LedgerEvent) -> dict[str, Any]:
    """An event for programs: every field, costs as exact texts in USD, and what it adds to spend."""
    return asdict(event) | {
        "cost_est_usd": exact(event.cost_est_usd),
        "cost_actual_usd": exact(event.cost_actual_usd),
        "spend": exact(event.spend_usd),
        "currency": CURRENCY,
    }
