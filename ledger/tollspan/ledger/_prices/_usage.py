"""What a usage is made of: its counts, the parts of its totals, and where it contradicts itself."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction

from tollspan.ledger._units import BEHIND

DETAIL = ":"
"""Where the detail begins in a usage key such as `images:1024x1024:high`: these are some of the `images`, no others.

A detail has the price under the same words after its unit's price key (`images_kcount:1024x1024:high`), or under fewer
of them; without one, it is charged as its unit is.
"""

Count = int | Fraction
Leaf = tuple[str, Count]
"""A unit and how much of it there is that is in no other leaf."""

Parts = tuple[tuple[str, tuple[str, ...]], ...]
# Parts of a total, innermost first, each with the other parts it is counted in as well. Where the parts of a usage sum
# to more than its total, the later ones are cut: the total is the authority, and the cost is never negative.
INPUT_PARTS: Parts = (
    ("tokens_cache_write_1h", ("tokens_cache_write",)),
    ("tokens_cache_write_5m", ("tokens_cache_write",)),
    ("tokens_cache_write", ()),
    ("tokens_audio_cache_read", ("tokens_audio_in", "tokens_cache_read")),
    ("tokens_image_cache_read", ("tokens_image_in", "tokens_cache_read")),
    ("tokens_audio_in", ()),
    ("tokens_image_in", ()),
    ("tokens_video_in", ()),
    ("tokens_cache_read", ()),
)
OUTPUT_PARTS: Parts = (
    ("tokens_audio_out", ()),
    ("tokens_image_out", ()),
    ("tokens_video_out", ()),
    ("tokens_reasoning", ()),
)
_PARTS: dict[str, Parts] = {"tokens_in": INPUT_PARTS, "tokens_out": OUTPUT_PARTS}
_TOTALS = {part: total for total, parts in _PARTS.items() for part, _ in parts}


def counts_of(usage: Mapping[str, float]) -> dict[str, Count]:
    """Pick the positive numbers of the model's own usage; OverflowError or ValueError for one that is not finite."""
    counts: dict[str, Count] = {}
    for unit, value in usage.items():
        if BEHIND in unit:
            continue
        if type(value) is int:
            if value > 0:
                counts[unit] = value
        elif isinstance(value, int | float | Decimal):
            exact = Fraction(value)
            if exact > 0:
                counts[unit] = exact.numerator if exact.denominator == 1 else exact
    return counts


def details_in(counts: dict[str, Count], rates: Mapping[str, int]) -> list[Leaf]:
    """Take the details out of `counts`, and those with rates of their own out of their units too."""
    leaves: list[Leaf] = []
    for key in [key for key in counts if DETAIL in key]:
        count, unit = counts.pop(key), key.partition(DETAIL)[0]
        priced = nearest(key, rates)
        if DETAIL not in priced or unit not in counts:
            continue
        count = min(count, counts[unit])
        leaves.append((priced, count))
        if not (left := counts[unit] - count):
            del counts[unit]
        else:
            counts[unit] = left
    return leaves


def nearest(key: str, rates: Mapping[str, int]) -> str:
    """The key whose rate a detail is charged at: that of the most of its words that have one, or its unit."""
    while DETAIL in key and key not in rates:
        key = key.rpartition(DETAIL)[0]
    return key


def leaves_of(counts: dict[str, Count], total: str, parts: Parts, *, known: bool) -> list[Leaf]:
    """Take a total and its parts out of `counts`, as (unit, count) pairs that do not overlap."""
    leaves: list[Leaf] = []
    left = counts.pop(total, 0)
    for part, wholes in parts:
        count = counts.pop(part, None)
        if count is None:
            continue
        if known and count > left:
            count = left
        for whole in wholes:
            if whole in counts:
                counts[whole] = max(0, counts[whole] - count)
        leaves.append((part, count))
        left -= count
    if left > 0:
        leaves.append((total, left))
    return leaves


def contradictions(usage: Mapping[str, float]) -> list[str]:
    """Say where the parts of a total are more than all of it, and which counts are negative: neither is charged.

    The texts hold no numbers: the ledger keeps each that differs once, and the numbers stand in the usage.
    """
    found: list[str] = []
    sums: dict[str, float] = {}
    for unit, count in usage.items():
        if type(count) is not int:
            continue
        if count < 0:
            found.append(f"{unit} is below 0: charged as 0")
        elif (total := _TOTALS.get(unit)) is not None:
            sums[total] = sums.get(total, 0) + count
    # A part of a part is in this sum twice: so it says that all is well, or that it takes a closer look.
    for total, most in sums.items():
        whole = usage.get(total)
        if type(whole) is int and most > whole:
            found += _beyond(usage, total, whole)
    return found


def _beyond(usage: Mapping[str, float], total: str, whole: int) -> Iterator[str]:
    parts = {unit: count for unit, count in usage.items() if _TOTALS.get(unit) == total and type(count) is int}
    apart = sum(count for _, count in leaves_of(counts_of(parts), total, _PARTS[total], known=False))
    if apart > whole:
        listed = ", ".join(unit for unit, count in parts.items() if count)
        yield f"{listed} are more than {total}: charged as that"
