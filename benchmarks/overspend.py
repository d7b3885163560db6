"""Whether strict budgets hold, and how much of them can be used: what the provider billed, by its own book, by limit.

    python benchmarks/overspend.py [--rounds 3] [--quick] [--json]

Callers use the vendors' SDKs, with a local provider in a process of its own. The limit is the price of 100 calls. They
go on until the budget is spent (`BudgetExhausted`); one who meets `BudgetBusy` tries again 20 ms later. `max` is a
request's max_tokens: as long as the answer, or twice that; `unset` is cut to what the remainder buys where that is less
than the model's maximum, and `output_bound="max"` holds the whole of it. `cut` counts the answers that this made
shorter.

The exit status is 1 where a strict budget was passed, a hold was left, a call failed, or the bills, the events and the
counters differ. How much was used has goals, and nothing fails where one is missed. The last lines are there for
comparison: budgets that are not strict.
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tollspan.budget import BudgetBusy, BudgetExhausted, budget
from tollspan.console import Answer, LocalProvider
from tollspan.exporter import Pipeline, pipeline, use_pipeline
from tollspan.instrumentation import instrument
from tollspan.ledger import load_settings

CALLS = 100
PROMPT_TOKENS, ANSWER_TOKENS = 100, 400
PROMPT = "word " * (PROMPT_TOKENS * 4 // 5)
PRICES = {"openai": (Decimal("2.5"), Decimal(10)), "anthropic": (Decimal(3), Decimal(15))}
"""USD for a million tokens of input and of output: of gpt-4o and of claude-sonnet-4-5."""
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5"}
ANSWERS_AFTER_S, PAUSE_S, PATIENCE_S = 0.02, 0.02, 120
MOST = 50 * CALLS  # tries of one caller, lest a budget that never says that it is spent keeps us for ever


@dataclass(frozen=True)
class Callers:
    name: str
    processes: int
    each: int
    tasks: bool = False


@dataclass(frozen=True)
class Request:
    name: str
    sdk: str = "openai"
    max_tokens: int | None = None
    output_bound: str = "clamp"


ALONE, THREADS = Callers("sequential", 1, 1), Callers("50 threads", 1, 50)
TASKS, PROCESSES = Callers("50 tasks", 1, 50, tasks=True), Callers("4 processes, 12 threads", 4, 12)
EXACT = Request("max = answer", max_tokens=ANSWER_TOKENS)
TWICE = Request("max = 2 x answer", max_tokens=2 * ANSWER_TOKENS)
UNSET = Request("unset")
WHOLE = Request('unset, output_bound="max"', output_bound="max")
CLAUDE = Request("anthropic, max = 2 x answer", "anthropic", 2 * ANSWER_TOKENS)


@dataclass(frozen=True)
class Cell:
    """One line of the table: who calls, what they ask for, and what the budget does."""

    callers: Callers
    request: Request
    on_limit: str = "raise"
    mode: str = "strict"
    answers_after_s: float = ANSWERS_AFTER_S

    @property
    def strict(self) -> bool:
        return self.mode == "strict" and self.on_limit != "warn"

    @property
    def price(self) -> Decimal:
        """USD of a call, uncut."""
        of_input, of_output = PRICES[self.request.sdk]
        return (of_input * PROMPT_TOKENS + of_output * ANSWER_TOKENS).scaleb(-6)

    @property
    def limit(self) -> Decimal:
        return CALLS * self.price

    @property
    def goal(self) -> float | None:
        """How much of the limit should be used, at the least."""
        if not self.strict or self.request.max_tokens is None:
            return None
        return 0.95 if self.on_limit == "wait" else 0.80

    def budget(self) -> budget:
        limited = f"{self.limit} USD / total"
        bound = self.request.output_bound
        return budget(limited, name="overspend", mode=self.mode, on_limit=self.on_limit, output_bound=bound)

    def described(self) -> dict[str, str]:
        what = self.on_limit if self.mode == "strict" else self.mode
        slow = f", answers after {self.answers_after_s:g} s" if self.answers_after_s != ANSWERS_AFTER_S else ""
        return {"callers": self.callers.name, "budget": what, "request": self.request.name + slow}


@dataclass
class Seen:
    """What came of a cell: USD billed over the limit, answers, answers made shorter, refusals, what was wrong."""

    used: float
    sent: int
    cut: int
    refused: int
    seconds: float
    wrong: list[str] = field(default_factory=list)


# ---- processes


class Helper:
    """A process that answers what it is asked, through a pipe; `target` gets its end of it."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, what: Any) -> None:
        self._pipe.send(what)

    def hear(self) -> Any:
        if not self._pipe.poll(PATIENCE_S):
            raise TimeoutError(f"no answer within {PATIENCE_S} s")
        return self._pipe.recv()

    def end(self) -> None:
        self._process.terminate()
        self._process.join()


