"""A provider's export beside the ledger: what each format says, what explains a difference, how it is settled."""

import gzip
import json
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import bill_samples as samples
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from bill_samples import FIRST, SECOND, anthropic_costs, epoch, openai_costs
from hypothesis import given, settings
from hypothesis import strategies as st

from tollspan.ledger import (
    BILL_FORMATS,
    BillError,
    BudgetDefinition,
    Charge,
    Definition,
    Ledger,
    LedgerEvent,
    QueryError,
    RepriceSelection,
    Tolerance,
    Window,
    dump_definition,
    new_call_id,
    to_nano,
)
from tollspan.ledger import _parquet as parquet_module
from tollspan.ledger._reconcile import _settle, read_bills
from tollspan.ledger._reconcile._models import key_of
from tollspan.ledger._reconcile._openai import item_of

MORNING = epoch(FIRST) + 9 * 3600
EXACT = Tolerance(Decimal(0), Decimal(0))


@pytest.fixture
def file(tmp_path):
    """Writes an export, and gives its path."""
    numbers = iter(range(100))

    def write(content, name=None):
        path = tmp_path / (name or f"export-{next(numbers)}")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(autouse=True)
def _began_earlier(ledger):
    """The ledger has a call of the day before, so that it has all of the days that are compared."""
    call(ledger, "0", began=MORNING - 86_400, model="of-the-day-before", provider="nobody")


def call(ledger, usd="2", *, began=MORNING, **fields):
    """A call of gpt-4o that cost so much; gives its id."""
    event = LedgerEvent(
        **{
            "event_type": "commit",
            "call_id": new_call_id(began).hex(),
            "timestamp": began + 2.0,
            "provider": "openai",
            "model": "gpt-4o-2024-08-06",
            "usage": {"tokens_in": 100, "tokens_out": 20},
            "cost_actual_usd": usd and Decimal(usd),
            "cost_source": "genai-prices:0.2.3",
            **fields,
        }
    )
    ledger.append(event)
    return event.call_id


def rows(found):
    """Day, model, billed and counted of each row."""
    return [(row.day, row.model, str(row.billed), str(row.counted)) for row in found.rows]


def codes(row):
    return [reason.code for reason in row.reasons]


def shown(bill):
    """The lines of a bill by day and model, in USD or tokens."""
    return {
        (str(day), model): str(cell.usd.normalize()) if bill.measure == "usd" else cell.tokens
        for (day, model), cell in bill.cells.items()
    }


# ---- formats

FORMATS = {
    "OpenAI costs, JSON": (
        samples.OPENAI_COSTS,
        "openai-costs",
        {(FIRST, "gpt-4o-2024-08-06"): "2", (FIRST, None): "0.3", (SECOND, "gpt-5-mini"): "0.5"},
    ),
    "OpenAI costs, CSV": (samples.OPENAI_COSTS_CSV, "openai-costs", {(FIRST, "gpt-4o-2024-08-06"): "2"}),
    "OpenAI costs, TSV": (
        samples.OPENAI_COSTS_CSV.replace("6, ", "6; ").replace(",", "\t").replace("6; ", "6, "),
        "openai-costs",
        {(FIRST, "gpt-4o-2024-08-06"): "2"},
    ),
    "OpenAI usage, JSON": (samples.OPENAI_USAGE, "openai-usage", {(FIRST, "gpt-4o-2024-08-06"): 1500}),
    "OpenAI usage, CSV": (samples.OPENAI_USAGE_CSV, "openai-usage", {(FIRST, "gpt-4o-2024-08-06"): 1500}),
    "Anthropic costs, JSON": (
        samples.ANTHROPIC_COSTS, "anthropic-cost", {(FIRST, samples.SONNET): "2", (FIRST, None): "1"},
    ),
    "Anthropic costs, CSV": (samples.ANTHROPIC_COSTS_CSV, "anthropic-cost", {(FIRST, "Claude Sonnet 4"): "2"}),
    "Anthropic usage, JSON": (samples.ANTHROPIC_USAGE, "anthropic-usage", {(FIRST, samples.SONNET): 2000}),
    "Anthropic usage, CSV": (samples.ANTHROPIC_USAGE_CSV, "anthropic-usage", {(FIRST, samples.SONNET): 2000}),
    "OpenRouter, JSON": (
        samples.OPENROUTER,
        "openrouter",
        {(FIRST, "openai/gpt-4.1-2025-04-14"): "2", (SECOND, "anthropic/claude-4.5-sonnet-20250929"): "0.5"},
    ),
    "OpenRouter, CSV": (
        samples.OPENROUTER_CSV,
        "openrouter",
        {(FIRST, "openai/gpt-4.1-2025-04-14"): "2", (SECOND, "openai/gpt-oss-120b:free"): "0"},
    ),
    "CUR 2.0": (
        samples.CUR,
        "aws-cur",
        {(FIRST, "Claude4.5Haiku"): "2", (FIRST, None): "0.35", (SECOND, "Claude Sonnet 4.6"): "0.5"},
    ),
    "CUR": (samples.OLD_CUR, "aws-cur", {(FIRST, "Claude4.5Haiku"): "2"}),
}  # fmt: skip


