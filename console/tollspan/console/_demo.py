"""`tollspan demo`: what tollspan does, shown on this machine in a few seconds, and checked while it is shown.

Real are the SDKs, OpenTelemetry, the ledger and the budget; made up are the answers, by a local server that speaks the
vendors' wire formats and keeps books of its own. Each promise is compared with those books: where they differ, the
demo says so and its exit status is 1.
"""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tollspan.console._provider import Answer, LocalProvider, Request
from tollspan.ledger import Ledger

CALLS = 50
LIMIT_USD = Decimal(1)
BUDGET = "1 USD / day"
REAL_BUDGET = "0.02 USD / day"

# USD per million input and output tokens of gpt-4o on OpenAI's list of prices (2026-11): what the provider bills by.
_GPT_4O = (Decimal("2.5"), Decimal(10))
_CENT = Decimal("0.01")
_APP = Path(__file__).with_name("_demo_app.py")
_NEEDED = ("openai", "anthropic", "opentelemetry.distro")
_OURS = ("OTEL_", "TOLLSPAN_")
_THEIRS = ("OPENAI_", "ANTHROPIC_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_KEYS = {"OPENAI_API_KEY": "gpt-4o-mini", "ANTHROPIC_API_KEY": "claude-haiku-4-5"}
_WIDTH, _TIMEOUT_S = 80, 60
_HEARD: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "timeout": _TIMEOUT_S}
_NEXT = """\
  An application of yours (OTEL_SDK_DISABLED=true if no collector listens):
    opentelemetry-instrument python your_app.py
    tollspan today
  The same under a limit:
    export TOLLSPAN_BUDGET="5 USD / day" TOLLSPAN_MODE=strict
    tollspan budget status
  A tiny call with your own key, after asking:
    tollspan demo --real
"""

Environment = dict[str, str]
Row = dict[str, Any]


@dataclass(slots=True)
class _Demo:
    """One run: where it writes, what it prints to, and what it found. `facts` is what `as_json` prints."""

    folder: Path
    console: Console
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    def say(self, text: str) -> None:
        self.console.out(textwrap.fill(text, _WIDTH, break_on_hyphens=False))

    def head(self, text: str) -> None:
        self.console.out(f"\n{text}\n{'-' * len(text)}")

    def check(self, kept: bool, otherwise: str) -> None:
        if not kept:
            self.problems.append(otherwise)


def run_demo(*, real: bool = False, as_json: bool = False, keep: bool = False) -> int:
    """Run the demo and give its exit status: 0 all as promised, 1 something was not, 2 it cannot be run here.

    `real` makes a tiny call to each vendor whose key is in the environment, after asking. `as_json` prints one JSON
    object and nothing else on stdout; costs are texts, exact, in USD, and times in milliseconds. `keep` leaves the
    temporary ledger and tells where it is.
    """
    refusal = _missing() or (_unwilling() if real else None)
    if refusal:
        click.echo(refusal, err=True)
        return 2
    began = time.monotonic()
    # No markup and no colours: it reads the same in a terminal and in a file.
    console = Console(quiet=as_json, width=_WIDTH, markup=False, emoji=False, highlight=False, color_system=None)
    demo = _Demo(Path(tempfile.mkdtemp(prefix="tollspan-demo-")), console)
    try:
        _prepare(demo.folder)
        _show_real(demo) if real else _show_local(demo)
        demo.facts |= {"seconds": round(time.monotonic() - began, 1), "ledger": str(demo.ledger) if keep else None}
        _conclude(demo)
    finally:
        if not keep:
            shutil.rmtree(demo.folder, ignore_errors=True)
    return 1 if demo.problems else 0


# ---- whether it can be run


def _missing() -> str | None:
    """What to install first; None where everything is there."""
    if all(map(_installed, _NEEDED)) and _script():
        return None
    return "The demo needs openai, anthropic and opentelemetry-instrument; install them: pip install 'tollspan[demo]'"


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _script() -> str | None:
    """The `opentelemetry-instrument` of this Python, whatever PATH says."""
    places = (str(Path(sys.executable).parent), sysconfig.get_path("scripts"))
    return shutil.which("opentelemetry-instrument", path=os.pathsep.join(places))


