"""Zero-code mode: `opentelemetry-instrument python app.py` records an application that knows nothing of us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sdk_calls import MODELS, anthropic

from tollspan.ledger import Ledger

COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")
pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="opentelemetry-distro is not installed")

OPENAI = f"""
import os, openai
client = openai.OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="x")
ask = {{"model": {MODELS["openai"]!r}, "messages": [{{"role": "user", "content": "Hello"}}]}}
client.chat.completions.create(**ask)
assert len(list(client.chat.completions.create(**ask, stream=True))) == 10
"""
ANTHROPIC = f"""
import os, anthropic
client = anthropic.Anthropic(base_url=os.environ["PROVIDER"], api_key="x")
ask = {{"model": {MODELS["anthropic"]!r}, "messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 100}}
client.messages.create(**ask)
with client.messages.stream(**ask) as stream:
    assert stream.get_final_message().content
"""
LATE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
"""


@pytest.fixture
def run(provider, ledger_path, tmp_path):
    """Run an application's text under `opentelemetry-instrument`; gives what it printed and the ledger's events."""

    def run(text, *, command=(COMMAND, sys.executable), **environment):
        app = tmp_path / "app.py"
        app.write_text(text)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environment = {
            "PROVIDER": provider.url,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        } | environment
        done = subprocess.run(
            [*command, app], env=kept | environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        if not ledger_path.exists():
            return done, []
        with Ledger.from_file(ledger_path) as ledger:
            return done, list(ledger.events)

    return run


def rows(events):
    """Events without what differs from run to run."""
    return [(e.event_type, e.provider, e.model, dict(e.usage), e.cost_actual_usd, e.status, e.attempts) for e in events]


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_off"},
    ],
    ids=["as-it-comes", "no-exporter", "sdk-disabled", "all-sampled", "none-sampled"],
)
def test_an_application_is_recorded(run, provider, environment):
    """The ledger is the same with and without an exporter, with all or no spans sampled, and with the SDK disabled."""
    done, events = run(OPENAI, **environment)
    bills = provider.billed[-2:]
    assert rows(events) == [
        (
            "commit",
            "openai",
            MODELS["openai"],
            {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens},
            events[0].cost_actual_usd,
            "ok",
            1,
        )
        for bill in bills
    ]
    assert events[0].cost_actual_usd > 0
    sampled = environment.get("OTEL_TRACES_SAMPLER") == "always_on"
    assert done.stdout.count('"tollspan.event_id"') == (2 if sampled else 0)
    assert all((event.trace_id is None) == ("OTEL_SDK_DISABLED" in environment) for event in events)


def test_it_can_be_disabled_as_any_instrumentation(run):
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=tollspan leaves the application alone."""
    _, events = run(OPENAI, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="foo, tollspan", OTEL_TRACES_EXPORTER="none")
    assert events == []


def test_another_instrumentation_that_crashes_does_not_stop_us(run, tmp_path):
    """An instrumentor that fails stops those that are loaded after it, but not us, who were there before."""
    site = tmp_path / "site"
    info = site / "aaa_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aaa-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[opentelemetry_instrumentor]\naaa_broken = aaa_broken:Broken\n")
    (site / "aaa_broken.py").write_text("raise RuntimeError('this instrumentor is broken')\n")
    done, events = run(OPENAI, PYTHONPATH=str(site), OTEL_TRACES_EXPORTER="none")
    assert "this instrumentor is broken" in done.stderr
    assert [event.event_type for event in events] == ["commit", "commit"]


def test_a_provider_that_is_set_late(run):
    """In an application that instruments itself and sets its TracerProvider late, later calls have spans there."""
    text = "from tollspan.instrumentation import instrument\ninstrument()\n" + OPENAI + LATE + OPENAI
    done, events = run(text, command=(sys.executable,))
    assert [event.event_type for event in events] == ["commit"] * 4
    assert [event.trace_id is not None for event in events] == [False, False, True, True]
    assert done.stdout.count('"tollspan.event_id"') == 2
    assert events[2].event_id in done.stdout


def test_the_vendors_own_spans_are_not_counted_again(run):
    """Newer Anthropic SDKs emit spans of their own with the same usage; a call is one commit all the same."""
    done, events = run(ANTHROPIC, OTEL_TRACES_EXPORTER="console", ANTHROPIC_OPEN_TELEMETRY="true")
    assert [event.event_type for event in events] == ["commit", "commit"]
    assert done.stdout.count('"tollspan.event_id"') == 2
    spans = done.stdout.count('"trace_id"')
    assert spans == 4 if int(anthropic.__version__.partition(".")[0]) >= 2 else spans == 2
