"""Budget definitions: what a text or a table says, which calls a budget counts, and what a wrong one is told."""

import dataclasses
import fnmatch
import pickle
from dataclasses import replace
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.ledger._definitions import (
    DIMENSIONS,
    MAX_LIMIT,
    BudgetDefinition,
    BudgetSyntaxError,
    Unit,
    budgets_from_table,
    format_limit,
    parse_budgets,
    parse_limit,
)
from tollspan.ledger._registry import dump_definition, load_definition
from tollspan.ledger._windows import Window, WindowKind

USD = 1_000_000_000
AT_ONCE = Window("hour", rolling=True)
ROLLING = tuple(kind for kind in get_args(WindowKind) if kind != "total")
windows = st.builds(Window, st.sampled_from(get_args(WindowKind))) | st.builds(
    Window, st.sampled_from(ROLLING), rolling=st.just(True)
)


def definition(**fields):
    return BudgetDefinition(**{"name": "b", "limit": USD, "unit": "USD", "window": Window("day")} | fields)


def from_table(*entries, mode="best_effort", timezone="UTC"):
    return budgets_from_table(list(entries), where="x.toml", mode=mode, timezone=timezone)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 USD / day", (5 * USD, "USD", Window("day"))),
        ("$5/day", (5 * USD, "USD", Window("day"))),
        ("$ 5 usd / Day", (5 * USD, "USD", Window("day"))),
        ("5USD/day", (5 * USD, "USD", Window("day"))),
        ("5 USD per day", (5 * USD, "USD", Window("day"))),
        ("$5 per month", (5 * USD, "USD", Window("month"))),
        ("0.10 USD", (USD // 10, "USD", None)),
        (".5 USD / total", (USD // 2, "USD", Window("total"))),
        ("0.000000001 USD / week", (1, "USD", Window("week"))),
        ("100000 tokens / hour", (100_000, "tokens", Window("hour"))),
        ("100_000 tokens / hour", (100_000, "tokens", Window("hour"))),
        ("  60 requests / minute ", (60, "requests", Window("minute"))),
        ("1 request / minute", (1, "requests", Window("minute"))),
        ("0 USD / day", (0, "USD", Window("day"))),
        ("5 USD / rolling day", (5 * USD, "USD", Window("day", rolling=True))),
        ("60 requests per Rolling Minute", (60, "requests", Window("minute", rolling=True))),
        ("8 concurrent", (8, "concurrent", AT_ONCE)),
    ],
)
def test_a_limit_is_read_exactly(text, expected):
    """Amount, unit and window are read from each way that people write a limit, without rounding."""
    assert parse_limit(text) == expected


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("5 USD / dya", "did you mean day?"),
        ("5 USD / days", "did you mean day?"),
        ("5 USD / fortnight", "minute, hour, day, week, month, total"),
        ("5 tokns / day", "did you mean tokens?"),
        ("5 EUR / day", "write USD, tokens, requests or concurrent"),
        ("5 USD / rolling", "has the window 'rolling'"),
        ("5 USD / rolling total", "write total without rolling"),
        ("5 USD / rolling dya", "did you mean day?"),
        ("8 concurrent / day", "write it like 8 concurrent"),
        ("5 / day", "has no unit"),
        ("5 per day", "has no unit"),
        ("$5 tokens / day", "write USD, tokens, requests or concurrent"),
        ("-5 USD / day", "is negative"),
        ("$-5/day", "is negative"),
        ("0,10 USD / day", "has a comma"),
        ("5 USD / 2 days", "write it like 5 USD / day"),
        ("five USD", "write it like 5 USD / day"),
        ("5_ USD", "write it like 5 USD / day"),
        ("", "write it like 5 USD / day"),
        ("nan USD / day", "write it like 5 USD / day"),
        ("0.0000000001 USD / day", "not a multiple of 0.000000001 USD"),
        ("5.00000000000000000000000000000000001 USD", "not a multiple of 0.000000001 USD"),
        ("0.5 requests / day", "not a multiple of 1 requests"),
        ("9300000000 USD / day", "at most 9000000000 USD"),
        (f"{'9' * 5000} tokens / day", "at most 9000000000 USD"),
        (5, "write a limit like '5 USD / day'"),
    ],
)
def test_a_wrong_limit_is_told_how_to_be_right(text, advice):
    """A limit that cannot be meant raises an error with the piece of text, what is wrong, and the right form."""
    with pytest.raises(BudgetSyntaxError) as refused:
        parse_limit(text)
    assert advice in str(refused.value)


