"""`tollspan prune`: old events go, and what they counted stays."""

import time

import click

from ._ledgers import existing_ledger, settings_for
from ._progress import bar
from ._render import plain, print_json
from ._today import number
from ._when import shown

_DAY_S = 86_400


def show(url: str | None, *, keep_days: int, dry_run: bool, as_json: bool) -> None:
    """Prune the ledger, or say what would go."""
    settings = settings_for(url)
    before = time.time() - keep_days * _DAY_S
    with existing_ledger(settings) as ledger, bar("pruning") as progress:
        total = ledger.count_before(before)
        gone = total if dry_run else ledger.prune(keep_days, progress=lambda done: progress(done, total)).events
    if as_json:
        print_json({"events": gone, "before": before, "dry_run": dry_run})
        return
    verb = "would go" if dry_run else "are gone"
    since = shown(before, "UTC")
    click.echo(f"{number(gone, 'event')} of calls that began before {since} UTC {verb} from {plain(str(ledger.path))}")
    if gone and not dry_run:
        click.echo("balances and their verification are as before; the file is reused, and shrinks with VACUUM")
