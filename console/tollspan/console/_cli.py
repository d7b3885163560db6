"""The commands of `tollspan` and their options; what a command does stands in a module of its own.

Those are imported when their command runs, so that `tollspan path` inside a shell script costs little. Exit status: 0
fine, 1 a problem was found, 2 wrong use, wrong configuration, or a ledger that cannot be read.
"""

import sys
from typing import Any

import click

from ._price_options import price_options

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON; costs are texts, exact, in USD.")
_zone = click.option(
    "--tz", metavar="ZONE", help="IANA time zone of days and times. Default: the setting `timezone`, UTC."
)
_INSTANTS = "Instants: 2026-11-01, 2026-11-01T12:00, 30m, 24h, 7d, 2w (so long ago), today, yesterday, now."

_ENDS = "Instants: 2h, 'in 3 days', tomorrow, 2026-12-01, 2026-12-01T12:00 (in the time zone of the budget)."


class _Days(click.ParamType[int]):
    """A span of days: 400d, or 400."""

    name = "DAYS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower().removesuffix("d")
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            self.fail(f"{value!r} is no number of days of 1 or more; write it like 400d", param, ctx)
        return int(text)


_DAYS = _Days()


class Failure(click.ClickException):
    """An error for people: one sentence on stderr, and exit status 2."""

    exit_code = 2