@pytest.mark.parametrize("sample", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_each_format_is_told_from_its_content(file, sample, packed):
    """By its own names and no file name, packed by gzip or not; named, it is the same."""
    text, form, expected = sample
    path = file(gzip.compress(text.encode()) if packed else text)
    bill = read_bills([path])
    assert (bill.format, shown(bill)) == (form, expected)
    assert shown(read_bills([path], form)) == expected


@pytest.mark.parametrize("sample", FORMATS.values(), ids=FORMATS)
def test_an_export_is_no_other_one(file, sample):
    """A format that is named and is not the file's is an error, never a bill of nothing."""
    text, form, _ = sample
    for other in {*BILL_FORMATS} - {form}:
        with pytest.raises(BillError, match=r"export-0"):
            read_bills([file(text, "export-0")], other)


def test_a_cost_and_usage_report_in_parquet(file, tmp_path):
    """Its costs are binary floats: what is counted is the decimal that Amazon has written."""
    table = pa.table(
        {
            "line_item_usage_start_date": pa.array([epoch(FIRST) * 1000, epoch(SECOND) * 1000], pa.timestamp("ms")),
            "line_item_product_code": ["AmazonBedrock", "6qh2xxample"],
            "line_item_usage_type": [
                "USW2-anthropic.claude-haiku-4-5-mantle-input-tokens",
                "USE1-MP:USE1_InputTokenCount-Units",
            ],
            "line_item_unblended_cost": [0.1, 0.2],
            "product": pa.array(
                [[], [("product_name", "Claude Haiku 4.5 (Amazon Bedrock Edition)")]], pa.map_(pa.string(), pa.string())
            ),
            "resource_tags": ["a", "b"],
        }
    )
    pq.write_table(table, tmp_path / "cur.parquet")
    bill = read_bills([tmp_path / "cur.parquet"])
    assert shown(bill) == {(FIRST, "anthropic.claude-haiku-4-5"): "0.1", (SECOND, "Claude Haiku 4.5"): "0.2"}


def test_parquet_of_something_else_and_without_pyarrow(tmp_path, file, monkeypatch):
    """What is missing is told, and the command that gets it."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(
        BillError, match=r"other.parquet is Parquet, but no Cost and Usage Report: it has no line_item_"
    ):
        read_bills([tmp_path / "other.parquet"])
    with pytest.raises(BillError, match=r"cut.parquet is damaged Parquet: .*; export it again"):
        read_bills([file(b"PAR1 and nothing else", "cut.parquet")])

    def missing(*_):
        raise ImportError

    monkeypatch.setitem(parquet_module.__builtins__, "__import__", missing)
    with pytest.raises(
        BillError, match=r'other.parquet is Parquet: Parquet needs pyarrow: pip install "tollspan\[parquet\]"'
    ):
        read_bills([tmp_path / "other.parquet"])


def test_pages_may_be_files_or_one_after_the_other(file):
    """A list of pages, a page on each line, or a file for each: together they are one export."""
    one = openai_costs([(FIRST, "gpt-4o, input", 1)], has_more=True, days=[FIRST])
    two = openai_costs([(SECOND, "gpt-4o, input", 2)], days=[SECOND])
    expected = {(FIRST, "gpt-4o"): "1", (SECOND, "gpt-4o"): "2"}
    for files in ([f"[{one}, {two}]"], [f"{one}\n{two}\n"], [one, two], [two, one]):
        bill = read_bills([file(text) for text in files])
        assert (shown(bill), bill.more) == (expected, False)
    path = file(one)
    assert read_bills([path, path]).more
    assert shown(read_bills([path, path])) == {(FIRST, "gpt-4o"): "1"}
    with pytest.raises(BillError, match="is an export of anthropic-cost, the others are of openai-costs"):
        read_bills([path, file(samples.ANTHROPIC_COSTS)])


def test_it_tells_how_much_of_a_file_is_read(file, tmp_path):
    """In bytes, or in rows of Parquet, up to all of it."""
    path = file(samples.CUR + samples.CUR.splitlines()[2].join("\n\n") * 5000)
    table = pa.csv.read_csv(path)
    pq.write_table(table, tmp_path / "cur.parquet")
    for each, size in ((path, path.stat().st_size), (tmp_path / "cur.parquet", table.num_rows)):
        told = []
        read_bills([each], None, lambda *figures: told.append(figures))  # noqa: B023 - called at once
        assert told[-1] == (size, size)
        assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_money_is_never_a_float(file):
    """Ten dimes are a dollar, also where they are numbers of JSON with all their digits."""
    lines = [(FIRST, "gpt-4o, input", 0.1)] * 10
    text = openai_costs(lines).replace("0.1,", "0.100000000000000000000000001,")
    assert shown(read_bills([file(text)])) == {(FIRST, "gpt-4o"): "1.00000000000000000000000001"}
    assert shown(read_bills([file(openai_costs(lines))])) == {(FIRST, "gpt-4o"): "1"}


@pytest.mark.parametrize(
    ("line_item", "expected"),
    [
        ("gpt-4o-2024-08-06, input", ("gpt-4o-2024-08-06", "input", None)),
        ("ft-gpt-4o-2024-08-06, output", ("ft-gpt-4o-2024-08-06", "output", None)),
        ("gpt-audio-mini-2025-12-15 audio, input", ("gpt-audio-mini-2025-12-15", "input", None)),
        ("priority | gpt-5.6-sol, output, long context", ("gpt-5.6-sol", "output, long context", "priority")),
        ("evals | gpt-4o, cached input", ("gpt-4o", "cached input", None)),
        ("whisper-1", ("whisper-1", "whisper-1", None)),
        ("web search tool calls", (None, "web search tool calls", None)),
        ("assistants api | file search", (None, "assistants api | file search", None)),
        ("Image models", (None, "Image models", None)),
    ],
)
def test_a_line_item_names_a_model_or_none(line_item, expected):
    """OpenAI has no field for the model: it stands before the comma, behind what the surface is called."""
    assert item_of(line_item) == expected


# ---- wrong files

WRONG = {
    "an empty file": (b"", "none of the exports that can be read"),
    "another CSV": ("name,score\nada,9\n", r"its first line is 'name, score'"),
    "another JSON": ('{"data": [{"id": 1}]}', "is JSON, but none of the exports"),
    "no page": ('{"object": "list"}', r"page 1 has no list `data`"),
    "an error of the API": (
        '{"error": {"message": "key sk-1 is wrong", "type": "auth"}}', r"as it is \(it is an error: 'auth'\)$",
    ),
    "half a JSON": (samples.OPENAI_COSTS[:200], r"is no whole JSON: .*; export it again"),
    "nested too deep": ("[" * 100_000, r"is no whole JSON"),
    "a zip": (b"PK\x03\x04...", "is a zip archive; unpack it first"),
    "half a gzip": (gzip.compress(samples.CUR.encode())[:60], r"is gzip, but damaged or cut"),
    "Latin-1": ("usage_date_utc,cost_usd,model\n2026-09-21,1,caf\xe9\n".encode("latin-1"), "is not UTF-8"),
    "JSON in Latin-1": (b'{"data": "\xe9"}', "is not UTF-8"),
    "a cost of words": (
        samples.ANTHROPIC_COSTS_CSV.replace("1.50,1.50", "much,1.50"), r"line 2: cost_usd is 'much', and no amount",
    ),
    "a cost of NaN": (
        samples.ANTHROPIC_COSTS_CSV.replace("0.50,0.50", "NaN,0.50"), r"line 3: cost_usd is 'NaN', which is no amount",
    ),
    "a day of words": (
        samples.ANTHROPIC_COSTS_CSV.replace("2026-09-21", "Monday"), r"line 2: usage_date_utc is 'Monday', and no day",
    ),
    "a cut line": (samples.CUR.replace(",0.20,USD,,", ",0.20"), r"line 7 has 5 columns, the header 8; the file"),
    "another currency": (samples.CUR.replace("1.00,USD", "1.00,EUR"), r"line 2: line_item_currency_code is 'EUR'"),
    "no Bedrock": (f"{samples.CUR_HEADER}\n2026-09-21,AmazonEC2,Usage,x,1,USD,,\n", "has 1 rows and none of Bedrock"),
    "euros": (
        samples.OPENAI_COSTS.replace('"usd"', '"eur"', 1), r"data\[0\]\.results\[0\]\.amount\.currency is 'eur'",
    ),
    "no amount": (
        samples.OPENAI_COSTS.replace('{"value": 1.5, "currency": "usd"}', "null"),
        r"data\[0\]\.results\[0\]\.amount is no JSON object",
    ),
    "true money": (
        samples.OPENAI_COSTS.replace("1.5", "true"), r"data\[0\]\.results\[0\]\.amount\.value is True, and no amount",
    ),
    "dollars for cents": (
        samples.ANTHROPIC_COSTS.replace('"123.78912"', "123.78912"), r"in this report it is a text in cents",
    ),
    "a bucket of no time": (
        samples.OPENAI_COSTS.replace(f'"start_time": {epoch(FIRST)}', '"start_time": null'),
        r"data\[0\]\.start_time is None, and no day",
    ),
    "a bucket in the past": (
        samples.OPENAI_COSTS.replace(str(epoch(FIRST)), "17"), r"data\[0\]\.start_time is 17, and no day",
    ),
    "tokens below 0": (
        samples.OPENAI_USAGE.replace("1000", "-1"), r"results\[0\]\.input_tokens is -1, and no count of tokens",
    ),
    "tokens of words": (samples.ANTHROPIC_USAGE_CSV.replace(",500,0", ",x,0"), r"usage_output_tokens is 'x', and no"),
    "results of no list": (
        json.dumps({"data": [{"start_time": 1, "end_time": 2, "results": {}}]}), "is JSON, but none of the exports",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_with_the_place_and_what_to_do(ledger, file, wrong):
    """The text names the file, the line or field, and what stands there; nothing is written."""
    content, said = wrong
    path = file(content, "the-export")
    with pytest.raises(BillError, match=said) as raised:
        ledger.reconcile([path], adjust=True)
    assert str(raised.value).startswith(str(path))
    assert ledger.latest_offset() == 1


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_export_is_a_bill_or_an_error_for_people(tmp_path_factory, data):
    """Whatever bytes of an export are changed or lost, it is read or refused in one sentence."""
    text = data.draw(st.sampled_from([sample[0] for sample in FORMATS.values()])).encode()
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.binary(max_size=4)) + text[at + data.draw(st.integers(0, 20)) :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(changed)
    try:
        read_bills([path])
    except BillError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - what is drawn decides whether there is one


# ---- names


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        ("openai", ["gpt-4o-2024-08-06", "gpt-4o", "openai/gpt-4o"]),
        ("openai", ["ft-gpt-4o-2024-08-06", "ft:gpt-4o-2024-08-06:org::abc"]),
        ("anthropic", ["Claude Haiku 4.5", "claude-haiku-4-5-20251001", "claude-haiku-4-5"]),
        ("anthropic", ["claude-3-5-sonnet-latest", "Claude Sonnet 3.5", "claude-3-5-sonnet-20241022"]),
        (
            "aws",
            [
                "us.anthropic.claude-haiku-4-5-20251001-v1:0",
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
                "Claude4.5Haiku",
                "Claude Haiku 4.5",
            ],
        ),
        ("aws", ["us.amazon.nova-2-lite-v1:0", "Nova2.0Lite"]),
        ("aws", ["us.meta.llama3-3-70b-instruct-v1:0", "Llama3-3-70B"]),
        ("openrouter", ["anthropic/claude-sonnet-4.5", "anthropic/claude-4.5-sonnet-20250929"]),
    ],
)
def test_names_of_one_model_have_one_key(provider, names):
    """With and without date, vendor, region and version, in any order of their words."""
    assert len({key_of(name, provider) for name in names}) == 1


def test_names_of_other_models_have_other_keys():
    """Versions are not dates, and their digits do not change places."""
    names = ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4-0613", "gpt-4-1106-preview", "gpt-5.3", "gpt-3.5", "o4-mini"]
    assert len({key_of(name, "openai") for name in names}) == len(names)
    haikus = ["claude-haiku-4-5", "claude-haiku-4", "claude-3-haiku", "claude-3-5-haiku", "claude-sonnet-4-5"]
    assert len({key_of(name, "anthropic") for name in haikus}) == len(haikus)


def test_dated_versions_are_apart_where_both_sides_tell_them(ledger, file):
    """They may differ in price; where one side has only the alias, they are one row under the ledger's name."""
    dated = ["gpt-4o-2024-05-13, input", "gpt-4o-2024-08-06, input"]
    path = file(openai_costs([(FIRST, dated[0], 5), (FIRST, dated[1], 2)]))
    call(ledger, "5", model="gpt-4o-2024-05-13")
    call(ledger)
    assert rows(ledger.reconcile([path])) == [
        (FIRST, "gpt-4o-2024-05-13", "5", "5"), (FIRST, "gpt-4o-2024-08-06", "2", "2"),
    ]  # fmt: skip
    call(ledger, "1", model="gpt-4o")
    assert rows(ledger.reconcile([path])) == [(FIRST, "gpt-4o", "7", "8")]


# ---- the comparison


def test_a_bill_and_a_ledger_that_agree(ledger, file):
    """By day and model, in total, and with no reason to look further."""
    call(ledger)
    call(ledger, "0.5", began=MORNING + 86_400, model="gpt-5-mini")
    call(ledger, "7", provider="azure.ai.openai")
    lines = [(FIRST, "gpt-4o-2024-08-06, input", 2), (SECOND, "gpt-5-mini, output", "0.5")]
    found = ledger.reconcile([file(openai_costs(lines))], tolerance=EXACT)
    assert rows(found) == [(FIRST, "gpt-4o-2024-08-06", "2", "2"), (SECOND, "gpt-5-mini", "0.5", "0.5")]
    assert (found.total.billed, found.total.counted, found.total.capture_rate) == (Decimal("2.5"), Decimal("2.5"), 1)
    assert found.is_within
    assert [codes(row) for row in found.rows] == [[], []]
    assert (found.only_billed, found.only_counted, found.reasons) == ([], [], ())


def test_how_much_is_captured(ledger, file):
    """The ledger's part of the bill, and what is missing; a day that is free has no rate."""
    call(ledger, "1.5")
    call(ledger, "0.25", began=MORNING + 86_400)
    found = ledger.reconcile([file(openai_costs([(FIRST, "gpt-4o-2024-08-06, input", 2)]))])
    first, second = found.rows
    assert (first.capture_rate, first.difference) == (Decimal("0.75"), Decimal("0.5"))
    assert (second.capture_rate, second.difference) == (None, Decimal("-0.25"))
    assert found.total.capture_rate == Decimal("0.875")
    assert not found.is_within


def test_usage_is_compared_in_tokens(ledger, file):
    """An export of usage states no costs; tokens tell what was captured all the same."""
    call(ledger, usage={"tokens_in": 700, "tokens_out": 500, "tokens_cache_read": 600})
    found = ledger.reconcile([file(samples.OPENAI_USAGE)])
    assert (found.measure, rows(found)) == ("tokens", [(FIRST, "gpt-4o-2024-08-06", "1500", "1200")])
    assert found.rows[0].capture_rate == Decimal("0.8")
    with pytest.raises(BillError, match="counts tokens and states no costs"):
        ledger.reconcile([file(samples.OPENAI_USAGE)], adjust=True)


@pytest.mark.parametrize(
    ("text", "share", "usd"),
    [("1%", "0.01", "0"), ("0.05 USD", "0", "0.05"), ("2.5%, $1", "0.025", "1"), ("1% or 0.01", "0.01", "0.01")],
)
def test_a_tolerance_is_a_share_or_an_amount(text, share, usd):
    """Or both, of which the larger one holds."""
    assert Tolerance.read(text) == Tolerance(Decimal(share), Decimal(usd))


@pytest.mark.parametrize("text", ["", "much", "-1%", "1% of it", "1 EUR"])
def test_a_wrong_tolerance_is_told(text):
    """With how to write it."""
    with pytest.raises(QueryError, match=r"is no tolerance; write it like 1%, 0\.05 USD"):
        Tolerance.read(text)


@pytest.mark.parametrize(
    ("usd", "tolerance", "within"),
    [
        ("1.98", "1%", True),
        ("1.9799", "1%", False),
        ("2.02", "1%", True),
        ("1.9799", "1%, 0.05", True),
        ("1.95", "0.05", True),
        ("1.9499", "0.05", False),
    ],
)
def test_within_and_out_of_tolerance(ledger, file, usd, tolerance, within):
    """In either direction, to the nano-dollar."""
    call(ledger, usd)
    path = file(openai_costs([(FIRST, "gpt-4o-2024-08-06, input", 2)]))
    assert ledger.reconcile([path], tolerance=Tolerance.read(tolerance)).is_within is within


def test_differences_that_cancel_out_are_still_out_of_tolerance(ledger, file):
    """Each row is judged, not only the total."""
    call(ledger, "3")
    call(ledger, "1", began=MORNING + 86_400)
    found = ledger.reconcile([file(openai_costs([(day, "gpt-4o-2024-08-06, input", 2) for day in (FIRST, SECOND)]))])
    assert found.total.is_within
    assert not found.is_within


def test_an_export_without_models_is_compared_by_day(ledger, file):
    """It was not grouped by them: how to get that is told."""
    call(ledger)
    call(ledger, "1", model="gpt-5-mini")
    found = ledger.reconcile([file(openai_costs([(FIRST, None, 3)]))])
    assert rows(found) == [(FIRST, "(all models)", "3", "3")]
    assert [(each.code, each.text) for each in found.reasons] == [
        ("no_models", "no line names a model; ask the API with group_by=line_item")
    ]
    with pytest.raises(BillError, match="there is no day of a model to adjust"):
        ledger.reconcile([file(openai_costs([(FIRST, None, 3)]))], adjust=True)


def test_only_the_days_of_the_export_and_of_the_question(ledger, file):
    """Calls of other days are not the bill's, and whole days are chosen by where they begin."""
    for day in range(4):
        call(ledger, began=MORNING + day * 86_400)
    path = file(openai_costs([(day, "gpt-4o-2024-08-06, input", 2) for day in (FIRST, SECOND)]))
    assert [row.day for row in ledger.reconcile([path]).rows] == [FIRST, SECOND]
    assert [row.day for row in ledger.reconcile([path], since=epoch(FIRST) + 1).rows] == [SECOND]
    assert [row.day for row in ledger.reconcile([path], until=epoch(SECOND)).rows] == [FIRST]
    with pytest.raises(QueryError, match=f"the export goes from {FIRST} to {SECOND}, and no whole day"):
        ledger.reconcile([path], since=epoch(SECOND) + 1)


def test_an_export_of_ages_is_refused(ledger, file):
    """A typing error in a day must not make a table of ten thousand days."""
    path = file(openai_costs([], days=["2016-01-01", "2038-01-01"]))
    with pytest.raises(BillError, match="the export goes from 2016-01-01 to 2038-01-01; export fewer days"):
        ledger.reconcile([path], form="openai-costs")


# ---- what may explain a difference


def explained(ledger, file, lines=(), text=None):
    """The reasons of the first day's row of gpt-4o, which is billed 2 USD unless told."""
    lines = lines or [(FIRST, "gpt-4o-2024-08-06, input", "2.000000000")]
    found = ledger.reconcile([file(text or openai_costs(lines))])
    return {reason.code: reason for reason in found.rows[0].reasons}


def test_calls_without_a_price(ledger, file):
    """They are in no sum of the ledger; how to price them is told."""
    call(ledger, "1")
    call(ledger, None, cost_source="unpriced")
    reason = explained(ledger, file)["unpriced"]
    assert (reason.calls, reason.text) == (1, "1 call without a price in the ledger: see `tollspan reprice`")


def test_estimated_costs(ledger, file):
    """What was cut or lost is counted at what it may have cost."""
    call(ledger, "1")
    call(ledger, None, cost_est_usd=Decimal(4), estimated=True, usage={})
    reasons = explained(ledger, file)
    assert (reasons["estimated"].usd, reasons["estimated"].text) == (4, "$4.00 of the ledger's is estimated")


def test_calls_that_were_seen_by_half(ledger, file):
    """On the wire only, in spans of others, not billed by what the ledger knows, without usage, or over midnight."""
    call(ledger, "0.5", category="uncovered")
    call(ledger, "0.5", category="foreign")
    call(ledger, None, event_type="cancel", usage={})
    call(ledger, "0.25", began=epoch(SECOND) - 1, timestamp=float(epoch(SECOND) + 1))
    call(ledger, "0.1", usage={})
    call(ledger, "0.1", usage={"tokens_in": 1, "tokens_in@claude-opus-4-5": 2})
    call(ledger, "0", usage={}, cost_source="free")
    reasons = explained(ledger, file)
    assert {code: reason.calls for code, reason in reasons.items()} == {
        "uncovered": 1, "foreign": 1, "unbilled": 1, "unknown": 1, "other_models": 1, "overnight": 1,
    }  # fmt: skip
    assert reasons["overnight"].usd == Decimal("0.25")


def test_tiers_and_cached_input(ledger, file):
    """What the bill has at prices of its own, and the ledger did not see."""
    call(ledger, "9", provider="anthropic", model=samples.SONNET)
    reasons = explained(ledger, file, text=samples.ANTHROPIC_COSTS)
    assert (reasons["tier"].usd, reasons["tier"].text) == (
        Decimal("0.2621088"), "$0.2621 is billed at the prices of the tier batch",
    )  # fmt: skip
    assert reasons["cached"].usd == Decimal("0.50")
    call(ledger, "1", provider="anthropic", model=samples.SONNET, usage={"tokens_in": 9, "tokens_cache_read": 9})
    assert "cached" not in explained(ledger, file, text=samples.ANTHROPIC_COSTS)


def test_lines_that_name_no_model_are_told_and_in_the_total(ledger, file):
    """Tools, tax and the like: no row of a model has them, and they are not judged alone."""
    call(ledger)
    call(ledger, "0.5", began=MORNING + 86_400, model="gpt-5-mini")
    found = ledger.reconcile([file(samples.OPENAI_COSTS)])
    (fees,) = [row for row in found.rows if row.sides == "other"]
    assert (fees.model, fees.billed, fees.is_within) == ("(no model)", Decimal("0.3"), True)
    assert fees.reasons[0].text == "lines that name no model: web search tool calls $0.3000"
    assert (found.total.difference, found.total.is_within) == (Decimal("0.3"), False)


def test_models_that_only_one_side_names(ledger, file):
    """They are listed, because one model may have two names; `same` says that it is so."""
    call(ledger, model="my-deployment")
    path = file(openai_costs([(FIRST, "gpt-4o-2024-08-06, input", 2)]))
    found = ledger.reconcile([path])
    assert (found.only_billed, found.only_counted) == (["gpt-4o-2024-08-06"], ["my-deployment"])
    assert {row.model: codes(row) for row in found.rows} == {
        "gpt-4o-2024-08-06": ["only_billed"], "my-deployment": ["only_counted"],
    }  # fmt: skip
    found = ledger.reconcile([path], same={"gpt-4o-2024-08-06": "my-deployment"})
    assert (rows(found), found.only_billed) == ([(FIRST, "my-deployment", "2", "2")], [])
    with pytest.raises(
        QueryError, match=r"the export names no model 'gpt-4o' in those days; it names gpt-4o-2024-08-06"
    ):
        ledger.reconcile([path], same={"gpt-4o": "my-deployment"})
    with pytest.raises(QueryError, match=r"the ledger names no model 'mine' in those days; it names my-deployment"):
        ledger.reconcile([path], same={"gpt-4o-2024-08-06": "mine"})


def test_rounding_of_the_export(ledger, file):
    """Amounts in cents may be off by half a cent each."""
    call(ledger, "2.004", provider="anthropic", model=samples.SONNET)
    reasons = explained(ledger, file, text=samples.ANTHROPIC_COSTS_CSV)
    assert reasons["rounding"].usd == Decimal("0.010")
    call(ledger, "0.1", provider="anthropic", model=samples.SONNET)
    assert "rounding" not in explained(ledger, file, text=samples.ANTHROPIC_COSTS_CSV)


def test_days_that_are_cut(ledger, file):
    """By the export, by the ledger's beginning, by pruning, or because the day is not over."""
    cut = openai_costs([(FIRST, "gpt-4o-2024-08-06, input", 2)], days=[FIRST])
    cut = cut.replace(str(epoch(SECOND)), str(epoch(SECOND) - 3600))
    assert "cut_bill" in explained(ledger, file, text=cut)
    today = f"{datetime.fromtimestamp(time.time(), UTC):%Y-%m-%d}"
    (row,) = ledger.reconcile([file(openai_costs([(today, "gpt-4o, input", 2)], days=[today]))]).rows
    assert (codes(row)[0], row.is_whole) == ("unfinished", False)
    before = f"{date.fromisoformat(FIRST).replace(day=20)}"
    (row,) = ledger.reconcile([file(openai_costs([(before, "gpt-4o, input", 2)], days=[before]))]).rows
    assert row.reasons[0].text == "the ledger begins inside or after it"
    with ledger.store.transaction() as connection:
        connection.execute("INSERT INTO ledger_fact VALUES ('pruned_ms', ?)", (epoch(FIRST) * 1000 + 1,))
    assert explained(ledger, file)["cut_ledger"].text == "calls of this day were pruned from the ledger"
    assert "cut_ledger" not in explained(ledger, file, [(SECOND, "gpt-4o, input", 1)])


def test_pages_that_are_missing_keys_of_ones_own_and_other_services(ledger, file):
    """What is of no single row is told once."""
    call(ledger)
    found = ledger.reconcile([file(openai_costs([(FIRST, "gpt-4o-2024-08-06, input", 2)], has_more=True))])
    assert [each.code for each in found.reasons] == ["more_pages"]
    found = ledger.reconcile([file(samples.OPENROUTER)])
    assert [(each.code, each.usd) for each in found.reasons] == [("own_keys", Decimal("0.7"))]
    found = ledger.reconcile([file(samples.CUR)])
    assert [(each.code, each.text) for each in found.reasons] == [
        ("other_services", "1 rows of other services were left out")
    ]


# ---- settling


def bill_of(file, usd, *, day=FIRST, item="gpt-4o-2024-08-06, input"):
    return file(openai_costs([(day, item, str(usd))], days=[day]))


def define(ledger, name, **fields):
    """A budget that processes know, in USD by UTC day unless told."""
    usual = {"limit": 10**12, "unit": "USD", "window": Window("day")}
    definition = BudgetDefinition(name=name, **{**usual, **fields})
    ledger.writer.define(Definition(name, dump_definition(definition), time.time()))
    ledger.flush()
    return definition.account


def charge(account, start=None, scope="", usd="2"):
    return Charge(
        budget=account, scope=scope, window_start=epoch(FIRST) if start is None else start, amount=to_nano(usd)
    )


def state(ledger):
    """What balances and reports say."""
    balances = {tuple(row)[:3]: tuple(row)[3:] for row in ledger.store.query("SELECT * FROM balance") if any(row[3:])}
    rows = [row for row in ledger.report("day,provider,model") if row.calls or row.cost_usd]
    return balances, rows


def test_a_day_of_a_model_is_brought_to_what_is_billed(ledger, file):
    """One adjust at noon of the day, under the ledger's own names; reports and the day's balance follow."""
    call(ledger, "1.5")
    found = ledger.reconcile([bill_of(file, 2)], adjust=True)
    assert (found.adjusted, found.left, found.rows[0].counted) == (1, {}, Decimal("1.5"))
    assert found.after.rows[0].counted == 2
    assert found.after.is_within
    (adjust,) = [event for event in ledger.events if event.event_type == "adjust"]
    assert (adjust.provider, adjust.model, adjust.cost_actual_usd) == ("openai", "gpt-4o-2024-08-06", Decimal("0.5"))
    assert adjust.reason == (f"openai-costs: 2.000000000 USD billed, 1.500000000 counted on {FIRST}, run {found.run}")
    assert int(adjust.call_id[:12], 16) == (epoch(FIRST) + 43_200) * 1000
    assert ledger.balance(("", "", epoch(FIRST))).spent == 2 * 10**9
    rows = {row.group["model"]: (row.calls, row.cost_usd) for row in ledger.report("model")}
    assert rows["gpt-4o-2024-08-06"] == (1, 2)
    assert not ledger.verify()


def test_the_same_bill_again_adds_nothing_and_a_later_one_what_it_says_more(ledger, file):
    """What was added is part of what the ledger has, and is told as that."""
    call(ledger, "1.5")
    ledger.reconcile([bill_of(file, 2)], adjust=True)
    offset = ledger.latest_offset()
    again = ledger.reconcile([bill_of(file, 2)], adjust=True)
    assert (again.run, again.adjusted, ledger.latest_offset()) == (None, 0, offset)
    later = ledger.reconcile([bill_of(file, "2.25")], adjust=True)
    assert (later.adjusted, later.rows[0].reasons[-1].code) == (1, "settled")
    adjusts = [event for event in ledger.events if event.event_type == "adjust"]
    assert [event.cost_actual_usd for event in adjusts] == [Decimal("0.5"), Decimal("0.25")]
    assert len({event.call_id for event in adjusts}) == 1
    assert not ledger.verify()


def test_it_is_taken_back(ledger, file):
    """All is as before; again, it does nothing; a later run has to be taken back first."""
    call(ledger, "1.5")
    before = state(ledger)
    first = ledger.reconcile([bill_of(file, 2)], adjust=True).run
    between = state(ledger)
    second = ledger.reconcile([bill_of(file, 3)], adjust=True).run
    assert ledger.undo("reconcile", first).blocked == 1
    assert ledger.undo("reconcile", second).now == 1
    assert state(ledger) == between
    assert ledger.undo("reconcile", first).now == 1
    assert state(ledger) == before
    assert ledger.undo("reconcile", first).now == 0
    assert not ledger.verify()
    assert ledger.reconcile([bill_of(file, 2)], adjust=True).adjusted == 1


def test_rows_that_are_not_sure_are_left_and_told(ledger, file):
    """Cut days, models that one side names, lines of no model; by `one_sided` such models too."""
    call(ledger, "1.5")
    call(ledger, "9", model="my-deployment")
    lines = [(FIRST, "gpt-4o-2024-08-06, input", 2), (FIRST, "gpt-9, input", 1), (FIRST, "web search tool calls", 1)]
    today = f"{datetime.fromtimestamp(time.time(), UTC):%Y-%m-%d}"
    path = file(openai_costs([*lines, (today, "gpt-4o-2024-08-06, input", 5)], days=[FIRST, today]))
    found = ledger.reconcile([path], adjust=True)
    assert (found.adjusted, found.left) == (
        1,
        {
            "only one side names the model (--map, or --one-sided)": 2,
            "the day is not there as a whole": 1,
        },
    )
    assert not found.after.is_within
    found = ledger.reconcile([path], adjust=True, one_sided=True)
    assert (found.adjusted, found.left) == (2, {"the day is not there as a whole": 1})
    costs = {row.group["model"]: row.cost_usd for row in ledger.report("model", since=epoch(FIRST))}
    assert costs == {"gpt-4o-2024-08-06": 2, "gpt-9": 1, "my-deployment": 0}
    assert ledger.reconcile([path], adjust=True, one_sided=True).adjusted == 0


def test_what_the_ledger_never_saw_is_of_the_provider_as_it_is_spelled(ledger, file):
    """A model of which there is no call gets the bill's name, at OpenTelemetry's name of the provider."""
    found = ledger.reconcile([file(samples.CUR)], adjust=True, one_sided=True)
    assert found.adjusted == 2
    adjusts = [event for event in ledger.events if event.event_type == "adjust"]
    assert {(event.provider, event.model) for event in adjusts} == {
        ("aws.bedrock", "Claude4.5Haiku"), ("aws.bedrock", "Claude Sonnet 4.6"),
    }  # fmt: skip
    assert ledger.reconcile([file(samples.CUR)], adjust=True, one_sided=True).adjusted == 0


def test_budgets_follow_where_it_is_sure_that_they_count_just_those_calls(ledger, file):
    """By provider or model alone, over whole days; not by user, not by the hour, and not where a call is missing."""
    month = epoch("2026-09-01")
    sure = [
        charge(define(ledger, "all")),
        charge(define(ledger, "by model", each="model"), scope="model=gpt-4o-2024-08-06"),
        charge(define(ledger, "openai", match={"provider": "openai"}, window=Window("month")), month),
        charge(define(ledger, "ever", window=Window("total")), 0),
    ]
    unsure = [
        charge(define(ledger, "ada", match={"user": "ada"})),
        charge(define(ledger, "each", each="user"), scope="user=ada"),
        charge(define(ledger, "hour", window=Window("hour")), epoch(FIRST) + 9 * 3600),
        charge(define(ledger, "rolling", window=Window("day", rolling=True)), epoch(FIRST) + 9 * 3600 // 1440 * 1440),
        charge(define(ledger, "berlin", window=Window("day", "Europe/Berlin")), epoch(FIRST) - 7200),
        charge(define(ledger, "rival")),
        charge(define(ledger, "old rival", match={"session": "s"})),
        charge("nobody knows it"),
        charge(define(ledger, "tokens", unit="tokens")),
        charge(define(ledger, "only one call")),
    ]
    define(ledger, "rival", match={"session": "s"})
    define(ledger, "old rival")
    call(ledger, charges=(*sure, *unsure))
    call(ledger, charges=(*sure, *unsure[:-1]))
    before = {each: ledger.balance((each.budget, each.scope, each.window_start)).spent for each in (*sure, *unsure)}
    assert ledger.reconcile([bill_of(file, "4.5")], adjust=True).adjusted == 1
    after = {each: ledger.balance((each.budget, each.scope, each.window_start)).spent for each in (*sure, *unsure)}
    assert {each.budget for each in after if after[each] != before[each]} == {each.budget for each in sure}
    assert all(after[each] - before[each] == 500_000_000 for each in sure)
    assert not ledger.verify()


def test_a_quick_other_one_wins_once(ledger, file, monkeypatch):
    """Two who reconcile at the same moment add the difference once; the slower one is told."""
    call(ledger, "1.5")
    path = bill_of(file, 2)
    write = _settle.write_adjusts

    def after_somebody(store, writer, adjusts):
        monkeypatch.setattr(_settle, "write_adjusts", write)
        ledger.append(replace(adjusts[0], reason="quicker"))
        return write(store, writer, adjusts)

    monkeypatch.setattr(_settle, "write_adjusts", after_somebody)
    found = ledger.reconcile([path], adjust=True)
    assert (found.adjusted, found.left) == (0, {"somebody else adjusted it at this moment": 1})
    assert ledger.reconcile([path]).rows[0].difference == 0
    assert not ledger.verify()


def test_an_interrupted_run_goes_on_under_its_name(ledger, file, monkeypatch):
    """Stopped between two pieces, or after the last: the same bill does the rest, and all of it can be taken back."""
    monkeypatch.setattr(_settle, "_PIECE", 2)
    days = [f"2026-09-{day}" for day in range(21, 27)]
    path = file(openai_costs([(day, "gpt-4o-2024-08-06, input", 2) for day in days], days=days))
    call(ledger, "1.5")
    before = state(ledger)
    write, pieces = _settle.write_adjusts, []

    def interrupted(*arguments):
        write(*arguments)
        pieces.append(1)
        if len(pieces) in {1, 3}:
            raise KeyboardInterrupt
        return set()

    monkeypatch.setattr(_settle, "write_adjusts", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ledger.reconcile([path], adjust=True)
        assert not ledger.verify()
    found = ledger.reconcile([path], adjust=True)
    assert (found.adjusted, found.after.total.difference) == (0, 0)
    assert ledger.undo("reconcile", found.run).now == 6
    assert state(ledger) == before


def test_repricing_after_it_tells_that_it_has_to_be_done_again(ledger, file, tmp_path):
    """The difference to a bill is no call: it is not repriced, and what is repriced below it changes the sum."""
    (tmp_path / "p.toml").write_text('[[price]]\nmodel = "gpt-4o*"\ninput_mtok = 1000\noutput_mtok = 1000\n')
    call(ledger, "1.5", cost_source="override")
    ledger.reconcile([bill_of(file, 2)], adjust=True)
    repriced = ledger.reprice(RepriceSelection(provider="openai"), prices=tmp_path / "p.toml")
    assert repriced.calls == {"changed": 1, "reconciled": 1}
    assert ledger.reconcile([bill_of(file, 2)], adjust=True).after.rows[0].counted == 2
    assert not ledger.verify()


usds = st.integers(-(10**10), 10**11).map(lambda nano: Decimal(nano).scaleb(-9))


@settings(max_examples=40, deadline=None)
@given(
    billed=st.lists(
        st.tuples(st.sampled_from([FIRST, SECOND]), st.sampled_from(["a-1", "b-2", None]), usds), max_size=6
    ),
    counted=st.lists(
        st.tuples(st.sampled_from([0, 1]), st.sampled_from(["a-1", "b-2", "c-3"]), usds.map(abs)), max_size=6
    ),
    again=usds,
)
def test_after_it_the_ledger_says_what_the_bill_does(tmp_path_factory, billed, counted, again):
    """Whatever both have: adjusted, they agree to the nano-dollar, twice over; taken back, nothing has changed."""
    folder = tmp_path_factory.getbasetemp()
    with Ledger(None) as ledger:
        call(ledger, "0", began=MORNING - 86_400, provider="nobody")
        for day, model, usd in counted:
            call(ledger, str(usd), began=MORNING + day * 86_400, model=model)
        lines = [(day, model and f"{model}, input", str(usd)) for day, model, usd in billed]
        paths = [folder / "one", folder / "two"]
        paths[0].write_text(openai_costs([*lines, (FIRST, "a-1, input", "1")]))
        paths[1].write_text(openai_costs([(FIRST, "a-1, input", str(again))]))
        states, runs = [state(ledger)], []
        for path in paths:
            found = ledger.reconcile([path], adjust=True, one_sided=True)
            assert all(row.difference == 0 for row in found.after.rows if row.sides != "other")
            assert not ledger.verify()
            if found.run:
                runs.append(found.run)
                states.append(state(ledger))
        for run in reversed(runs):
            assert states.pop() == state(ledger)
            assert ledger.undo("reconcile", run).now
            assert not ledger.verify()
        assert states.pop() == state(ledger)


def test_anthropics_cents_are_dollars(ledger, file):
    """The cost report counts in cents, as texts: 123.78912 are 1.2378912 USD."""
    text = anthropic_costs([(FIRST, samples.SONNET, "Input", "123.78912", "standard", "uncached_input_tokens")])
    call(ledger, "1.2378912", provider="anthropic", model="claude-sonnet-4")
    found = ledger.reconcile([file(text)], tolerance=EXACT)
    assert rows(found) == [(FIRST, "claude-sonnet-4", "1.2378912", "1.2378912")]
    assert found.is_within
