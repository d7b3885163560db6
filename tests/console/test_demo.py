"""The demo, run as a reader would run it: it must keep its promises, and tell when one is not kept."""

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tollspan.console import _demo
from tollspan.console._provider import LocalProvider
from tollspan.ledger import Ledger

pytest.importorskip("openai", reason="the demo drives the OpenAI SDK")
pytest.importorskip("anthropic", reason="the demo drives the Anthropic SDK")
pytest.importorskip("opentelemetry.distro", reason="the demo runs under opentelemetry-instrument")

FINE = {"sent": 9, "answered": 9, "refused": 41, "billed_usd": Decimal("0.9001"), "ledger_usd": Decimal("0.9001")}


def run(folder, *, stdin=subprocess.DEVNULL, typed=None, env=None, **options):
    """Run the demo in a process with its temporary folder in `folder`, among settings that it must not heed."""
    code = f"from tollspan.console._demo import run_demo; raise SystemExit(run_demo(**{options!r}))"
    hostile = {
        "TMPDIR": str(folder),
        "TOLLSPAN_LEDGER": f"sqlite:///{folder}/mine.db",
        "TOLLSPAN_BUDGET": "0.000001 USD / day",
        "TOLLSPAN_MODE": "strict",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OPENAI_ORG_ID": "org-1",
    }
    environment = {**os.environ, **hostile, **(env or {})}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        stdin=stdin,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """One run for people, and its folder."""
    folder = tmp_path_factory.mktemp("text")
    done = run(folder, keep=True, env={"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"})
    return done, folder


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """One run for programs, and its folder."""
    folder = tmp_path_factory.mktemp("json")
    return run(folder, as_json=True), folder


def test_text(shown):
    """The demo ends well, in plain text of at most 80 columns."""
    done, _ = shown
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    # Beyond ASCII only the lines and blocks of tables and bars.
    assert all(sign.isascii() or "\u2500" <= sign <= "\u259f" for sign in done.stdout)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for part in (
        "made up",
        "chat claude-sonnet-4-5",
        "$ tollspan today",
        "$ tollspan budget status",
        "All as promised",
    ):
        assert part in done.stdout


def test_quickstart(shown):
    """The quickstart shows what the demo prints of itself, but for the numbers."""

    def words(text):
        return re.sub(r"\d+", "0", text.partition("No key,")[2].partition("What a refused call")[0]).split()

    quickstart = Path(__file__).parents[2] / "docs" / "quickstart.md"
    assert words(quickstart.read_text(encoding="utf-8")) == words(shown[0].stdout)


def test_keep(shown):
    """A kept ledger holds every call and every hold, and stays where the demo says; the reader's own is not touched."""
    done, folder = shown
    (kept,) = folder.glob("tollspan-demo-*/ledger.db")
    assert f"sqlite:///{kept}" in done.stdout.replace("\n", " ")
    with Ledger.from_file(kept) as ledger:
        kinds = [event.event_type for event in ledger.events]
    assert (kinds.count("commit"), kinds.count("precheck_hold"), kinds.count("cancel")) == (17 + 9, 9, 41)
    assert not (folder / "mine.db").exists()


def test_json(told):
    """The same as one JSON object and nothing else on stdout; no file is left behind."""
    done, folder = told
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr, facts["problems"], list(folder.iterdir())) == (0, "", [], [])
    assert facts["ledger"] is None
    assert {"today", "budget_status", "seconds"} <= facts.keys()