class _Group(click.Group):
    """The group, which turns the errors that the ledger room explains into failures without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            if not _is_explained(error):
                raise
            raise Failure(str(error)) from error


def _is_explained(error: Exception) -> bool:
    from tollspan.ledger import (  # noqa: PLC0415 - imported by now: it raised the error
        BillError,
        BudgetSyntaxError,
        ConfigurationError,
        LedgerError,
        PriceFileError,
        QueryError,
    )

    return isinstance(
        error, (BillError, BudgetSyntaxError, ConfigurationError, LedgerError, PriceFileError, QueryError)
    )


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Without a command: `tollspan today`.",
)
@click.option("--ledger", "url", metavar="URL", help="The ledger, as in TOLLSPAN_LEDGER: sqlite:///path, or a path.db.")
@click.version_option(package_name="tollspan", prog_name="tollspan")
@click.pass_context
def cli(ctx: click.Context, url: str | None) -> None:
    """Show what LLM calls cost: spend, budgets and the ledger of every call."""
    ctx.obj = url
    if ctx.invoked_subcommand is None:
        ctx.invoke(today)


@cli.command()
@_zone
@_json
@click.pass_obj
def today(url: str | None, tz: str | None, as_json: bool) -> None:
    """Show what was spent today."""
    from ._today import show  # noqa: PLC0415 - see the module's docstring

    show(url, tz, as_json=as_json)


@cli.command(epilog=_INSTANTS)
@click.option(
    "--by",
    default="model",
    metavar="NAMES",
    show_default=True,
    help="One or more of model, provider, operation, user, profile, session, run, day, hour, status, tag:<name>.",
)
@click.option("--since", metavar="INSTANT", help="Calls that began at or after it. Default: all.")
@click.option("--until", metavar="INSTANT", help="Calls that began before it. Default: all.")
@_zone
@_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header; costs are exact, in USD.")
@click.pass_obj
def report(url: str | None, /, **options: Any) -> None:
    """Show calls, tokens and cost, grouped."""
    from ._report import show  # noqa: PLC0415 - see the module's docstring

    if options["as_json"] and options["as_csv"]:
        raise click.UsageError("--json and --csv exclude each other")
    show(url, **options)


@cli.command()
@click.option("--from", "offset", type=click.IntRange(min=0), help="Begin after this offset; 0 is the first event.")
@click.option("--last", type=click.IntRange(min=0), help="Begin with the last N events. Default: 10, or --limit.")
@click.option("--limit", type=click.IntRange(min=0), help="End after N events.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for events to come, until Ctrl-C.")
@_zone
@_json
@click.pass_obj
def tail(url: str | None, /, **options: Any) -> None:
    """Show events as they come, one on a line, from all processes that write to the ledger.

    A cost with ~ is estimated. The total is that of the events shown.
    """
    from ._tail import show  # noqa: PLC0415 - see the module's docstring

    if options["offset"] is not None and options["last"] is not None:
        raise click.UsageError("--from and --last exclude each other")
    show(url, **options)


@cli.group()
def budget() -> None:
    """Show budgets, and change their limits while processes run."""


@budget.command()
@_json
@click.pass_obj
@click.pass_context
def status(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """Show every budget in its current window; exit status 1 when one is over its limit."""
    from ._budgets import show  # noqa: PLC0415 - see the module's docstring

    ctx.exit(show(url, as_json=as_json))


_until = click.option("--until", metavar="INSTANT", help="When it ends. Default: it holds until it is removed.")


@budget.command("set", epilog=_ENDS)
@click.argument("name")
@click.argument("limit")
@_until
@click.option("--match", multiple=True, metavar="DIM=GLOB", help="Count only calls like user=ada; may be repeated.")
@click.option("--each", metavar="DIM", help="A balance for every value of a dimension, such as user.")
@click.option("--mode", metavar="MODE", help="strict or best_effort. Default: strict.")
@click.option("--on-limit", metavar="WHAT", help="raise, wait, warn or fallback. Default: raise.")
@click.option("--max-wait-timeout-s", type=float, metavar="SECONDS", help="How long `wait` waits. Default: 60.")
@click.option("--fallback-model", metavar="MODEL", help="What is asked instead, with --on-limit fallback.")
@click.option("--warn-at", multiple=True, metavar="SHARE", help="Tell at this share, like 0.8 or 80%; may be repeated.")
@click.option("--timezone", metavar="ZONE", help="IANA time zone of its windows. Default: the setting, UTC.")
@click.option("--output-bound", metavar="BOUND", help="clamp, max, learned, or a number of tokens. Default: clamp.")
@click.option("--cut-stream", metavar="WHAT", help="hold, estimate or drain. Default: hold.")
@click.option("--limit-only", is_flag=True, help="NAME is a budget in code without a window: set only its limit.")
@_json
@click.pass_obj
def set_(url: str | None, /, **options: Any) -> None:
    """Set a limit, in force within a second in every process that uses this ledger.

    NAME is a budget of code or configuration: LIMIT is in force over its own, like "20 USD". Any other NAME is a budget
    of its own, for all calls that match, and LIMIT has a window, like "20 USD / day", "60 requests / rolling minute" or
    "8 concurrent". The options between --match and --cut-stream are for those.
    """
    from . import _override  # noqa: PLC0415 - see the module's docstring

    _override.set_(url, **options)


@budget.command("raise", epilog=_ENDS)
@click.argument("name")
@click.argument("amount")
@_until
@click.option("--lower", is_flag=True, help="Also take an AMOUNT below the limit of now.")
@_json
@click.pass_obj
def raise_(url: str | None, /, **options: Any) -> None:
    """Raise the limit of a budget to AMOUNT, like 20 or "20 USD"; its window stays as it is."""
    from . import _override  # noqa: PLC0415 - see the module's docstring

    _override.raise_(url, **options)


@budget.command()
@click.argument("name")
@_json
@click.pass_obj
def remove(url: str | None, /, **options: Any) -> None:
    """Take back what `set` or `raise` has set for a budget."""
    from . import _override  # noqa: PLC0415 - see the module's docstring

    _override.remove(url, **options)


@cli.command()
@click.argument("call_id")
@click.argument("cost")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stands in the ledger, like: the invoice.")
@_json
@click.pass_obj
def adjust(url: str | None, /, **options: Any) -> None:
    """Correct what a call has cost: to COST in all, in USD, in the budgets and windows where it counts.

    CALL_ID is the id of a call (`tollspan tail --json`), its first digits (at least 8), or the id of a trace with one
    call. History stays as it is: events are added.
    """
    from ._adjust import adjust as correct  # noqa: PLC0415 - see the module's docstring

    correct(url, **options)


@cli.command(epilog=_INSTANTS)
@click.option("--since", metavar="INSTANT", help="Calls that began at or after it. Default: all.")
@click.option("--until", metavar="INSTANT", help="Calls that began before it. Default: all.")
@click.option("--model", metavar="GLOB", help="Only these models, like 'gpt-4o*'.")
@click.option("--provider", metavar="NAME", help="Only this provider, like openai or aws.bedrock.")
@click.option(
    "--prices",
    type=click.Path(exists=True, dir_okay=False),
    help="A file of prices, for a what-if. Default: the setting `prices`.",
)
@click.option("--stated", is_flag=True, help="Also costs that a provider or other instrumentation has stated.")
@click.option("--corrected", is_flag=True, help="Also calls whose cost somebody has corrected by hand.")
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@click.option("--undo", metavar="RUN", help="Take back what a run has written; it tells its name at its end.")
@_zone
@_json
@click.pass_obj
@click.pass_context
def reprice(ctx: click.Context, url: str | None, /, **options: Any) -> None:
    """Compute anew, by today's prices, what past calls cost, and show the difference by day and model.

    Each call that costs something else gets an adjust event, in the windows where it counts. What is interrupted goes
    on when it is run again. Exit status 1 when some calls could not be corrected.
    """
    from . import _reprice  # noqa: PLC0415 - see the module's docstring

    run = options.pop("undo")
    if run is None:
        ctx.exit(_reprice.reprice(url, **options))
    _refuse_others(options, ("as_json",), "--undo RUN takes no other option than --json")
    ctx.exit(_reprice.undo(url, "reprice", run, as_json=options["as_json"]))


@cli.command(epilog="Days are those of the providers, in UTC. " + _INSTANTS)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The export: JSON as the API answers, CSV, or Parquet, .gz too; may be repeated for its further pages.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["openai-costs", "openai-usage", "anthropic-cost", "anthropic-usage", "openrouter", "aws-cur"]),
    help="What the export is. Default: its content tells it.",
)
@click.option("--since", metavar="INSTANT", help="Days that began at or after it. Default: all of the export.")
@click.option("--until", metavar="INSTANT", help="Days that began before it. Default: all of the export.")
@click.option("--map", "same", multiple=True, metavar="EXPORT=LEDGER", help="Two names of one model; may be repeated.")
@click.option(
    "--tolerance",
    default="1%, 0.01 USD",
    show_default=True,
    metavar="SHARE,USD",
    help="How far a row and the total may be off: a share of what is billed or an amount, whichever is more.",
)
@click.option("--adjust", is_flag=True, help="Bring each day of a model that both sides name to what is billed.")
@click.option("--one-sided", is_flag=True, help="With --adjust: also the models that only one side names.")
@click.option("--undo", metavar="RUN", help="Take back what --adjust has written; it tells its name at its end.")
@_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header; costs are exact, in USD.")
@click.pass_obj
@click.pass_context
def reconcile(ctx: click.Context, url: str | None, /, **options: Any) -> None:
    """Compare a provider's export of costs or usage with the ledger, by day and model, and say what may explain it.

    It reads the costs and usage APIs of OpenAI, the cost and usage reports of Anthropic, the activity of OpenRouter,
    the CSV of each of them, and Amazon's Cost and Usage Report (its rows of Bedrock). Exit status 1 when a row or the
    total is out of tolerance.
    """
    from . import _reconcile, _reprice  # noqa: PLC0415 - see the module's docstring

    run, tolerance = options.pop("undo"), ctx.get_parameter_source("tolerance")
    if run is not None:
        given = {**options, "tolerance": tolerance is not click.core.ParameterSource.DEFAULT}
        _refuse_others(given, ("as_json",), "--undo RUN takes no other option than --json")
        ctx.exit(_reprice.undo(url, "reconcile", run, as_json=options["as_json"]))
    if not options["files"]:
        raise click.UsageError("--file is missing: name the provider's export")
    if options["as_json"] and options["as_csv"]:
        raise click.UsageError("--json and --csv exclude each other")
    if options["one_sided"] and not options["adjust"]:
        raise click.UsageError("--one-sided goes with --adjust")
    ctx.exit(_reconcile.show(url, **options))


def _refuse_others(options: dict[str, Any], allowed: tuple[str, ...], text: str) -> None:
    if any(value for name, value in options.items() if name not in allowed):
        raise click.UsageError(text)


@cli.command()
@click.option("--verify", is_flag=True, help="Count all balances anew from the log, and compare.")
@_json
@click.pass_obj
@click.pass_context
def doctor(ctx: click.Context, url: str | None, verify: bool, as_json: bool) -> None:
    """Look for problems: settings, ledger, prices, SDKs; exit status 1 when there is one.

    Holds that ended processes have left are settled on the way.
    """
    from ._doctor import show  # noqa: PLC0415 - see the module's docstring

    ctx.exit(show(url, verify=verify, as_json=as_json))


@cli.group()
def prices() -> None:
    """Show, set, check and renew prices; those of your own are in the file named by TOLLSPAN_PRICES."""


@prices.command("show", epilog=_INSTANTS)
@click.argument("model")
@click.option("--provider", metavar="NAME", help="Whose price. Default: that of the model's maker.")
@click.option("--at", metavar="INSTANT", help="The price at that time. Default: now.")
@click.option("--tier", metavar="NAME", help="The price at a service tier, like batch, flex or priority.")
@_zone
@_json
@click.pass_obj
@click.pass_context
def show_price(ctx: click.Context, url: str | None, /, **options: Any) -> None:
    """Show what MODEL (or PROVIDER/MODEL) costs, and by which list or line; exit status 1 when it has no price."""
    from ._prices import show  # noqa: PLC0415 - see the module's docstring

    ctx.exit(show(url, **options))


@prices.command("set")
@click.argument("model")
@price_options
@_json
@click.pass_obj
def set_price(url: str | None, /, **options: Any) -> None:
    """Write the price of MODEL, a name or a glob, into your price file; it is made where there is none.

    An entry for the same model, provider and dates keeps what is not given here. Comments and order stay.
    """
    from ._price_set import set_  # noqa: PLC0415 - see the module's docstring

    set_(url, **options)


@prices.command()
@_json
@click.pass_obj
@click.pass_context
def check(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """Show what each model of this ledger costs now, and how to price the rest; exit status 1 when there is any."""
    from ._price_check import check as examine  # noqa: PLC0415 - see the module's docstring

    ctx.exit(examine(url, as_json=as_json))


@prices.command()
@_json
def update(as_json: bool) -> None:
    """Install the newest list of prices, by pip. Nothing else ever does, and nothing does so in the background."""
    from ._price_update import update as renew  # noqa: PLC0415 - see the module's docstring

    renew(as_json=as_json)


@cli.command()
@_json
@click.pass_obj
def path(url: str | None, as_json: bool) -> None:
    """Print where the ledger is, whether it exists or not: `datasette $(tollspan path)`."""
    from ._ledgers import ledger_path, settings_for  # noqa: PLC0415 - see the module's docstring

    found = ledger_path(settings_for(url))
    if as_json:
        import json  # noqa: PLC0415 - only here

        click.echo(json.dumps({"path": str(found) if found else None, "exists": bool(found and found.is_file())}))
    else:
        click.echo(found or ":memory:")


@cli.command(epilog=_INSTANTS)
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--format", "form", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("--since", metavar="INSTANT", help="Calls that began at or after it. Default: all.")
@click.option("--until", metavar="INSTANT", help="Calls that began before it. Default: all.")
@_zone
@_json
@click.pass_obj
def export(url: str | None, /, **options: Any) -> None:
    """Write the log to FILE as JSON Lines, or to a folder as Parquet.

    An export that is there already gets what it lacks. FILE - is stdout, for jsonl.
    """
    from . import _archive  # noqa: PLC0415 - see the module's docstring

    if options["form"] == "parquet" and options["file"] == "-":
        raise click.UsageError("Parquet is exported to a folder, not to stdout")
    _archive.export(url, **options)


@cli.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@_json
@click.pass_obj
@click.pass_context
def import_(ctx: click.Context, url: str | None, file: str, as_json: bool) -> None:
    """Store the events of an export (jsonl) in the ledger; exit status 1 when some are left out.

    What is stored already stays as it is, so it may be run again. FILE - is stdin.
    """
    from ._archive import import_ as read  # noqa: PLC0415 - see the module's docstring

    ctx.exit(read(url, file, as_json=as_json))


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False))
@_json
@click.pass_obj
def snapshot(url: str | None, file: str, as_json: bool) -> None:
    """Copy the ledger to FILE, which must not exist; consistent while others write."""
    from ._archive import snapshot as copy  # noqa: PLC0415 - see the module's docstring

    copy(url, file, as_json=as_json)


@cli.command()
@click.option("--keep", "keep_days", type=_DAYS, required=True, help="How long events stay, like 400d; at least 1d.")
@click.option("--dry-run", is_flag=True, help="Only say how many events would go.")
@_json
@click.pass_obj
def prune(url: str | None, keep_days: int, dry_run: bool, as_json: bool) -> None:
    """Delete the events of old calls, while others write; balances stay as they are, and can still be verified.

    The setting `keep_days` does it in the background.
    """
    from ._prune import show  # noqa: PLC0415 - see the module's docstring

    show(url, keep_days=keep_days, dry_run=dry_run, as_json=as_json)


@cli.command()
@click.option("--real", is_flag=True, help="Make a tiny call to each vendor whose key is set, after asking.")
@click.option("--keep", is_flag=True, help="Keep the demo's ledger, and tell where it is.")
@_json
@click.pass_context
def demo(ctx: click.Context, real: bool, keep: bool, as_json: bool) -> None:
    """Show all of it in a minute: local providers, made-up calls, a ledger of its own."""
    from ._demo import run_demo  # noqa: PLC0415 - see the module's docstring

    ctx.exit(run_demo(real=real, as_json=as_json, keep=keep))


def main() -> None:
    """Run the command line; the entry point of `tollspan`."""
    for stream in (sys.stdout, sys.stderr):
        # The name of a model may hold what the terminal's encoding does not have.
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    cli(prog_name="tollspan")
