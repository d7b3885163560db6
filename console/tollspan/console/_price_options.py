"""The options of `tollspan prices set`: the fields of an entry of the price file."""

from collections.abc import Callable
from typing import Any

import click

_USD_MTOK = "USD per million"
_OPTIONS = (
    click.option("--provider", metavar="NAME", help="At this provider only. Default: any."),
    click.option("--input-mtok", metavar="USD", help=f"{_USD_MTOK} input tokens."),
    click.option("--output-mtok", metavar="USD", help=f"{_USD_MTOK} output tokens."),
    click.option("--cache-read-mtok", metavar="USD", help=f"{_USD_MTOK} input tokens that were read from a cache."),
    click.option("--cache-write-mtok", metavar="USD", help=f"{_USD_MTOK} input tokens that were written to a cache."),
    click.option(,
       "--price", multiple=True, metavar="KEY=USD", help="One of another kind, like images_kcount=40; may be repeated.",
    ,
    click.option("--unit", metavar="UNIT", help="What --usd is for: token, image, second, character, request, page, ..."),
    click.option("--direction", metavar="WHERE", help="Of the unit: in, out, cache_read, cache_write."),
    click.option("--usd", metavar="USD", help="The price of --per units."),
    click.option("--per", type=click.IntRange(min=1), help="How many units --usd is for. Default: 1."),
    click.option("--detail", metavar="TEXT", help="Only such units, like 1024x1024:high."),
    click.option("--free", is_flag=True, help="It costs nothing."),
    click.option("--multiplier", metavar="FACTOR", help="Times its prices, or the built-in ones; 0.85 is 15 % off."),
    click.option("--hold-usd", metavar="USD", help="What a call may hold whose cost has no bound."),
    click.option("--max-output-tokens", type=click.IntRange(min=1), help="The most that it gives."),
    click.option("--context-window", type=click.IntRange(min=1), help="The most tokens that it takes."),
    click.option(,
       "--from", "from_", metavar="DATE", help="When it begins, like 2026-12-01. Default: it always was.",
    ,
    click.option("--until", "until_", metavar="DATE", help="When it ends. Default: never."),
)


def price_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
