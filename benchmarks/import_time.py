"""What it costs to switch tollspan on where no SDK is used: the time of its imports, and of `instrument()`.

    python benchmarks/import_time.py [--runs 10] [--modules 0] [--json]

Each run is a process of its own under `python -X importtime`. Of each module the quickest run counts, so that a busy
machine does not show. The modules that an application with OpenTelemetry has imported anyway are told apart from those
of tollspan itself, and from what else comes with them. `--modules` shows so many of the slowest.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter

BASE = "import opentelemetry.sdk.trace, opentelemetry.instrumentation.instrumentor"
OURS = """
import time
from tollspan.instrumentation import instrument
began = time.perf_counter()
instrument()
print((time.perf_counter() - began) * 1000)
"""
GOAL_MS = 30.0
SDKS = ("openai", "anthropic", "google.genai", "botocore", "httpx", "httpx2", "requests", "aiohttp", "pydantic")
_LINE = re.compile(r"import time:\s*(\d+) \|\s*\d+ \| +(\S+)$", re.MULTILINE)


def run(code: str, folder: str) -> tuple[dict[str, int], str]:
    """The time of each module that is imported, in microseconds, and what was printed."""
    ours = {"TOLLSPAN_LEDGER": f"sqlite:///{folder}/ledger.db", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, env=environment | ours, check=True, capture_output=True, text=True)
    return {name: int(self_us) for self_us, name in _LINE.findall(done.stderr)}, done.stdout


def quickest(code: str, runs: int, folder: str) -> tuple[dict[str, int], float]:
    """The least time of each module in several runs, and of what was printed; the first run writes the bytecode."""
    run(code, folder)
    modules: dict[str, int] = {}
    printed = []
    for _ in range(runs):
        found, said = run(code, folder)
        printed.append(float(said or 0))
        modules = {name: min(took, modules.get(name, took)) for name, took in found.items()}
    return modules, min(printed)


def measure(runs: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        base, _ = quickest(BASE, runs, folder)
        every, instrument_ms = quickest(f"{BASE}{OURS}", runs, folder)
    added = Counter({name: took for name, took in every.items() if name not in base})
    own = sum(took for name, took in added.items() if name.startswith("tollspan"))
    return {
        "opentelemetry_ms": round(sum(base.values()) / 1000, 1),
        "tollspan_ms": round(own / 1000, 1),
        "with_it_ms": round((added.total() - own) / 1000, 1),
        "instrument_ms": round(instrument_ms, 1),
        "sdks": [name for name in SDKS if name in every],
        "slowest": added.most_common(),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=10)
    arguments.add_argument("--modules", type=int, default=0)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    figures = measure(options.runs)
    figures["slowest"] = figures["slowest"][: options.modules]
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"{figures['opentelemetry_ms']:>8.1f} ms  OpenTelemetry's SDK and instrumentor, which are there anyway")
    print(f"{figures['tollspan_ms']:>8.1f} ms  the modules of tollspan (goal, on a quiet machine: {GOAL_MS:.0f})")
    print(f"{figures['with_it_ms']:>8.1f} ms  other modules that come with them")
    print(f"{figures['instrument_ms']:>8.1f} ms  instrument()")
    print(f"SDKs and HTTP libraries imported: {', '.join(figures['sdks']) or 'none'}")
    for name, took in figures["slowest"]:
        print(f"{took / 1000:>8.2f} ms  {name}")


if __name__ == "__main__":
    main()