def test_spans(told):
    """Each call has one span, with provider, tokens, cost, and the time to the first chunk of a stream."""
    facts = json.loads(told[0].stdout)
    spans, calls = facts["spans"], facts["calls"]
    assert calls["calls"] == calls["spans"] == calls["billed"] == len(spans) == 17
    assert {span["provider"] for span in spans} == {"openai", "anthropic"}
    assert sum(span["first_chunk_ms"] is not None for span in spans) == 4
    assert all(0 < (span["first_chunk_ms"] or 0) < span["duration_ms"] for span in spans if span["first_chunk_ms"])
    assert all(Decimal(span["cost_usd"]) > 0 and span["tokens_in"] > 0 and span["tokens_out"] > 0 for span in spans)
    assert [span["tokens_cache_read"] for span in spans].count(1024) == 2
    assert Decimal(facts["spans_cost_usd"]) == sum(Decimal(span["cost_usd"]) for span in spans)


def test_budget(told):
    """Of fifty calls at once nine are sent, the others are refused, and the bill stays under the limit."""
    budget = json.loads(told[0].stdout)["budget"]
    assert (budget["calls"], budget["sent"], budget["refused"]) == (50, 9, 41)
    assert Decimal("0.9") <= Decimal(budget["billed_usd"]) <= Decimal(budget["limit_usd"]) == 1
    assert Decimal(budget["ledger_usd"]) == Decimal(budget["billed_usd"])
    assert "1 USD / day" in budget["refusal"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"billed_usd": Decimal("1.01"), "ledger_usd": Decimal("1.01")}, "more than the limit"),
        ({"billed_usd": Decimal("0.8"), "ledger_usd": Decimal("0.8")}, "only $0.8"),
        ({"ledger_usd": Decimal("0.89")}, "the ledger says $0.89"),
        ({"answered": 8}, "9 calls were sent, 8 answered"),
        ({"refused": 40}, "9 sent, 40 refused"),
    ],
)
def test_broken_promises(change, said):
    """Each promise of the strict budget that is not kept is told, and only that one."""
    broken = _demo.Burst(**{**FINE, **change}).broken()
    assert len(broken) == (said is not None)
    assert said is None or said in broken[0]


def test_a_budget_that_leaks_is_told(monkeypatch, capsys):
    """Where more is billed than promised, the demo says so and its status is 1."""
    monkeypatch.setattr(_demo, "BUDGET", "2 USD / day")
    assert _demo.run_demo() == 1
    assert "more than the limit of $1" in capsys.readouterr().out


def test_missing_sdk(monkeypatch, capsys):
    """Without an SDK the demo tells what to install, and its status is 2."""
    monkeypatch.setattr(_demo, "_NEEDED", ("no_such_sdk",))
    assert _demo.run_demo() == 2
    assert "pip install 'tollspan[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "said"), [("", "set OPENAI_API_KEY or ANTHROPIC_API_KEY"), ("sk-x", "no terminal to ask on")]
)
def test_real_is_not_tried(tmp_path, key, said):
    """Without a key, or without a terminal to ask on, nothing is sent to the real endpoints."""
    done = run(tmp_path, real=True, env={"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize(("typed", "status", "sent"), [("n\n", 2, 0), ("y\n", 0, 2)])
def test_real(tmp_path, typed, status, sent):
    """After a yes, and only then, one small call goes to each vendor that has a key."""
    pty = pytest.importorskip("pty", reason="needs a terminal to answer on")
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    with LocalProvider() as provider:
        env = {
            "OPENAI_API_KEY": "sk-x",
            "OPENAI_BASE_URL": provider.openai_url,
            "ANTHROPIC_API_KEY": "sk-y",
            "ANTHROPIC_BASE_URL": provider.anthropic_url,
        }
        done = run(tmp_path, real=True, stdin=theirs, env=env)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, len(provider.requests)) == (status, sent), done.stdout + done.stderr
    assert "gpt-4o-mini, claude-haiku-4-5" in done.stderr
    assert all(request.body["max_tokens"] == 16 for request in provider.requests)


def test_the_application_knows_nothing():
    """The application that the demo runs has no line of tollspan or OpenTelemetry in it."""
    source = _demo._APP.read_text(encoding="utf-8")
    assert not [word for word in ("tollspan", "opentelemetry") if word in source.lower()]