@given(st.text(alphabet="0123456789.,-$ /USDtokensdayper_", max_size=30))
def test_any_text_is_a_limit_or_a_budget_syntax_error(text):
    """No text makes the parser fail in another way, and no limit is negative."""
    try:
        limit, unit, _ = parse_limit(text)
    except BudgetSyntaxError:
        return
    assert 0 <= limit <= MAX_LIMIT
    assert unit in get_args(Unit)


@given(
    limit=st.integers(min_value=0, max_value=MAX_LIMIT),
    unit=st.sampled_from(get_args(Unit)),
    window=st.none() | windows,
)
def test_the_normal_text_of_a_limit_reads_back_the_same(limit, unit, window):
    """Formatting and reading a limit gives the limit again, to the last nano-USD."""
    window = AT_ONCE if unit == "concurrent" else window
    assert parse_limit(format_limit(limit, unit, window)) == (limit, unit, window)


def test_a_text_of_budgets_becomes_definitions():
    """Each piece is one budget; `=*` keeps one balance per value; the rest of the match are globs."""
    text = "5 USD / day; user=*: 1 USD / hour; model=gpt-4*,user=ada: 2 USD / day;"
    assert parse_budgets(text, mode="strict", timezone="Asia/Tokyo") == (
        definition(name="env: 5 USD / day", limit=5 * USD, window=Window("day", "Asia/Tokyo")),
        definition(name="env: user=* 1 USD / hour", window=Window("hour", "Asia/Tokyo"), each="user"),
        definition(
            name="env: model=gpt-4*,user=ada 2 USD / day",
            limit=2 * USD,
            window=Window("day", "Asia/Tokyo"),
            match={"user": "ada", "model": "gpt-4*"},
        ),
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 USD / day", "$5.00/day"),
        ("user=ada,model=gpt-4*: 1 USD / hour", " model = gpt-4* , user = ada : $1 per Hour "),
        ("user=*: 100000 tokens / total", "user=*:100_000 token/total"),
    ],
)
def test_a_name_does_not_depend_on_spelling(one, other):
    """Two texts that mean the same give the same definition, so that their processes share a balance."""
    assert parse_budgets(one, mode="strict") == parse_budgets(other, mode="strict")


@pytest.mark.parametrize(
    ("text", "match", "each"),
    [
        ("tag:feature=search: 5 USD / day", (("tag:feature", "search"),), None),
        ("tag:feature=*,model=gpt-4*: 5 USD / day", (("model", "gpt-4*"),), "tag:feature"),
        ("model=anthropic.claude-v2:0: 5 USD / day", (("model", "anthropic.claude-v2:0"),), None),
    ],
)
def test_colons_inside_a_match_are_kept(text, match, each):
    """Only the last colon parts the match from the limit, as tags and names of models have colons of their own."""
    (budget,) = parse_budgets(text, mode="strict")
    assert (budget.match, budget.each) == (match, each)


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;"])
def test_no_text_is_no_budget(text):
    """Empty pieces are passed over."""
    assert parse_budgets(text, mode="strict") == ()


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("5 USD", "say / day, / month or / total"),
        ("5 USD / day; 1 USD / yaer", "'yaer'"),
        ("usr=ada: 5 USD / day", "did you mean user?"),
        ("colour=red: 5 USD / day", "tag:<name>"),
        ("tag:=red: 5 USD / day", "tag:<name>"),
        ("user: 5 USD / day", "write it like user=ada"),
        ("user=: 5 USD / day", "write it like user=ada"),
        ("user=a,,team=b: 5 USD / day", "write it like user=ada"),
        ("user=ada 5 USD / day", "has no colon before its limit"),
        ("user=*,model=*: 5 USD / day", "more than one '=*'"),
        ("user=a,user=b: 5 USD / day", "names user twice"),
        ("5 USD / day; $5/day", "stands there twice"),
    ],
)
def test_a_wrong_text_of_budgets_is_told_how_to_be_right(text, advice):
    """An error in TOLLSPAN_BUDGET names the piece, what is wrong, and an example of the right form."""
    with pytest.raises(BudgetSyntaxError) as refused:
        parse_budgets(text, mode="strict")
    assert advice in str(refused.value)


