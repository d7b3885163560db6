"""The options of `tollspan prices set`: the fields of an entry of the price file."""

from collections.abc import Callable
from typing import Any

import click

_MTOK = "USD per million"
_OPTIONS = (
    click.option("--provider", metavar="NAME", help="At this provider only. Default: any."),
    click.option("--input-mtok", metavar="USD", help=f"{_MTOK} input tokens."),
    click.option("--output-mtok", metavar="USD", help=f"{_MTOK} output tokens."),
    click.option("--cache-read-mtok", metavar="USD", help=f"{_MTOK} input tokens that were read from a cache."),
    click.option("--cache-write-mtok", metavar="USD", help=f"{_MTOK} input tokens that were written to a cache."),
    click.option("--price", multiple=True, metavar="KEY=USD", help="Another, like images_kcount=40; may be repeated."),
    click.option("--unit", metavar="UNIT", help="What --usd is for: token, image, second, character, request, ..."),
    click.option("--direction", metavar="WHERE", help="Of the unit: in, out, cache_read, cache_write."),
    click.option("--usd", metavar="USD", help="The price of --per units."),
    click.option("--per", type=click.IntRange(min=1), help="How many units --usd is for. Default: 1."),
    click.option("--detail", metavar="TEXT", help="Only such units, like 1024x1024:high."),
    click.option("--free", is_flag=True, help="It costs nothing."),
    click.option("--add", is_flag=True, help="The prices stand beside the built-in ones, which hold for the rest."),
    click.option("--multiplier", metavar="FACTOR", help="Times its prices, or the built-in ones; 0.85 is 15 % off."),
    click.option("--hold-usd", metavar="USD", help="What a call may hold whose cost has no bound."),
    click.option("--max-output-tokens", type=click.IntRange(min=1), help="The most that it gives."),
    click.option("--context-window", type=click.IntRange(min=1), help="The most tokens that it takes."),
    click.option("--as", "alias_of", metavar="MODEL", help="It is another name of MODEL, like gpt-4o or azure/gpt-4o."),
    click.option("--service-tier", metavar="NAME", help="At this service tier only, like batch. Default: any."),
    click.option("--from", "from_", metavar="DATE", help="When it begins, like 2026-12-01. Default: it always was."),
    click.option("--until", "until_", metavar="DATE", help="When it ends, like 2027-01-01. Default: never."),
)


def price_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
