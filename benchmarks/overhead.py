"""What tollspan adds to a call: CPU time of the same SDK call bare, with a minimal span, with tollspan, with its peers.

    python benchmarks/overhead.py [--calls 600] [--streams 150] [--only openai,gemini,...] [--json]

The variants take turns in one process against a server of fixed answers in another process, so drift of the machine
hits all of them alike. Figures are CPU microseconds that a variant adds, of the calling thread; tollspan's also of the
whole process, with the ledger's writer. `floor` is the least an instrumentation can do: one wrapt wrapper and one span
with 12 attributes. What a chunk costs is the difference between streams of 100 and of 10. OpenAI, Anthropic, Gemini
and Bedrock are measured where their SDKs are installed, and so are OpenTelemetry's and OpenLLMetry's instrumentations.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _surfaces import PIECES, VENDORS, Calls, surfaces
from _variants import Variant, variants

BLOCK, WARM = 15, 8
GOALS = {"call": 80.0, "chunk": 1.0}
"""CPU microseconds that tollspan may add, on a quiet machine."""


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server in a process of its own, so that its CPU time is not ours."""
    command = [sys.executable, str(Path(__file__).with_name("_answers.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@contextmanager
def in_place(variant: Variant) -> Iterator[None]:
    variant.install()
    try:
        yield
    finally:
        variant.remove()


class Vendor:
    """One SDK and all variants of it, each with clients of its own: some peers instrument a client when it is made."""

    def __init__(self, name: str, url: str, missing: Callable[[str], None]) -> None:
        self.loop = asyncio.new_event_loop()
        self.variants = variants(name, missing)
        self.calls: dict[str, Calls] = {}
        for way, variant in self.variants.items():
            self.calls[way] = Calls(self.loop)
            with in_place(variant):
                VENDORS[name](self.calls[way], url)

    def close(self) -> None:
        for calls in self.calls.values():
            calls.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def measure(self, surface: str, calls: int) -> dict[str, tuple[list[float], list[float]]]:
        """CPU microseconds of a call, by variant: of the thread and of the process, a median for each block of calls.

        The variants take turns in blocks. The first calls after a switch are not counted: patching a class makes the
        interpreter forget what it had specialised, and no application patches its SDK between two calls.
        """
        figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in self.variants}
        for number in range(max(4, calls // BLOCK)):
            for name in self.variants if number % 2 else reversed(self.variants):
                call = self.calls[name].by_name[surface]
                with in_place(self.variants[name]):
                    for _ in range(2 if "stream" in surface else WARM):
                        call()
                    timed = [timed_call(call) for _ in range(BLOCK)]
                for which in (0, 1):
                    figures[name][which].append(statistics.median(figure[which] for figure in timed))
        return figures


def timed_call(call):
    gc.disable()
    thread, process = time.thread_time_ns(), time.process_time_ns()
    call()
    thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
    gc.enable()
    return thread / 1000, process / 1000


def summary(figures):
    """The bare call, and what each variant adds to it: median and quartiles of the differences between blocks."""

    def added(name, which):
        pairs = [b - a for a, b in zip(figures["bare"][which], figures[name][which], strict=True)]
        low, middle, high = statistics.quantiles(pairs, n=4)
        return {"median": round(middle, 1), "quartiles": [round(low, 1), round(high, 1)]}

    return {
        "bare_us": round(statistics.median(figures["bare"][0]), 1),
        "added_us": {name: added(name, 0) for name in figures if name != "bare"},
        "tollspan_added_process_us": added("tollspan", 1),
    }


def per_chunk(results):
    """What each variant adds for a chunk of a stream, in CPU microseconds: the slope between two lengths."""
    (long, most), (short, least) = PIECES.items()
    slopes = {}
    for end in ("", ", async"):
        if f"{long}{end}" in results:
            ends = results[f"{long}{end}"]["added_us"], results[f"{short}{end}"]["added_us"]
            slopes[f"chunk{end}"] = {
                name: round((ends[0][name]["median"] - ends[1][name]["median"]) / (most - least), 2) for name in ends[0]
            }
    return slopes


def measured(name, url, options, missing):
    """The figures of a vendor, by surface; None where its SDK is not installed."""
    try:
        vendor = Vendor(name, url, missing)
    except ImportError as error:
        missing(f"{name}: {error}")
        return None
    try:
        known = [surface for surface in surfaces() if surface in vendor.calls["bare"].by_name]
        results = {
            surface: summary(vendor.measure(surface, options.streams if "stream" in surface else options.calls))
            for surface in known
        }
    finally:
        vendor.close()
    return {"surfaces": results, "chunk_added_us": per_chunk(results)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--calls", type=int, default=600)
    arguments.add_argument("--streams", type=int, default=150)
    arguments.add_argument("--only", default=",".join(VENDORS), help="vendors, joined by commas")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    quiet()
    left_out: list[str] = []
    results = {}
    with tempfile.TemporaryDirectory() as folder, server() as url:
        os.environ["TOLLSPAN_LEDGER"] = f"sqlite:///{Path(folder) / 'ledger.db'}"
        for name in options.only.split(","):
            figures = measured(name, url, options, left_out.append)
            if figures:
                results[name] = figures
                if not options.json:
                    print(table(name, figures), end="\n\n", flush=True)
    document = {"results": results, "left_out": left_out, "goals_us": GOALS}
    print(json.dumps(document, indent=1) if options.json else legend(left_out))


def quiet():
    """Peers warn of much that does not matter here, such as of the versions that they were made for."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def table(vendor, figures):
    def cell(figure):
        return f"{figure['median']:>8.1f} ({figure['quartiles'][0]:.0f} to {figure['quartiles'][1]:.0f})"

    surfaces, chunks = figures["surfaces"], figures["chunk_added_us"]
    ways = list(next(iter(surfaces.values()))["added_us"])
    heads = [*ways, "tollspan with its writer"]
    lines = [f"{vendor + ', CPU us':<24}{'bare':>9}  " + "".join(f"{'+ ' + head:<26}" for head in heads)]
    for name, result in surfaces.items():
        cells = [*(result["added_us"][way] for way in ways), result["tollspan_added_process_us"]]
        lines.append(f"{name:<24}{result['bare_us']:>9.1f}  " + "".join(f"{cell(c):<26}" for c in cells))
    for name, slopes in chunks.items():
        lines.append(f"{name:<24}{'':>9}  " + "".join(f"{slopes[way]:>8.2f}{'':<18}" for way in ways))
    return "\n".join(lines)


def legend(left_out):
    lines = ["medians of the differences between blocks, quartiles in parentheses"]
    lines += [f"goals on a quiet machine: at most {GOALS['call']:.0f} us a call, {GOALS['chunk']:.0f} us a chunk"]
    return "\n".join([*lines, *(f"left out: {what}" for what in left_out)])


if __name__ == "__main__":
    main()
