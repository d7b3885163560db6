"""`tollspan reconcile`: an export beside the ledger, for people and programs, and what --adjust writes."""

import csv
import io
import json
import shlex
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console._cli import cli
from tollspan.ledger import BILL_FORMATS, Ledger, LedgerEvent, new_call_id

DAY = "2026-09-21"
START = int(datetime(2026, 9, 21, tzinfo=UTC).timestamp())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path):
    with Ledger(path) as opened:
        call(opened, "0", began=START - 86_400, provider="nobody")
        yield opened


def call(ledger, usd, *, began=START + 3600, **fields):
    """A call that cost so much."""
    event = LedgerEvent(
        **{
            "event_type": "commit",
            "call_id": new_call_id(began).hex(),
            "timestamp": began + 1.0,
            "provider": "openai",
            "model": "gpt-4o",
            "usage": {"tokens_in": 100, "tokens_out": 50},
            "cost_actual_usd": usd and Decimal(usd),
            "cost_source": "genai-prices:0.2.3",
            **fields,
        }
    )
    ledger.append(event)


@pytest.fixture
def costs(tmp_path):
    """An answer of OpenAI's costs API (platform.openai.com/docs/api-reference/usage/costs), grouped by line item."""
    lines = [("gpt-4o-2024-08-06, input", 1.75), ("gpt-4o-2024-08-06, output", 0.25), ("web search tool calls", 0.1)]
    results = [
        {"object": "organization.costs.result", "amount": {"value": usd, "currency": "usd"}, "line_item": item}
        for item, usd in lines
    ]
    bucket = {"object": "bucket", "start_time": START, "end_time": START + 86_400, "results": results}
    page = {"object": "page", "data": [bucket], "has_more": False, "next_page": None}
    (tmp_path / "costs.json").write_text(json.dumps(page))


def run(command):
    return CliRunner().invoke(cli, ["reconcile", *shlex.split(command)])


def refused(command):
    """What a command says that ends with 2, without a traceback."""
    result = run(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.usefixtures("costs")
def test_a_bill_beside_the_ledger(book):
    """A table by day and model with the total, why it may differ, and exit status 1."""
    call(book, "1.5")
    call(book, None, cost_source="unpriced")
    result = run("--file costs.json")
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"openai-costs beside the ledger's calls of openai, {DAY} to {DAY}, UTC"
    assert lines[1].split() == ["day", "model", "billed", "ledger", "difference", "captured"]
    assert lines[3].split() == [DAY, "gpt-4o", "$2.00", "$1.50", "+$0.5000", "75.0%", "!"]
    assert lines[4].split() == [DAY, "(no", "model)", "$0.1000", "$0.00", "+$0.1000", "0.0%"]
    assert lines[6].split() == ["total", "$2.10", "$1.50", "+$0.6000", "71.4%", "!"]
    assert lines[7:] == [
        f"{DAY} gpt-4o: 1 call without a price in the ledger: see `tollspan reprice`",
        f"{DAY} (no model): lines that name no model: web search tool calls $0.1000",
        "out of 1%, 0.01 USD: 1 row, and the total",
    ]


@pytest.mark.usefixtures("costs")
def test_within_tolerance_the_exit_status_is_0(book):
    """As wide as one likes: a share, an amount, or both."""
    call(book, "1.9")
    result = run("--file costs.json --tolerance '10% or 0.01'")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "within 10% or 0.01")
    assert run("--file costs.json --tolerance 0.1").exit_code == 1
    assert run("--file costs.json --tolerance 0.2").exit_code == 0