def _unwilling() -> str | None:
    """Why the real endpoints are not called; None after a yes."""
    models = [model for key, model in _KEYS.items() if os.environ.get(key)]
    if not models:
        return f"--real needs a key of yours: set {' or '.join(_KEYS)}."
    if not sys.stdin.isatty():
        return "--real spends money of yours, so it asks first, and there is no terminal to ask on."
    question = (
        f"This makes one call to each of {', '.join(models)} with your own keys, each with at most 16 output tokens: "
        f"below $0.001 in all by the list prices, and a strict budget of {REAL_BUDGET} would stop more. Go on?"
    )
    return None if click.confirm(textwrap.fill(question, _WIDTH), err=True) else "Nothing was sent."


# ---- running the application


def _prepare(folder: Path) -> None:
    """Copy the application, and write an empty configuration, so that none of the reader's is found."""
    shutil.copyfile(_APP, folder / "app.py")
    (folder / "tollspan.toml").touch()


def _environment(demo: _Demo, *, without: tuple[str, ...] = _OURS) -> Environment:
    """The reader's environment, but for settings that would make it another show or write to the reader's ledger."""
    others = [e.name for e in entry_points(group="opentelemetry_instrumentor") if e.name != "tollspan"]
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(without)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": str(_WIDTH),
        "NO_COLOR": "1",
        "OTEL_PYTHON_DISTRO": "distro",
        "OTEL_PYTHON_CONFIGURATOR": "configurator",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "TOLLSPAN_CONFIG": str(demo.folder / "tollspan.toml"),
        "TOLLSPAN_LEDGER": f"sqlite:///{demo.ledger}",
    }


def _local_environment(demo: _Demo, provider: LocalProvider) -> Environment:
    """As `_environment`, with the SDKs led to a local provider and to nobody else."""
    return _environment(demo, without=_OURS + _THEIRS) | {
        "OPENAI_BASE_URL": provider.openai_url,
        "OPENAI_API_KEY": "local",
        "ANTHROPIC_BASE_URL": provider.anthropic_url,
        "ANTHROPIC_API_KEY": "local",
        "NO_PROXY": "127.0.0.1",
    }


def _run_app(demo: _Demo, environment: Environment, *arguments: str) -> tuple[list[Row], Row]:
    """Run the application under opentelemetry-instrument: its exported spans, and its own word on how it went."""
    done = _run(demo, environment, str(_script()), sys.executable, "app.py", *arguments)
    told = [line for line in done.stderr.splitlines() if line.startswith('{"answered"')] or [
        '{"answered":0,"errors":[]}'
    ]
    demo.check(done.returncode == 0, f"the application failed: {_last_line(done.stderr)}")
    return [_row(span) for span in spans_in(done.stdout)], json.loads(told[-1])


def _run(demo: _Demo, environment: Environment, *command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, check=False, env=environment, cwd=demo.folder, **_HEARD)  # noqa: S603 - our own
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end within {_TIMEOUT_S} s")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def spans_in(text: str) -> list[Row]:
    """Our spans in what OpenTelemetry's console exporter wrote, one JSON object after the other; the oldest first."""
    decoder, start, spans = json.JSONDecoder(), text.find("{"), list[Row]()
    while start >= 0:
        span, end = decoder.raw_decode(text, start)
        spans.append(span)
        start = text.find("{", end)
    ours = (span for span in spans if "tollspan.event_id" in span["attributes"])
    return sorted(ours, key=lambda span: str(span["start_time"]))


def _row(span: Row) -> Row:
    """What the demo shows of a span; None for what its attributes do not say."""
    attributes = span["attributes"]
    began, ended = (dt.datetime.fromisoformat(span[edge]) for edge in ("start_time", "end_time"))
    first = attributes.get("gen_ai.response.time_to_first_chunk")
    cost = attributes.get("gen_ai.usage.cost.amount")
    return {
        "name": span["name"],
        "provider": attributes.get("gen_ai.provider.name"),
        "tokens_in": attributes.get("gen_ai.usage.input_tokens"),
        "tokens_cache_read": attributes.get("gen_ai.usage.cache_read.input_tokens"),
        "tokens_out": attributes.get("gen_ai.usage.output_tokens"),
        # The shortest text of the float is the ledger's amount again.
        "cost_usd": None if cost is None else Decimal(str(cost)),
        "first_chunk_ms": None if first is None else first * 1000,
        "duration_ms": (ended - began) / dt.timedelta(milliseconds=1),
        "error": attributes.get("error.type"),
    }