def provide(pipe: Connection) -> None:
    """Two vendors, each with a book of its own, which is begun anew when they are told how late to answer.

    Told None, they say what stands in it: by vendor the tokens of output of each bill, and the sum in USD.
    """
    late_s = 0.0

    def answer(_):
        return Answer(input_tokens=PROMPT_TOKENS, output_tokens=ANSWER_TOKENS, fault=f"hang={late_s}")

    vendors = {sdk: LocalProvider(price=price, answer=answer).start() for sdk, price in PRICES.items()}
    pipe.send({"openai": vendors["openai"].openai_url, "anthropic": vendors["anthropic"].anthropic_url})
    while True:
        told = pipe.recv()
        if told is None:
            pipe.send({k: ([bill.output_tokens for bill in v.billed], v.billed_usd()) for k, v in vendors.items()})
        else:
            late_s = told
            for vendor in vendors.values():
                vendor.billed.clear()


def call_when_told(pipe: Connection, urls: dict[str, str]) -> None:
    """Make the calls of one process, cell after cell: told of one get ready, told to go go, then say what was met."""
    import anthropic
    import openai

    instrument()
    o = openai.OpenAI(base_url=urls["openai"], api_key="local")
    a = anthropic.Anthropic(base_url=urls["anthropic"], api_key="local")
    creates = {"openai": o.chat.completions.create, "anthropic": a.messages.create}
    while True:
        cell, ledger = pipe.recv()
        with opened(ledger):
            pipe.send("ready")
            pipe.recv()
            if cell.callers.tasks:
                met = asyncio.run(in_tasks(cell, urls))
            else:
                met = in_threads(cell, creates[cell.request.sdk])
        pipe.send(met)


class opened:  # noqa: N801 - used like a function
    """A ledger as the one of this process, for the length of a block."""

    def __init__(self, path: Path) -> None:
        self._line = Pipeline(load_settings(environ={}, directory=path.parent, ledger=f"sqlite:///{path}"))

    def __enter__(self) -> Pipeline:
        use_pipeline(self._line)
        return self._line

    def __exit__(self, *exception: object) -> None:
        use_pipeline(None)
        self._line.close()


# ---- callers


def in_threads(cell: Cell, create: Callable[..., object]) -> Counter[str]:
    def caller(_):
        met, left = Counter(), MOST
        with cell.budget():
            while (left := left - 1) and not met["exhausted"]:
                try:
                    create(**asked(cell.request))
                    met["sent"] += 1
                except Exception as error:  # noqa: BLE001 - counted, and the cell fails
                    met[kind(error)] += 1
                    time.sleep(PAUSE_S)
        return met

    with ThreadPoolExecutor(cell.callers.each) as pool:
        return sum(pool.map(caller, range(cell.callers.each)), Counter())


async def in_tasks(cell: Cell, urls: dict[str, str]) -> Counter[str]:
    import anthropic
    import openai

    async with (
        openai.AsyncOpenAI(base_url=urls["openai"], api_key="local") as o,
        anthropic.AsyncAnthropic(base_url=urls["anthropic"], api_key="local") as a,
    ):
        create = o.chat.completions.create if cell.request.sdk == "openai" else a.messages.create

        async def caller():
            met, left = Counter(), MOST
            async with cell.budget():
                while (left := left - 1) and not met["exhausted"]:
                    try:
                        await create(**asked(cell.request))
                        met["sent"] += 1
                    except Exception as error:  # noqa: BLE001 - counted, and the cell fails
                        met[kind(error)] += 1
                        await asyncio.sleep(PAUSE_S)
            return met

        return sum(await asyncio.gather(*(caller() for _ in range(cell.callers.each))), Counter())


def asked(request: Request) -> dict[str, Any]:
    body = {"model": MODELS[request.sdk], "messages": [{"role": "user", "content": PROMPT}]}
    return body if request.max_tokens is None else body | {"max_tokens": request.max_tokens}


def kind(error: Exception) -> str:
    if isinstance(error, BudgetBusy):
        return "busy"
    return "exhausted" if isinstance(error, BudgetExhausted) else type(error).__name__


# ---- the table


