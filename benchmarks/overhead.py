"""What tollspan adds to a call: CPU time of the same SDK call bare, with a minimal span, and with tollspan.

    python benchmarks/overhead.py [--calls 600] [--streams 150] [--json]

The three variants take turns in one process against a local provider in another process, so drift of the machine hits
all of them alike. Figures are CPU microseconds: of the calling thread, and of the whole process (with the ledger's
writer). `floor` is the least an instrumentation can do: one wrapt wrapper and one span with 12 attributes.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import wrapt

VARIANTS = ("bare", "floor", "tollspan")
BLOCK, WARM = 15, 8
MESSAGES = [{"role": "user", "content": "Name three rivers of Europe, and the seas they reach."}]
PROVIDER = """
import sys
from tollspan.console import LocalProvider
with LocalProvider(output_tokens=100, chunks=100) as provider:
    print(provider.url, flush=True)
    sys.stdin.read()
"""


class Floor:
    """The minimal instrumentation that everything is compared with."""

    def __init__(self, tracer):
        self.tracer = tracer
        self.patched = []

    def install(self):
        from anthropic.resources.messages.messages import AsyncMessages, Messages
        from openai.resources.chat.completions.completions import AsyncCompletions, Completions

        for owner in (Completions, AsyncCompletions, Messages, AsyncMessages):
            original = vars(owner)["create"]
            wrapper = self._async if owner.__name__.startswith("Async") else self._sync
            self.patched.append((owner, original))
            owner.create = wrapt.FunctionWrapper(original, wrapper)

    def remove(self):
        while self.patched:
            owner, original = self.patched.pop()
            owner.create = original

    def _start(self, kwargs):
        return self.tracer.start_span("chat", attributes={f"gen_ai.request.a{i}": kwargs["model"] for i in range(6)})

    def _end(self, span):
        span.set_attributes({f"gen_ai.usage.b{i}": i for i in range(6)})
        span.end()

    def _sync(self, wrapped, _instance, args, kwargs):
        span = self._start(kwargs)
        result = wrapped(*args, **kwargs)
        self._end(span)
        return result

    async def _async(self, wrapped, _instance, args, kwargs):
        span = self._start(kwargs)
        result = await wrapped(*args, **kwargs)
        self._end(span)
        return result


def provider():
    """A local provider in a process of its own, so that its CPU time is not ours."""
    command = [sys.executable, "-c", PROVIDER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def tracing():
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    traces = TracerProvider()
    traces.add_span_processor(SpanProcessor())
    trace.set_tracer_provider(traces)
    return traces.get_tracer("floor")


def surfaces(url):
    """Each surface as a function that makes one call; async ones run on one loop that stays."""
    import anthropic
    import openai

    o = openai.OpenAI(base_url=f"{url}/v1", api_key="local")
    ao = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="local")
    a = anthropic.Anthropic(base_url=url, api_key="local", **_native_off(anthropic))
    loop = asyncio.new_event_loop()
    chat = {"model": "gpt-4o-mini", "messages": MESSAGES, "max_tokens": 100}
    claude = {"model": "claude-sonnet-4-5", "messages": MESSAGES, "max_tokens": 100}
    # The caller asks for usage itself, so that all variants read the same chunks.
    usage = {"stream": True, "stream_options": {"include_usage": True}}

    async def astream():
        async for _ in await ao.chat.completions.create(**chat, **usage):
            pass

    def close():
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    return close, {
        "openai chat": lambda: o.chat.completions.create(**chat),
        "openai chat, async": lambda: loop.run_until_complete(ao.chat.completions.create(**chat)),
        "anthropic messages": lambda: a.messages.create(**claude),
        "openai stream of 100 chunks": lambda: drain(o.chat.completions.create(**chat, **usage)),
        "openai stream of 100 chunks, async": lambda: loop.run_until_complete(astream()),
        "anthropic stream of 100 chunks": lambda: drain(a.messages.create(**claude, stream=True)),
    }


def _native_off(anthropic):
    """Anthropic's SDK makes, from version 2 on, spans of its own; their cost is not ours."""
    import inspect

    return {"open_telemetry": False} if "open_telemetry" in inspect.signature(anthropic.Anthropic).parameters else {}


def drain(stream):
    for _ in stream:
        pass


@contextmanager
def variant(name, floor):
    from tollspan.instrumentation import instrument, uninstrument

    switches = {"bare": (int, int), "floor": (floor.install, floor.remove), "tollspan": (instrument, uninstrument)}
    install, remove = switches[name]
    install()
    try:
        yield
    finally:
        remove()


def measure(call: Callable[[], object], calls: int, floor: Floor):
    """CPU microseconds of a call, by variant: of the thread and of the process, a median for each block of calls.

    The variants take turns in blocks. The first calls after a switch are not counted: patching a class makes the
    interpreter forget what it had specialised, and no application patches its SDK between two calls.
    """
    figures = {name: ([], []) for name in VARIANTS}
    for number in range(max(4, calls // BLOCK)):
        for name in VARIANTS if number % 2 else reversed(VARIANTS):
            with variant(name, floor):
                for _ in range(WARM):
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
    def added(name, which):
        pairs = [b - a for a, b in zip(figures["bare"][which], figures[name][which], strict=True)]
        low, middle, high = statistics.quantiles(pairs, n=4)
        return {"median": round(middle, 1), "quartiles": [round(low, 1), round(high, 1)]}

    return {
        "bare_us": round(statistics.median(figures["bare"][0]), 1),
        "floor_added_us": added("floor", 0),
        "tollspan_added_us": added("tollspan", 0),
        "tollspan_added_process_us": added("tollspan", 1),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--calls", type=int, default=600)
    arguments.add_argument("--streams", type=int, default=150)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOLLSPAN_LEDGER"] = f"sqlite:///{Path(folder) / 'ledger.db'}"
        process, url = provider()
        try:
            floor = Floor(tracing())
            close, calls = surfaces(url)
            results = {
                name: summary(measure(call, options.streams if "stream" in name else options.calls, floor))
                for name, call in calls.items()
            }
            close()
        finally:
            process.terminate()
    print(json.dumps(results, indent=1) if options.json else table(results))


def table(results):
    def cell(figure):
        return f"{figure['median']:>8.1f} ({figure['quartiles'][0]:.0f} to {figure['quartiles'][1]:.0f})"

    lines = [f"{'CPU us':<36}{'bare':>9}  {'+ floor':<22}{'+ tollspan':<22}{'+ with the writer':<22}"]
    lines += [
        f"{name:<36}{r['bare_us']:>9.1f}  {cell(r['floor_added_us']):<22}{cell(r['tollspan_added_us']):<22}"
        f"{cell(r['tollspan_added_process_us']):<22}"
        for name, r in results.items()
    ]
    return "\n".join([*lines, "medians of the differences between blocks, quartiles in parentheses"])


if __name__ == "__main__":
    main()