def test_a_table_may_say_everything():
    """Each key of a [[budget]] table reaches its field, and what it leaves out is the file's mode, zone, or default."""
    full = {
        "name": "summaries",
        "limit": "5 USD / day",
        "match": {"model": "gpt-4*"},
        "each": "user",
        "mode": "strict",
        "on_limit": "wait",
        "max_wait_timeout_s": Decimal("2.5"),
        "timezone": "Asia/Tokyo",
        "output_bound": 512,
        "cut_stream": "estimate",
    }
    assert from_table(full, {"name": "all", "limit": "9 tokens / total"}, timezone="Europe/Berlin") == (
        definition(
            name="summaries",
            limit=5 * USD,
            window=Window("day", "Asia/Tokyo"),
            match={"model": "gpt-4*"},
            each="user",
            on_limit="wait",
            max_wait_timeout_s=2.5,
            output_bound=512,
            cut_stream="estimate",
        ),
        definition(name="all", limit=9, unit="tokens", window=Window("total", "Europe/Berlin"), mode="best_effort"),
    )


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"limits": "5 USD / day"}, "did you mean limit?"),
        ({"limit": "5 USD"}, "say / day, / month or / total"),
        ({"limit": "5 USD / dya"}, "did you mean day?"),
        ({"limit": 5}, "write a limit like '5 USD / day'"),
        ({"timezone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({"match": {"usr": "ada"}}, "did you mean user?"),
        ({"match": {"user": 5}}, "is no glob"),
        ({"match": ["user"]}, "is not a mapping"),
        ({"each": "modle"}, "did you mean model?"),
        ({"mode": "strct"}, "did you mean strict?"),
        ({"on_limit": "riase"}, "did you mean raise?"),
        ({"on_limit": "fallback"}, 'it belongs to on_limit="fallback"'),
        ({"fallback_model": "gpt-4o-mini"}, 'it belongs to on_limit="fallback"'),
        ({"warn_at": 0.8}, "is no list of fractions of the limit; write it like [0.5, 0.8]"),
        ({"warn_at": [0]}, "is no list of fractions"),
        ({"limit": "8 concurrent", "warn_at": [0.5]}, "warn_at: calls at once are never spent"),
        ({"max_wait_timeout_s": -1}, "a number of seconds"),
        ({"max_wait_timeout_s": True}, "a number of seconds"),
        ({"max_wait_timeout_s": 10**400}, "a number of seconds"),
        ({"max_wait_timeout_s": Decimal("nan")}, "a number of seconds"),
        ({"output_bound": "least"}, "is none of clamp, max, learned, nor a number of tokens like 4096"),
        ({"output_bound": 0}, "is none of clamp, max, learned, nor a number of tokens like 4096"),
        ({"output_bound": True}, "is none of clamp, max, learned, nor a number of tokens like 4096"),
        ({"cut_stream": "drop"}, "hold, estimate"),
        ({"name": ["b"]}, "a budget needs one"),
    ],
)
def test_a_wrong_table_is_told_how_to_be_right(wrong, advice):
    """An error in a [[budget]] table names the file, the budget and the key, and says what to write."""
    with pytest.raises(BudgetSyntaxError) as refused:
        from_table({"name": "first", "limit": "1 USD / day"}, {"name": "b", "limit": "1 USD / day"} | wrong)
    text = str(refused.value)
    assert text.startswith("x.toml: budget ")
    assert advice in text
    assert refused.value.entry == 2


@pytest.mark.parametrize(
    ("entries", "advice"),
    [
        ([{"limit": "1 USD / day"}], "budget number 1 has no name"),
        (["5 USD / day"], "budget number 1 is not a table"),
        ([{"name": "b", "limit": "1 USD / day"}] * 2, "stands there twice"),
    ],
)
def test_tables_without_an_identity_are_refused(entries, advice):
    """A budget without a name, or with the name of another, is an error: its balance could not be told apart."""
    with pytest.raises(BudgetSyntaxError, match=advice):
        from_table(*entries)


