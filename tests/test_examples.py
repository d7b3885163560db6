"""Each example runs offline, prints what it promises, and leaves in the ledger what it printed."""

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tollspan.ledger import Ledger, to_usd

pytest.importorskip("openai", reason="the examples call the OpenAI SDK")

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path):
    """Run an example with a ledger of its own; gives the lines it printed, and the events."""

    def run(name, *, zero_code=False, logs=""):
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "OTEL_", "TOLLSPAN_"))
        }
        environment = kept | {"TOLLSPAN_LEDGER": f"sqlite:///{tmp_path}/ledger.db"}
        command = [sys.executable, str(EXAMPLES / name)]
        if zero_code:
            script = Path(sys.executable).with_name("opentelemetry-instrument")
            command = [str(script), *command]
            environment |= {f"OTEL_{signal}_EXPORTER": "none" for signal in ("METRICS", "LOGS")}
            environment |= {"OTEL_TRACES_EXPORTER": "console"}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(logs, done.stderr)
        if not (tmp_path / "ledger.db").exists():
            return done.stdout.splitlines(), []
        with Ledger.from_file(tmp_path / "ledger.db") as ledger:
            return done.stdout.splitlines(), list(ledger.events)

    return run


def of(events, kind):
    return [event for event in events if event.event_type == kind]


def spent(events):
    return sum(event.cost_actual_usd for event in of(events, "commit"))


def charged(events, budget):
    """USD charged to each balance of a budget, by its scope."""
    sums = {}
    for event in of(events, "commit"):
        for charge in event.charges:
            if charge.budget == budget:
                sums[charge.scope] = sums.get(charge.scope, 0) + to_usd(charge.amount)
    return sums


def test_every_example_is_short():
    """An example shows one idea: it has fewer than 40 lines."""
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    assert lengths
    assert max(lengths.values()) < 40


def test_zero_code(run):
    """An application without an import of ours, run under opentelemetry-instrument, is recorded and gets spans."""
    pytest.importorskip("opentelemetry.distro", reason="needs opentelemetry-instrument")
    lines, events = run("zero_code.py", zero_code=True)
    assert any(re.search(r"gen_ai\.usage\.cost\.amount.*\d", line) for line in lines)
    assert [(event.event_type, event.usage["tokens_out"]) for event in events] == [("commit", 40)] * 2
    assert "tollspan" not in re.sub(
        r'^""".*?"""', "", (EXAMPLES / "zero_code.py").read_text(encoding="utf-8"), flags=re.DOTALL
    )


def test_zero_code_alone(run):
    """The same application without opentelemetry-instrument answers the same, and records nothing."""
    lines, events = run("zero_code.py")
    assert [line.partition(" ")[0] for line in lines] == ["answer:", "streamed"]
    assert events == []


def test_decorator(run):
    """The decorated function runs until its daily budget has no room for one more, and the refusal says why."""
    lines, events = run("decorator.py")
    done = int(re.match(r"(\d+) summaries, then: budget 'summaries' is spent", lines[0])[1])
    assert len(of(events, "commit")) == done > 0
    assert f"spent ${spent(events):.4f} of $0.0200" in lines[1]
    assert sum(charged(events, "summaries").values()) == spent(events) <= 0.02


def test_block(run):
    """Three chapters spend in their own budgets, and together in the one around them."""
    lines, events = run("block.py")
    assert len(of(events, "commit")) == 9
    assert lines[-1].startswith(f"the book: ${spent(events):.6f} of $0.10")
    assert list(charged(events, "book").values()) == [spent(events)]
    chapters = charged(events, "chapter")
    assert (len(chapters), sum(chapters.values())) == (3, spent(events))


def test_scopes(run):
    """One user's spent budget stops that user, and nobody else."""
    lines, events = run("scopes.py")
    asked = int(re.match(r"ada: (\d+) answers, then BudgetExhausted for user=ada", lines[0])[1])
    assert lines[1] == "grace: 3 answers"
    users = [event.user_id for event in of(events, "commit")]
    assert (users.count("ada"), users.count("grace")) == (asked, 3)
    assert max(charged(events, "visitors").values()) <= 0.01
    assert {event.tags["feature"] for event in events} == {"chat"}


def test_wait(run):
    """Twenty tasks are answered one after the other, with never more spent and held than the limit."""
    lines, events = run("wait.py")
    assert lines == [f"20 answers for ${spent(events):.4f}; the limit is $0.0300"]
    held, total, most = {}, 0, 0
    for event in events:
        if event.event_type == "precheck_hold":
            held[event.call_id] = event.cost_est_usd
        elif event.event_type == "commit":
            total += event.cost_actual_usd
            held.pop(event.call_id)
        most = max(most, total + sum(held.values()))
    assert (len(of(events, "commit")), held) == (20, {})
    assert 0.02 < most <= 0.03


def test_alerts(run):
    """The listener hears of what is on disk: it tells once, and by its offset, which call passed the amount."""
    lines, events = run("alerts.py")
    totals = [sum(e.spend_usd for e in events[: n + 1]) for n in range(len(events))]
    passed = next(n for n, total in enumerate(totals, start=1) if total > Decimal("0.001"))
    assert lines == [f"event {passed}: spend has passed 0.001 USD with a call of {events[0].model}"]
    assert len(events) == 5


def test_warn_at(run):
    """Each share is told once, when what is spent has reached it."""
    line = r"budget 'stories' has reached {}% of its limit: .*\n"
    lines, events = run("warn_at.py", logs=line.format(10) + line.format(25))
    assert lines == ["stories: 10% of $0.0050 is spent", "stories: 25% of $0.0050 is spent"]
    assert Decimal("0.00125") <= spent(events) < Decimal("0.005")


def test_fallback(run):
    """The dearer model answers as long as its calls fit, then the cheaper one, within the limit."""
    lines, events = run("fallback.py")
    models = [line.split()[2].rstrip(";") for line in lines]
    assert models == ["gpt-4o", "gpt-4o", "gpt-4o-mini", "gpt-4o-mini"]
    assert [event.model for event in of(events, "commit")] == models
    assert spent(events) < Decimal("0.011")


def test_own_provider(run):
    """With a provider of one's own, spans go where it sends them, and the ledger gets the call once."""
    lines, events = run("own_provider.py")
    assert [event.event_type for event in events] == ["commit"]
    cost = events[0].cost_actual_usd
    assert lines == [
        f"span: chat gpt-4o-mini, {float(cost)} USD",
        "span: describe a chair, None USD",
        f"ledger: ${cost:.6f} today",
    ]