@pytest.mark.usefixtures("costs")
def test_in_json(book):
    """Exact texts, rates as fractions, and each reason with a code."""
    call(book, "1.5")
    result = run("--file costs.json --json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["format"], data["provider"], data["unit"]) == (1, "openai-costs", "openai", "USD")
    assert data["rows"][0] == {
        "day": DAY, "model": "gpt-4o", "sides": "both", "billed": "2.000000000", "ledger": "1.500000000",
        "difference": "0.500000000", "capture_rate": "0.750000", "within": False, "whole_day": True, "reasons": [],
    }  # fmt: skip
    assert data["rows"][1]["reasons"] == [
        {"code": "fees", "text": "lines that name no model: web search tool calls $0.1000", "calls": None,
         "usd": "0.100000000"}
    ]  # fmt: skip
    assert data["total"]["capture_rate"] == "0.714286"
    assert (data["within"], data["run"], data["adjusted"]) == (False, None, 0)


@pytest.mark.usefixtures("costs")
def test_in_csv(book):
    """One line for each row and the total."""
    call(book, "1.5")
    first, _, total = csv.DictReader(io.StringIO(run("--file costs.json --csv").stdout))
    assert first == {
        "day": DAY, "model": "gpt-4o", "sides": "both", "billed": "2.000000000", "ledger": "1.500000000",
        "difference": "0.500000000", "capture_rate": "0.750000", "within": "false", "unit": "USD", "reasons": "",
    }  # fmt: skip
    assert (total["day"], total["billed"]) == ("total", "2.100000000")


def test_usage_in_tokens(book, tmp_path):
    """An export of usage is compared in tokens."""
    call(book, "1.5")
    (tmp_path / "usage.csv").write_text(
        "start_time,end_time,num_model_requests,model,input_tokens,output_tokens\n"
        f"{START},{START + 86_400},1,gpt-4o,1500,0\n"
    )
    result = run("--file usage.csv")
    assert result.stdout.splitlines()[3].split() == [DAY, "gpt-4o", "1,500", "150", "+1,350", "10.0%", "!"]
    assert json.loads(run("--file usage.csv --json").stdout)["rows"][0]["billed"] == 1500
    assert "counts tokens and states no costs" in refused("--file usage.csv --adjust")


@pytest.mark.usefixtures("costs")
def test_it_is_adjusted_and_taken_back(book):
    """The run is told, the exit status is that of what it left, and again nothing is written."""
    call(book, "1.5")
    result = run("--file costs.json --adjust --tolerance 5%")
    assert result.exit_code == 0
    name = result.stdout.rpartition("--undo ")[2].split("`")[0]
    assert f"run {name}: 1 row adjusted; `tollspan reconcile --undo {name}` takes them back" in result.stdout
    offset = book.latest_offset()
    assert run("--file costs.json --adjust --tolerance 5%").exit_code == 0
    assert book.latest_offset() == offset
    assert CliRunner().invoke(cli, ["doctor", "--verify"]).exit_code == 0
    result = run(f"--undo {name}")
    assert (result.exit_code, result.stdout) == (0, f"run {name}: 1 adjust taken back\n")
    assert sum(event.spend_usd or 0 for event in book.events) == Decimal("1.5")


@pytest.mark.usefixtures("costs")
def test_what_is_not_adjusted_is_told(book):
    """Models of one side need a word of people: that they are the same, or that they are not."""
    call(book, "1.5", model="my-deployment")
    result = run("--file costs.json --adjust")
    assert "only the export names: gpt-4o-2024-08-06 (the same model under two names? --map EXPORT" in result.stdout
    assert "not adjusted, 2 rows: only one side names the model (--map, or --one-sided)" in result.stdout
    result = run("--file costs.json --adjust --tolerance 5% --map gpt-4o-2024-08-06=my-deployment")
    assert result.exit_code == 0
    assert book.report("model", since=START)[0].cost_usd == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "--file is missing: name the provider's export"),
        ("--file missing.json", "File 'missing.json' does not exist"),
        ("--file wrong.csv", "wrong.csv is none of the exports that can be read"),
        ("--file costs.json --format aws-cur", "costs.json is JSON, and aws-cur is CSV or Parquet; leave --format out"),
        ("--file costs.json --format cur", "'cur' is not one of 'openai-costs', 'openai-usage'"),
        ("--file costs.json --tolerance much", "'much' is no tolerance; write it like 1%, 0.05 USD"),
        ("--file costs.json --map gpt-4o", "--map: 'gpt-4o' is no pair; write the export's name and the ledger's"),
        ("--file costs.json --map a=b", "the export names no model 'a' in those days; it names gpt-4o-2024-08-06"),
        ("--file costs.json --since soon", "--since: 'soon' is no instant"),
        ("--file costs.json --since 2026-10-01", f"the export goes from {DAY} to {DAY}, and no whole day"),
        ("--file costs.json --json --csv", "--json and --csv exclude each other"),
        ("--file costs.json --one-sided", "--one-sided goes with --adjust"),
        ("--undo 20260101-000000-000", "knows no run '20260101-000000-000' of `tollspan reconcile`"),
        ("--undo x --file costs.json", "--undo RUN takes no other option than --json"),
        ("--undo x --tolerance 1%", "--undo RUN takes no other option than --json"),
    ],
)
@pytest.mark.usefixtures("costs")
def test_wrong_use_is_told_in_one_sentence(book, tmp_path, command, said):
    """Files, formats, names, instants and runs; nothing is written."""
    (tmp_path / "wrong.csv").write_text("name,score\nada,9\n")
    call(book, "1.5")
    assert said in refused(command)
    assert book.latest_offset() == 2


def test_the_formats_are_those_that_can_be_read():
    """What --format offers is what the ledger's readers are."""
    (option,) = [each for each in cli.commands["reconcile"].params if each.name == "form"]
    assert tuple(option.type.choices) == BILL_FORMATS


@pytest.mark.usefixtures("costs")
def test_without_a_ledger_nothing_is_made(path):
    """The command reads a ledger, and never makes one."""
    assert "no ledger at" in refused("--file costs.json")
    assert not path.exists()