class Bench:
    """The provider and the callers' processes, which stay for the whole run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._provider = Helper(provide)
        urls = self._provider.hear()
        self._callers = [Helper(call_when_told, urls) for _ in range(4)]

    def end(self) -> None:
        for helper in (*self._callers, self._provider):
            helper.end()

    def run(self, cell: Cell) -> Seen:
        self._provider.tell(cell.answers_after_s)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder) / "ledger.db"
            met, seconds = self._calls(cell, path)
            self._provider.tell(None)
            outputs, billed = self._provider.hear()[cell.request.sdk]
            with opened(path):
                wrong = differences(cell, met, len(outputs), billed)
        cut = sum(tokens < ANSWER_TOKENS for tokens in outputs)
        refused = met["busy"] + met["exhausted"]
        return Seen(float(billed / cell.limit), len(outputs), cut, refused, seconds, wrong)

    def _calls(self, cell: Cell, path: Path) -> tuple[Counter[str], float]:
        helpers = self._callers[: cell.callers.processes]
        for helper in helpers:
            helper.tell((cell, path))
        for helper in helpers:
            helper.hear()
        began = time.perf_counter()
        for helper in helpers:
            helper.tell("go")
        return sum((helper.hear() for helper in helpers), Counter()), time.perf_counter() - began


def differences(cell: Cell, met: Counter[str], answers: int, billed: Decimal) -> list[str]:
    """What must not be: the limit passed, a hold left, a call that failed, books that say different things."""
    ledger = pipeline().ledger
    with cell.budget() as counted:
        spent, held = counted.spent, counted.held
    logged = sum((event.spend_usd or Decimal(0) for event in ledger.events), Decimal(0))
    open_holds, wrong_counters = ledger.open_holds().calls, ledger.verify()
    failed = {name: count for name, count in met.items() if name not in {"sent", "busy", "exhausted"}}
    never_told = cell.callers.processes * cell.callers.each - met["exhausted"]
    found = {
        f"{billed} USD were billed, the limit is {cell.limit}": cell.strict and billed > cell.limit,
        f"{open_holds} calls hold {held:f} USD": open_holds or held,
        f"the counters are not what the events say: {wrong_counters}": wrong_counters,
        f"{billed} USD were billed, {spent} counted, {logged} are in the events": not billed == spent == logged,
        f"{answers} answers were billed, {met['sent']} came": answers != met["sent"],
        f"calls failed: {failed}": failed,
        f"{never_told} callers were never told that the budget is spent": never_told,
    }
    return [what for what, wrong in found.items() if wrong]


def cells(*, quick: bool) -> Iterator[Cell]:
    callers = (THREADS, PROCESSES) if quick else (ALONE, THREADS, TASKS, PROCESSES)
    for who in callers:
        for request in (TWICE, UNSET) if quick else (EXACT, TWICE, UNSET, WHOLE, CLAUDE):
            for on_limit in ("raise", "wait"):
                yield Cell(who, request, on_limit)
    yield Cell(THREADS, TWICE, mode="best_effort")
    if not quick:
        yield Cell(THREADS, TWICE, mode="best_effort", answers_after_s=1)
        yield Cell(ALONE, TWICE, mode="best_effort")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--quick", action="store_true", help="one round of a third of the table: half a minute")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    rounds = 1 if options.quick else options.rounds
    if not options.json:
        print(head(), flush=True)
    with tempfile.TemporaryDirectory(prefix="tollspan-benchmark-") as folder:
        bench, results = Bench(Path(folder)), []
        try:
            for cell in cells(quick=options.quick):
                seen = [bench.run(cell) for _ in range(rounds)]
                results.append({**cell.described(), "goal": cell.goal, "rounds": [asdict(one) for one in seen]})
                if not options.json:
                    print(line(cell, seen), flush=True)
        finally:
            bench.end()
    failed = any(one["wrong"] for result in results for one in result["rounds"])
    held = "strict budgets held, no hold was left, and bills, events and counters agree"
    print(
        json.dumps(results, indent=1)
        if options.json
        else f"lowest to highest of the rounds; {'FAILED' if failed else held}"
    )
    return int(failed)


def head() -> str:
    names = f"{'callers':<25}{'budget':<13}{'request':<38}{'billed / limit':<18}"
    return f"{names}{'sent':<12}{'cut':<8}{'refused':<14}{'seconds':<14}goal"


def line(cell: Cell, seen: list[Seen]) -> str:
    def cell_of(name: str, digits: int = 0) -> str:
        values = sorted(getattr(one, name) for one in seen)
        low, high = (f"{value:.{digits}f}" for value in (values[0], values[-1]))
        return low if low == high else f"{low} to {high}"

    what = cell.described()
    text = f"{what['callers']:<25}{what['budget']:<13}{what['request']:<38}{cell_of('used', 3):<18}"
    text += f"{cell_of('sent'):<12}{cell_of('cut'):<8}{cell_of('refused'):<14}{cell_of('seconds', 1):<14}"
    if cell.strict:
        text += "<= 1" if cell.goal is None else f"{cell.goal} to 1"
        text += "" if cell.goal is None or min(one.used for one in seen) >= cell.goal else "  missed"
    wrong = dict.fromkeys(what for one in seen for what in one.wrong)
    return "\n".join([text.rstrip(), *(f"    FAILED: {what}" for what in wrong)])


if __name__ == "__main__":
    sys.exit(main())
