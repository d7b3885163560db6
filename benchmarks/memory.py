"""What tollspan keeps in memory: resident size and objects of a process over many calls, beside the same calls bare.

    python benchmarks/memory.py [--calls 100000] [--json]

Each variant is a process of its own that makes calls of OpenAI's SDK, every tenth of them a stream, against a transport
in memory; each answer has an id of its own. It is looked at ten times. What matters is the slope over the last eight of
them, in bytes and in objects for each call: a flat one is 0. What is remembered of the latest calls has an upper bound,
and is full after 16,384 of them: with fewer than 100,000 calls that shows in the slope.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path

from _answers import openai_answer, openai_stream
from _surfaces import MESSAGES, drain

LOOKS, SETTLED, PIECES = 10, 2, 10


def caller() -> Callable[[int], None]:
    """The n-th call."""
    import openai

    http = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])  # httpx, or httpx2
    answer, stream = openai_answer(PIECES), b"".join(openai_stream(PIECES))
    numbers = count()

    def handle(request):
        is_stream = b'"stream":true' in request.content.replace(b" ", b"")
        kind = "text/event-stream" if is_stream else "application/json"
        content = (stream if is_stream else answer).replace(b"chatcmpl-1111", b"chatcmpl-%d-" % next(numbers))
        return http.Response(200, content=content, headers={"content-type": kind})

    client = openai.OpenAI(
        base_url="http://localhost/v1", api_key="local", http_client=http.Client(transport=http.MockTransport(handle))
    )
    asked = {"model": "gpt-4o-mini", "messages": MESSAGES, "max_tokens": PIECES}

    def call(number: int) -> None:
        if number % 10:
            client.chat.completions.create(**asked)
        else:
            drain(client.chat.completions.create(**asked, stream=True))

    return call


def looks(variant: str, calls: int) -> list[tuple[int, int, int]]:
    """Calls so far, resident bytes and objects, ten times."""
    from tollspan.exporter import pipeline
    from tollspan.instrumentation import instrument

    call = caller()
    if variant == "tollspan":
        instrument()
    seen = []
    for number in range(1, calls + 1):
        call(number)
        if number % (calls // LOOKS) == 0:
            if variant == "tollspan":
                pipeline().ledger.flush()
            gc.collect()
            seen.append((number, resident_bytes(), len(gc.get_objects())))
    return seen


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def in_child(variant: str, calls: int) -> list[tuple[int, int, int]]:
    with tempfile.TemporaryDirectory() as folder:
        ledger = {"TOLLSPAN_LEDGER": f"sqlite:///{Path(folder) / 'ledger.db'}"}
        command = [sys.executable, __file__, "--calls", str(calls), "--child", variant]
        found = subprocess.run(command, env=os.environ | ledger, check=True, capture_output=True, text=True).stdout
        return [tuple(look) for look in json.loads(found)]


def summary(seen):
    calls, resident, objects = zip(*seen, strict=True)
    return {
        "mb": [round(size / 1e6, 1) for size in resident],
        "objects": list(objects),
        "bytes_per_call": round(statistics.linear_regression(calls[SETTLED:], resident[SETTLED:]).slope, 2),
        "objects_per_call": round(statistics.linear_regression(calls[SETTLED:], objects[SETTLED:]).slope, 4),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--calls", type=int, default=100_000)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        print(json.dumps(looks(options.child, options.calls)))
        return
    results = {variant: summary(in_child(variant, options.calls)) for variant in ("bare", "tollspan")}
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{options.calls} calls, a look at each tenth of them")
    for name, found in results.items():
        print(f"{name:<10}{found['bytes_per_call']:>9.2f} bytes, {found['objects_per_call']:.4f} objects for each call")
        print(f"{'':<10}MB:      {' '.join(map(str, found['mb']))}")
        print(f"{'':<10}objects: {' '.join(map(str, found['objects']))}")


if __name__ == "__main__":
    main()
