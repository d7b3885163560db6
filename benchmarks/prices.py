"""What prices cost: CPU time to find and apply one, to miss one, to bound a call before it is sent, and to load them.

    python benchmarks/prices.py [--rounds 25] [--only resolve,miss,hold,cold] [--json]

Ours and a floor take turns, so drift of the machine hits both alike. The floor of a price is the least that anybody has
to do: one look-up in a dict, and products of whole numbers for the same units. That of a bound is the length of the
request as orjson writes it. Times are CPU microseconds of the thread, medians of the rounds, with quartiles; goals are
for a quiet machine, and nothing fails where one is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import orjson
from ledger import Figure

from tollspan.instrumentation._readers._openai._chat import OPENAI_CHAT
from tollspan.ledger import PriceBook, RateCard

AT = 1_795_000_000.0
URL = "https://api.openai.com"
USAGES = {
    "input and output": {"tokens_in": 1200, "tokens_out": 300},
    "cache, reasoning, a search": {
        "tokens_in": 9000, "tokens_out": 700, "tokens_cache_read": 8000, "tokens_reasoning": 500, "web_searches": 1,
    },
}  # fmt: skip
IN_A_PROCESS = """
import time
began = time.process_time()
from tollspan.ledger import PriceBook
imported = time.process_time()
book = PriceBook()
book.resolve(provider="openai", model="gpt-5.5", at=1.795e9)
first = time.process_time()
for _ in range(50):
    book.resolve(provider="openai", model=f"gpt-{_}", at=1.795e9)
print((imported - began) * 1000, (first - imported) * 1000, (time.process_time() - first) * 1000 / 50)
"""


class InTime(Figure):
    """A figure whose goal is for the time itself; the ratio to the floor is told beside it."""

    def summary(self):
        found = super().summary()
        return found | {"met": None if self.goal is None else found["ours"]["median"] <= self.goal}

    def line(self):
        line = super().line()
        return line.replace(f"<= {self.goal:g}x", f"<= {self.goal:g} {self.unit}") if self.goal is not None else line


def cpu_us(action: Callable[[], object], times: int) -> float:
    began = time.thread_time_ns()
    for _ in range(times):
        action()
    return (time.thread_time_ns() - began) / times / 1000


Action = Callable[[], object]


def beside(name: str, goal: float | None, ours: Action, floor: Action, *, rounds: int, times: int = 2000) -> Figure:
    figure = InTime(name, "us", [], [], goal)
    ours(), floor()
    for _ in range(rounds):
        figure.ours.append(cpu_us(ours, times))
        figure.floor.append(cpu_us(floor, times))
    return figure


def resolve(options: argparse.Namespace) -> Iterator[Figure]:
    """A settled call: its card, found for the call's own moment and tier, and its cost."""
    book = PriceBook()
    asked = {"provider": "openai", "model": "gpt-5.5", "base_url": URL, "at": AT, "service_tier": "default"}
    card = book.resolve(**asked)
    for name, usage in USAGES.items():
        floor = bare(card, usage)
        yield beside(
            f"resolve + cost, warm: {name}",
            8,
            lambda u=usage: book.resolve(**asked).cost(u),
            floor,
            rounds=options.rounds,
        )
        yield beside(f"doubts of it: {name}", None, lambda u=usage: card.doubts(u), floor, rounds=options.rounds)


def bare(card: RateCard, usage: dict[str, int]) -> Action:
    """What nobody can do without: the card by its key, and a product for each unit."""
    cards = {("openai", "gpt-5.5", URL, "default", None, int(AT // 900)): card.tiers[0].rates}

    def cost() -> int:
        rates = cards["openai", "gpt-5.5", URL, "default", None, int(AT // 900)]
        return sum(rates[unit] * count for unit, count in usage.items()) // 10**6

    return cost


def miss(options: argparse.Namespace) -> Iterator[Figure]:
    """A model that no list has, asked for again: the answer is remembered."""
    book, known = PriceBook(), {("nobody", "gpt-99", URL, None, None, int(AT // 900)): None}
    asked = {"provider": "nobody", "model": "gpt-99", "base_url": URL, "at": AT}
    yield beside(
        "miss, remembered", 2, lambda: book.resolve(**asked),
        lambda: known["nobody", "gpt-99", URL, None, None, int(AT // 900)], rounds=options.rounds,
    )  # fmt: skip


def hold(options: argparse.Namespace) -> Iterator[Figure]:
    """What a call may cost at the most: its request read and walked, its card, and the bound in nano-USD."""
    book = PriceBook()
    sizes = {"a small request": (200, 10, 2000), "a prompt of 100 KB": (100_000, 200, 100)}
    for name, (size, goal, times) in sizes.items():
        words = "the toll of every call is paid before it passes " * (size // 48 + 1)
        parts = [words[at : at + 2000] for at in range(0, size, 2000)]
        body = {
            "model": "gpt-5.5",
            "max_tokens": 500,
            "messages": [{"role": "user", "content": part[:size]} for part in parts],
        }

        def ours(body=body):
            facts = OPENAI_CHAT.request(body)
            card = book.resolve(provider="openai", model=facts.model, base_url=URL, at=AT)
            return card.bound(card.most_input(facts.input_tokens_bound), choices=facts.choices).nano(500)

        yield beside(
            f"hold: {name}", goal, ours, lambda body=body: len(orjson.dumps(body)), rounds=options.rounds, times=times
        )


def cold(options: argparse.Namespace) -> Iterator[Figure]:
    """A process of its own: importing, the first look-up with its lists, and other models after it. Milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command, found = [sys.executable, "-c", IN_A_PROCESS], []
        for _ in range(min(options.rounds, 7) + 1):  # the first one writes the bytecode
            done = subprocess.run(
                command, env=environment | {"PYTHONPYCACHEPREFIX": folder}, check=True, capture_output=True, text=True
            )
            found.append([float(word) for word in done.stdout.split()])
    for name, figures in zip(
        ("import of PriceBook", "first look-up, with both lists", "another model, not seen before"),
        zip(*found[1:], strict=True), strict=True,
    ):  # fmt: skip
        yield InTime(name, "ms", list(figures))


MEASUREMENTS = {"resolve": resolve, "miss": miss, "hold": hold, "cold": cold}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=25)
    arguments.add_argument("--only", default=",".join(MEASUREMENTS), metavar="NAME,...")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    if unknown := set(options.only.split(",")) - set(MEASUREMENTS):
        arguments.error(f"{', '.join(sorted(unknown))}: there is {', '.join(MEASUREMENTS)}")
    if not options.json:
        print(f"{'':<52}{'':<10}{'ours':<26}{'floor':<26}{'ours / floor':<22}goal", flush=True)
    results = {}
    for name in options.only.split(","):
        for figure in MEASUREMENTS[name](options):
            results[figure.name] = figure.summary()
            if not options.json:
                print(figure.line(), flush=True)
    print(json.dumps(results, indent=1) if options.json else "medians of the rounds, quartiles in parentheses")


if __name__ == "__main__":
    main()