# ---- what is shown


def _show_local(demo: _Demo) -> None:
    """The whole show, against local providers."""
    parts = ", ".join(f"{name} {version(name)}" for name in ("openai", "anthropic", "opentelemetry-sdk", "tollspan"))
    demo.say(
        "No key, no network, no bill: the answers are made up by a local server that speaks the wire formats of OpenAI "
        f"and Anthropic. All else is real: {parts}, and a ledger in a temporary folder."
    )
    _show_calls(demo)
    _show_budget(demo)
    demo.head("3. What the command line says of that ledger")
    _show_report(demo, "today")
    _show_report(demo, "budget", "status")
    demo.head("What to try next")
    demo.console.out(_NEXT)


def _show_calls(demo: _Demo) -> None:
    """Calls of each kind, and their spans."""
    demo.head("1. An application without a line of tollspan in it")
    demo.say(
        "Plain, streamed and async calls, then ten at once, under `opentelemetry-instrument python app.py`. The spans: "
        "tokens in, of these cached, and out; cost; milliseconds to the first chunk of a stream, and in all."
    )
    with LocalProvider(answer=_made_up, delay_s=0.05) as provider:
        rows, told = _run_app(demo, _local_environment(demo, provider), "calls")
    _show_spans(demo, rows)
    counts = {"calls": told["answered"], "spans": len(rows), "billed": len(provider.billed)}
    demo.check(len(set(counts.values())) == 1, f"not one span and one bill for each call: {counts}")
    tokens = [sum(row[name] or 0 for row in rows) for name in ("tokens_in", "tokens_out")]
    billed = [sum(b.input_tokens for b in provider.billed), sum(b.output_tokens for b in provider.billed)]
    demo.check(tokens == billed, f"the spans say {tokens} tokens in and out, the provider says {billed}")
    demo.facts["calls"] = {**counts, "tokens_in": tokens[0], "tokens_out": tokens[1]}
    demo.say(f"By the provider's books: {len(provider.billed)} calls, {billed[0]:,} tokens in, {billed[1]:,} out.")


def _made_up(request: Request) -> Answer:
    """An answer of a length that depends on the question; long instructions are read from the cache."""
    body = request.body
    length = 40 + 7 * len(str(body.get("messages") or body.get("input"))) % 160
    cached = 1024 if {"system", "instructions"} & body.keys() else 0
    return Answer(output_tokens=length, cached_tokens=cached, fault="slow=0.02" if body.get("stream") else "ok")


def _show_spans(demo: _Demo, rows: Sequence[Row]) -> None:
    """The spans as a table, and what they cost against what the ledger says."""
    demo.console.print(_span_table(rows))
    cost, recorded = sum((row["cost_usd"] or Decimal(0) for row in rows), Decimal(0)), _recorded(demo.ledger)
    demo.check(cost == recorded, f"the spans cost ${cost}, the ledger says ${recorded}")
    demo.facts |= {"spans": rows, "spans_cost_usd": cost, "ledger_usd": recorded}
    demo.say(f"{len(rows)} spans, ${cost:.6f}; the ledger says ${recorded:.6f}.")