@pytest.mark.parametrize(
    ("match", "each", "dimensions", "scope"),
    [
        ({}, None, {}, ""),
        ({}, None, {"user": "ada"}, ""),
        ({}, "user", {"user": "ada"}, "user=ada"),
        ({}, "user", {"team": "core"}, None),
        ({}, "tag:feature", {"tag:feature": "search"}, "tag:feature=search"),
        ({"user": "ada"}, None, {"user": "ada"}, ""),
        ({"user": "ada"}, None, {"user": "Ada"}, None),
        ({"user": "ada"}, None, {}, None),
        ({"user": "*"}, None, {}, None),
        ({"user": "*"}, None, {"user": "ada"}, ""),
        ({"model": "gpt-4*"}, "user", {"model": "gpt-4o", "user": "ada"}, "user=ada"),
        ({"model": "gpt-4*"}, "user", {"model": "gpt-5", "user": "ada"}, None),
        ({"model": "gpt-4*", "user": "a?a"}, None, {"model": "gpt-4o", "user": "ada"}, ""),
        ({"model": "gpt-4*", "user": "a?a"}, None, {"model": "gpt-4o", "user": "bob"}, None),
        ({"model": "gpt-[45]"}, None, {"model": "gpt-5"}, ""),
    ],
)
def test_a_budget_counts_calls_that_match_all_of_it(match, each, dimensions, scope):
    """A call counts if every glob matches and the `each` dimension is known; its scope names that value."""
    assert definition(match=match, each=each).scope(dimensions) == scope


@given(glob=st.text(alphabet="ab*?[!-].", min_size=1, max_size=8), value=st.text(alphabet="ab.-[]\n", max_size=8))
def test_a_glob_matches_as_fnmatchcase_does(glob, value):
    """The compiled patterns agree with the standard library on every glob and value."""
    assert (definition(match={"user": glob}).scope({"user": value}) == "") == fnmatch.fnmatchcase(value, glob)


def test_a_definition_is_a_value():
    """Definitions with an equal match are equal and hash alike, in any order of its keys; they copy and pickle."""
    one = definition(match={"user": "ada", "model": "gpt-4*"})
    other = definition(match={"model": "gpt-4*", "user": "ada"})
    assert one == other
    assert hash(one) == hash(other)
    assert one.match == (("model", "gpt-4*"), ("user", "ada"))
    assert pickle.loads(pickle.dumps(one)) == one
    raised = dataclasses.replace(one, limit=2 * USD)
    assert (raised.limit, raised.match, raised.scope({"user": "ada", "model": "gpt-4o"})) == (2 * USD, one.match, "")


@pytest.mark.parametrize("limit", [-1, 1.5, True, MAX_LIMIT + 1, "5 USD"])
def test_a_limit_is_a_whole_number_that_fits_a_balance(limit):
    """A limit that is negative, broken, or beyond a 64-bit column is refused; zero is allowed."""
    assert definition(limit=0).limit == 0
    with pytest.raises(BudgetSyntaxError, match="budget 'b', limit: "):
        definition(limit=limit)


def test_every_dimension_can_be_matched_and_counted_apart():
    """Each dimension of a call works in `match` and in `each`."""
    for dimension in (*DIMENSIONS, "tag:feature"):
        assert definition(match={dimension: "x"}, each=dimension).scope({dimension: "x"}) == f"{dimension}=x"


@given(
    name=st.text(min_size=1).filter(str.strip),
    limit=st.integers(min_value=0, max_value=MAX_LIMIT),
    unit=st.sampled_from(get_args(Unit)),
    window=windows,
    timezone=st.sampled_from(["UTC", "Asia/Kolkata"]),
    match=st.dictionaries(st.sampled_from((*DIMENSIONS, "tag:a b")), st.text(min_size=1)),
    each=st.none() | st.sampled_from((*DIMENSIONS, "tag:feature")),
    mode=st.sampled_from(["strict", "best_effort"]),
    way_out=st.sampled_from([("raise", None), ("wait", None), ("warn", None), ("fallback", "gpt-4o-mini")]),
    max_wait_timeout_s=st.floats(0, 1e9),
    output_bound=st.sampled_from(["clamp", "max", "learned"]) | st.integers(1, 10**6),
    cut_stream=st.sampled_from(["hold", "estimate", "drain"]),
    warn_at=st.lists(st.floats(0.01, 2)).map(tuple),
)
def test_the_ledgers_text_of_a_definition_reads_back_the_same(window, timezone, way_out, **fields):
    """Another process sees the whole definition that this one has noted, to the last field."""
    if fields["unit"] == "concurrent":
        window, fields["warn_at"] = AT_ONCE, ()
    on_limit, model = way_out
    zoned = replace(window, timezone=timezone)
    noted = definition(window=zoned, on_limit=on_limit, fallback_model=model, **fields)
    assert load_definition(dump_definition(noted)) == noted