def _span_table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in ("span", "provider"):
        table.add_column(title)
    for title in ("in", "cached", "out", "USD", "first ms", "all ms"):
        table.add_column(title, justify="right")
    for row in rows:
        tokens = (str(row[name] or "") for name in ("tokens_in", "tokens_cache_read", "tokens_out"))
        cost = row["error"] or "unpriced" if row["cost_usd"] is None else f"{row['cost_usd']:.6f}"
        first = "" if row["first_chunk_ms"] is None else f"{row['first_chunk_ms']:.0f}"
        table.add_row(row["name"], row["provider"], *tokens, cost, first, f"{row['duration_ms']:.0f}")
    return table


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of the calls at once, by the provider's books, the application's word, and the ledger."""

    sent: int
    answered: int
    refused: int
    billed_usd: Decimal
    ledger_usd: Decimal

    def broken(self) -> list[str]:
        """The promises that were not kept. A budget that refuses what has room is as wrong as one that leaks."""
        billed, recorded = self.billed_usd, self.ledger_usd
        promises = {
            f"the provider billed ${billed}, more than the limit of ${LIMIT_USD}": billed <= LIMIT_USD,
            f"only ${billed} were billed, and nine calls of $0.10 fit": billed >= Decimal("0.9"),
            f"the ledger says ${recorded}, the provider billed ${billed}": abs(recorded - billed) < _CENT,
            f"{self.sent} calls were sent, {self.answered} answered": self.sent == self.answered,
            f"{CALLS} calls: {self.sent} sent, {self.refused} refused": self.sent + self.refused == CALLS,
        }
        return [otherwise for otherwise, kept in promises.items() if not kept]


def _show_budget(demo: _Demo) -> None:
    """More calls at once than a strict budget has room for."""
    demo.head(f"2. {CALLS} calls at once, about $0.10 each, under a strict limit of ${LIMIT_USD}")
    demo.say(f'Again no change in the code, but TOLLSPAN_BUDGET="{BUDGET}" and TOLLSPAN_MODE=strict:')
    before = _recorded(demo.ledger)
    with LocalProvider(output_tokens=10_000, delay_s=0.3, price=_GPT_4O) as provider:
        limited = _local_environment(demo, provider) | {"TOLLSPAN_BUDGET": BUDGET, "TOLLSPAN_MODE": "strict"}
        _, told = _run_app(demo, limited, "burst", str(CALLS))
    refusals = [text for name, text in told["errors"] if name in {"BudgetBusy", "BudgetExhausted"}]
    recorded = _recorded(demo.ledger) - before
    burst = Burst(len(provider.requests), told["answered"], len(refusals), provider.billed_usd(), recorded)
    refusal = refusals[0] if refusals else None
    demo.facts["budget"] = {"limit_usd": LIMIT_USD, "calls": CALLS, **asdict(burst), "refusal": refusal}
    demo.console.out(
        f"  sent                        {burst.sent:7}\n"
        f"  refused before it was sent  {burst.refused:7}\n"
        f"  billed by the provider      ${burst.billed_usd:.4f} of ${LIMIT_USD:.4f}\n"
        f"  recorded in the ledger      ${burst.ledger_usd:.4f}"
    )
    demo.say(f"What a refused call raised: {refusal}")
    demo.problems.extend(burst.broken())


def _recorded(ledger: Path) -> Decimal:
    """USD of all calls in a ledger."""
    if not ledger.exists():
        return Decimal(0)
    with Ledger.from_file(ledger) as opened:
        return sum((event.cost_actual_usd or Decimal(0) for event in opened.events), Decimal(0))


def _show_report(demo: _Demo, *command: str) -> None:
    """What a command of `tollspan` says of the demo's ledger."""
    as_json = ("--json",) if demo.console.quiet else ()
    url, shown = f"sqlite:///{demo.ledger}", f"tollspan {' '.join(command)}"
    module = (sys.executable, "-m", "tollspan.console", "--ledger", url)
    done = _run(demo, _environment(demo), *module, *command, *as_json)
    demo.console.out(f"$ {shown}\n{done.stdout.rstrip()}\n")
    demo.check(done.returncode == 0, f"`{shown}` ended with status {done.returncode}: {_last_line(done.stderr)}")
    if as_json and done.returncode == 0:
        demo.facts["_".join(command)] = json.loads(done.stdout)


def _show_real(demo: _Demo) -> None:
    """A tiny call to each real endpoint that there is a key for."""
    limited = _environment(demo) | {"TOLLSPAN_BUDGET": REAL_BUDGET, "TOLLSPAN_MODE": "strict"}
    rows, told = _run_app(demo, limited, "tiny")
    demo.facts["calls"] = {"answered": told["answered"], "spans": len(rows)}
    demo.problems.extend(f"{name}: {text}" for name, text in told["errors"])
    demo.head("Your calls, as spans")
    _show_spans(demo, rows)
    _show_report(demo, "today")


def _conclude(demo: _Demo) -> None:
    if demo.console.quiet:
        click.echo(json.dumps({**demo.facts, "problems": demo.problems}, default="{:f}".format, indent=2))
    if demo.problems:
        demo.head("Not as promised")
    else:
        demo.say(f"All as promised, in {demo.facts['seconds']} s.")
    for problem in demo.problems:
        demo.say(f"- {problem}")
    if demo.facts["ledger"]:
        demo.say(f"The ledger stays: tollspan --ledger sqlite:///{demo.ledger} today")
