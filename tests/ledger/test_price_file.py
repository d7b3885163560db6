"""The user's price file: what it can say, from when on, under which names, and how it says what is wrong with it."""

import datetime as dt
import json
import textwrap
import tomllib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.ledger import PriceBook, PriceFileError, RateCard, Unpriced
from tollspan.ledger._prices._entries import FIELDS
from tollspan.ledger._prices._rates import rate_card
from tollspan.ledger._prices._toml_lines import Places, statements

DAY = 86_400.0
AT = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()
BUILT_IN = PriceBook()
THOUSAND = {"tokens_in": 1000, "tokens_out": 1000}


def instant(text):
    return dt.datetime.fromisoformat(text).timestamp()


@pytest.fixture
def price_file(tmp_path):
    """Write a price file and open a book with it."""

    def write(text):
        path = tmp_path / "prices.toml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return PriceBook(overrides=path)

    return write


def card(book, model="m", provider="openai", at=AT, **more):
    return book.resolve(provider=provider, model=model, at=at, **more)


def cost(book, usage=THOUSAND, **more):
    return card(book, **more).cost(usage)


# ---- units


@pytest.mark.parametrize(
    ("price", "usage", "nano"),
    [
        ('unit = "token"\ndirection = "in"\nusd = 3\nper = 1_000_000', {"tokens_in": 1000}, 3_000_000),
        ('unit = "token"\ndirection = "out"\nusd = "0.002"\nper = 1000', {"tokens_out": 500}, 1_000_000),
        ('unit = "token"\ndirection = "cache_read"\nusd = 1\nper = 1_000_000', {"tokens_cache_read": 9}, 9_000),
        ('unit = "token"\ndirection = "cache_write"\nusd = 1\nper = 1_000_000', {"tokens_cache_write": 9}, 9_000),
        ('unit = "image"\nusd = 0.04', {"images": 2}, 80_000_000),
        ('unit = "image"\nusd = 0.04\ndetail = "1024x1024"', {"images": 2, "images:1024x1024": 2}, 80_000_000),
        ('unit = "second"\ndirection = "in"\nusd = 0.006\nper = 60', {"audio_seconds": 30}, 3_000_000),
        ('unit = "second"\ndirection = "out"\nusd = 0.1', {"video_seconds": 8}, 800_000_000),
        ('unit = "character"\nusd = 15\nper = 1_000_000', {"characters_in": 200}, 3_000_000),
        ('unit = "page"\nusd = 0.001', {"document_pages": 7}, 7_000_000),
        ('unit = "web_search"\nusd = 10\nper = 1000', {"web_searches": 3}, 30_000_000),
        ('unit = "rerank_search"\nusd = 2\nper = 1000', {"rerank_searches": 3}, 6_000_000),
        ('unit = "code_execution"\nusd = 0.03', {"code_executions": 1}, 30_000_000),
        ('unit = "request"\nusd = 0.005\ninput_mtok = 1', {"tokens_in": 1000}, 6_000_000),
        ('"images_kcount:1024x1024:high" = 167', {"images": 1, "images:1024x1024:high": 1}, 167_000_000),
    ],
)
def test_any_unit_has_its_price(price_file, price, usage, nano):
    """Units, `per` and `usd` say the same as the price keys of genai-prices, in the words of price pages."""
    assert cost(price_file(f'[[price]]\nmodel = "m"\n{price}'.replace("\n", "\n        ")), usage) == nano


def test_entries_of_one_model_complete_each_other(price_file):
    """One entry for each unit is how many people write it; a unit that none prices has no price, and not nothing."""
    book = price_file("""
        [[price]]
        model = "m"
        unit = "token"
        direction = "in"
        usd = 2
        per = 1_000_000
        hold_usd = 0.5

        [[price]]
        model = "M"
        unit = "token"
        direction = "out"
        usd = 4
        per = 1_000_000
        max_output_tokens = 99
    """)
    assert cost(book) == 6_000_000
    assert (card(book).max_output_tokens, card(book).hold_usd) == (99, Decimal("0.5"))
    assert isinstance(cost(book, {"images": 1}), Unpriced)


# ---- dates


def test_the_latest_started_price_is_in_force_and_history_keeps_its_own(price_file):
    """A price begins to the second; before all of them the built-in one is in force, as it is after an end."""
    book = price_file("""
        [[price]]
        model = "gpt-4o"
        from = 2026-11-21T12:07:30Z
        until = 2026-12-01
        free = true

        [[price]]
        model = "gpt-4o"
        from = 2026-10-01
        input_mtok = 1
        output_mtok = 1
    """)
    listed = cost(BUILT_IN, model="gpt-4o")
    for at, nano in (
        ("2026-09-30T23:59:59+00:00", listed),
        ("2026-10-01T00:00:00+00:00", 2_000_000),
        ("2026-11-21T12:07:29+00:00", 2_000_000),
        ("2026-11-21T12:07:30+00:00", 0),
        ("2026-11-21T12:14:59+00:00", 0),
        ("2026-11-30T23:59:59+00:00", 0),
        ("2026-12-01T00:00:00+00:00", 2_000_000),
    ):
        assert cost(book, model="gpt-4o", at=instant(at)) == nano, at


def test_dates_may_be_texts_and_have_offsets(price_file):
    """A day begins at midnight UTC, an instant where its offset says."""
    book = price_file("""
        [[price]]
        model = "m"
        from = "2026-11-21T12:00:00+02:00"
        until = "2026-11-22"
        free = true
    """)
    assert isinstance(card(book, at=instant("2026-11-21T09:59:59+00:00")), Unpriced)
    assert card(book, at=instant("2026-11-21T10:00:00+00:00")).free
    assert isinstance(card(book, at=instant("2026-11-22T00:00:00+00:00")), Unpriced)


def test_a_glob_that_has_not_begun_leaves_the_next_one_in_force(price_file):
    """Entries are asked in the order of the file, and only those in force answer."""
    book = price_file("""
        [[price]]
        model = "m-*"
        from = 2027-01-01
        input_mtok = 9

        [[price]]
        model = "m*"
        input_mtok = 1
    """)
    assert cost(book, {"tokens_in": 1000}, model="m-1") == 1_000_000
    assert cost(book, {"tokens_in": 1000}, model="m-1", at=instant("2027-06-01T00:00:00+00:00")) == 9_000_000


# ---- contracts, tiers, limits


def test_a_multiplier_alone_is_a_share_of_the_built_in_price(price_file):
    """Every rate, tier and service tier of the list times the factor; the row tells the factor and the list."""
    book = price_file('[[price]]\nmodel = "claude-sonnet-4-5"\nmultiplier = 0.85')
    for usage in (THOUSAND, {"tokens_in": 300_000, "tokens_cache_read": 1000, "tokens_out": 10}):
        for tier in (None, "batch"):
            asked = {"provider": "anthropic", "model": "claude-sonnet-4-5", "service_tier": tier}
            assert cost(book, usage, **asked) * 100 == cost(BUILT_IN, usage, **asked) * 85
    found = card(book, provider="anthropic", model="claude-sonnet-4-5")
    assert (found.source, found.rates()["multiplier"], found.rates()["input_mtok"]) == ("override", "0.85", "2.55")
    assert found.rates()["of"].startswith("genai-prices:")
    assert found.rates()["tiers"][0]["output_mtok"] == "19.125"
    assert (
        found.bound(300_000).nano(100) * 100
        == card(BUILT_IN, provider="anthropic", model="claude-sonnet-4-5").bound(300_000).nano(100) * 85
    )


def test_a_multiplier_is_of_fees_too():
    """A fee for each request is one of the prices."""
    prices = {"input_mtok": ((-1, Decimal(1)),), "requests_kcount": ((-1, Decimal(5)),)}
    whole = rate_card(prices, provider="p", model="m", source="list")
    assert whole.times(Decimal("0.5"), source="own").cost({"tokens_in": 1000}) * 2 == whole.cost({"tokens_in": 1000})


def test_a_multiplier_beside_prices_is_of_those(price_file):
    """A list price and the discount of a contract can stand beside each other."""
    book = price_file('[[price]]\nmodel = "m"\nmultiplier = "0.5"\ninput_mtok = 2\noutput_mtok = "4"')
    assert cost(book) == 3_000_000


def test_a_multiplier_of_nothing_is_no_price(price_file):
    """A model that no list has stays without a price."""
    assert isinstance(card(price_file('[[price]]\nmodel = "m"\nmultiplier = 0.5')), Unpriced)


def test_added_prices_leave_the_others_as_they_are(price_file):
    """One price more, or another one, beside the built-in ones with their tiers; a multiplier is of all of them."""
    book = price_file(
        '[[price]]\nmodel = "claude-sonnet-4-5"\nadd = true\nimages_kcount = 40\ncache_read_mtok = 1\n'
        '[[price]]\nmodel = "claude-opus-4-5"\nadd = true\nimages_kcount = 40\nmultiplier = 0.5\n'
        '[[price]]\nmodel = "odd"\nadd = true\nimages_kcount = 40\n'
    )
    asked = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
    for usage in (THOUSAND, {"tokens_in": 300_000, "tokens_cache_write_1h": 1000, "tokens_out": 10}):
        assert cost(book, usage, **asked) == cost(BUILT_IN, usage, **asked)
    assert cost(book, {"images": 1}, **asked) == 40_000_000
    assert cost(book, {"tokens_cache_read": 1_000_000}, **asked) == 10**9
    found = card(book, **asked)
    assert (found.source, found.rates()["tiers"][0]["input_mtok"], found.rates()["images_kcount"]) == (
        "override",
        "6",
        "40",
    )
    asked["model"] = "claude-opus-4-5"
    assert cost(book, {"images": 1}, **asked) == 20_000_000
    assert cost(book, **asked) * 2 == cost(BUILT_IN, **asked)
    assert cost(book, {"images": 1}, model="odd") == 40_000_000


def test_tiers_begin_above_so_many_tokens(price_file):
    """A tier applies to the whole call, and what it does not name stays at its price; the order does not matter."""
    book = price_file("""
        [[price]]
        model = "m"
        input_mtok = 1
        output_mtok = 10
        tiers = [{above = 2000, input_mtok = 4}, {above = 1000, input_mtok = 2, output_mtok = 20}]
    """)
    for tokens, nano in ((1000, 11_000_000), (1001, 22_002_000), (2001, 28_004_000)):
        assert cost(book, {"tokens_in": tokens, "tokens_out": 1000}) == nano


def test_a_service_tier_may_have_an_entry_of_its_own(price_file):
    """It goes before the entry for all tiers, wherever it stands; `standard` is what nobody asks for."""
    book = price_file("""
        [[price]]
        model = "m"
        input_mtok = 2

        [[price]]
        model = "m"
        service_tier = "Batch"
        input_mtok = 1

        [[price]]
        model = "n"
        service_tier = "standard"
        input_mtok = 3
    """)
    usage = {"tokens_in": 1000}
    for tier, nano in ((None, 2_000_000), ("flex", 2_000_000), ("batch", 1_000_000), ("default", 2_000_000)):
        assert cost(book, usage, service_tier=tier) == nano
    assert cost(book, usage, model="n", service_tier="default") == cost(book, usage, model="n") == 3_000_000
    assert isinstance(card(book, model="n", service_tier="batch"), Unpriced)


def test_limits_and_holds_without_a_price_leave_the_price_as_it_is(price_file):
    """The maximum output, the window and what to hold can be said of a model that is priced, or of one that is not."""
    book = price_file("""
        [[price]]
        model = "gpt-4o"
        max_output_tokens = 77
        context_window = 1000
        hold_usd = 0.10

        [[price]]
        model = "odd"
        hold_usd = "0.20"
    """)
    found = card(book, model="gpt-4o")
    assert (found.max_output_tokens, found.context_window, found.hold_usd) == (77, 1000, Decimal("0.10"))
    assert (found.cost(THOUSAND), found.by_user) == (cost(BUILT_IN, model="gpt-4o"), False)
    odd = card(book, model="odd")
    assert isinstance(odd, Unpriced)
    assert odd.hold_usd == Decimal("0.20")
    assert card(BUILT_IN, model="gpt-4o").hold_usd is None


def test_prices_of_ones_own_keep_the_known_limits(price_file):
    """A contract changes the price of a model, and neither its window nor the most that it gives."""
    found = card(price_file('[[price]]\nmodel = "gpt-4o"\ninput_mtok = 1\noutput_mtok = 1'), model="gpt-4o")
    listed = card(BUILT_IN, model="gpt-4o")
    assert (found.context_window, found.max_output_tokens) == (listed.context_window, listed.max_output_tokens)


# ---- other names

ALIASES = """
    [aliases]
    corp-fast = "openai/gpt-4o-mini"
    "ft:gpt-4o-mini:acme:*" = "openai/ft:gpt-4o-mini-2024-07-18"
    Everywhere = "gpt-4o"

    [deployments.azure]
    prod-chat = "gpt-4o"

    [deployments."aws.bedrock"]
    "arn:aws:bedrock:eu-west-1:1:application-inference-profile/abc" = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    def = "anthropic.claude-sonnet-4-5-20250929-v1:0"
"""


@pytest.mark.parametrize(
    ("provider", "model", "stands_for"),
    [
        ("azure.ai.openai", "prod-chat", ("azure", "gpt-4o")),
        ("azure", "Prod-Chat", ("azure", "gpt-4o")),
        (
            "aws.bedrock",
            "arn:aws:bedrock:eu-west-1:1:application-inference-profile/abc",
            ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ),
        (
            "aws.bedrock",
            "arn:aws:bedrock:eu-west-1:1:application-inference-profile/def",
            ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ),
        ("openai", "ft:gpt-4o-mini:acme:v7", ("openai", "ft:gpt-4o-mini-2024-07-18")),
        ("gateway.corp:8443", "corp-fast", ("openai", "gpt-4o-mini")),
        ("azure", "everywhere", ("azure", "gpt-4o")),
    ],
)
def test_another_name_has_the_price_of_what_it_stands_for(price_file, provider, model, stands_for):
    """Azure deployments, Bedrock's inference profiles, fine-tunes and names of gateways lead to a listed model."""
    found = card(price_file(ALIASES), provider=provider, model=model)
    listed = card(BUILT_IN, provider=stands_for[0], model=stands_for[1])
    assert found.cost(THOUSAND) == listed.cost(THOUSAND)
    assert (found.provider, found.source) == (stands_for[0], listed.source)


def test_a_deployment_is_one_of_its_provider_only(price_file):
    """The same name elsewhere means something else, or nothing."""
    book = price_file(ALIASES)
    assert isinstance(card(book, provider="openai", model="prod-chat"), Unpriced)
    assert book.own.alias_of("azure", ("prod-chat",)) == "gpt-4o"
    assert book.own.alias_of("openai", ("prod-chat",)) is None
    assert book.own.alias_of(None, ("corp-fast",)) == "openai/gpt-4o-mini"


def test_the_nearest_of_several_aliases_is_followed(price_file):
    """One of the provider goes before one for all, and a name before a glob."""
    book = price_file('[aliases]\n"a*" = "any-glob"\na1 = "any"\n[deployments.azure]\n"a*" = "glob"\na2 = "own"\n')
    asked = [("azure", "a2"), ("azure", "a1"), ("openai", "a1"), ("openai", "a2"), (None, "A3"), ("azure", "b")]
    stands_for = [book.own.alias_of(provider, (name,)) for provider, name in asked]
    assert stands_for == ["own", "glob", "any", "any-glob", "any-glob", None]


def test_an_entry_may_be_about_either_name(price_file):
    """A price for the deployment itself goes before its alias; one for the model holds for all its names."""
    book = price_file(
        ALIASES
        + """
    [[price]]
    provider = "azure"
    model = "gpt-4o"
    input_mtok = 1
    output_mtok = 1
    """
    )
    assert cost(book, provider="azure", model="prod-chat") == 2_000_000
    own = price_file(ALIASES + '\n    [[price]]\n    model = "prod-*"\n    free = true\n')
    assert card(own, provider="azure", model="prod-chat").free


def test_an_alias_is_followed_once(price_file):
    """Two names that stand for each other are no loop: what the first stands for has no price."""
    book = price_file('[aliases]\na = "b"\nb = "a"\nc = "openai/"\nd = "meta-llama/x"')
    for name in "abcd":
        assert isinstance(card(book, model=name), Unpriced)


# ---- what is wrong with it

ENTRY = '# mine\n\n[[price]]\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("[[price]]\nmodel = \n", 2, ["Invalid value"]),
        (ENTRY + "free = true\n[prise]\n", 6, ["'prise'", "did you mean price"]),
        (ENTRY + 'unit = "imagge"\nusd = 1\n', 5, ["'unit'", "did you mean image", "token, image"]),
        (ENTRY + 'unit = "token"\nusd = 1\nper = 1\n', 3, ["'direction'", "missing", "in, out"]),
        (ENTRY + 'unit = "token"\ndirection = "inn"\nusd = 1\n', 6, ["'direction'", "did you mean in"]),
        (ENTRY + 'unit = "image"\ndirection = "in"\nusd = 1\n', 6, ["'direction'", "out"]),
        (ENTRY + 'unit = "token"\ndirection = "in"\nusd = 1\n', 3, ["'per'", "missing", "1_000_000"]),
        (ENTRY + 'unit = "image"\nusd = 1\nper = 0\n', 7, ["'per'", "above 0"]),
        (ENTRY + 'unit = "image"\n', 3, ["'usd'", "missing"]),
        (ENTRY + "usd = 1\n", 3, ["'unit'", "missing"]),
        (ENTRY + "per = 1\ninput_mtok = 1\n", 5, ["'per'", "belongs to 'unit'"]),
        (ENTRY + 'images_kcount = 1\nunit = "image"\nusd = 1\n', 6, ["'unit'", "same price as 'images_kcount'"]),
        (ENTRY + 'from = "soon"\nfree = true\n', 5, ["'from'", "2026-12-01", "soon"]),
        (ENTRY + "from = 12:00:00\nfree = true\n", 5, ["'from'", "date or an instant"]),
        (ENTRY + "from = 2026-12-01\nuntil = 2026-12-01\nfree = true\n", 6, ["'until'", "later than 'from'"]),
        (ENTRY + "multiplier = 0\n", 5, ["'multiplier'", "free = true"]),
        (ENTRY + 'multiplier = "15 %"\n', 5, ["'multiplier'", "0.85"]),
        (ENTRY + "multiplier = 0.5\nfree = true\n", 6, ["'free'", "not both"]),
        (ENTRY + "hold_usd = -1\n", 5, ["'hold_usd'", "not negative"]),
        (ENTRY + "input_mtok = 1\ntiers = 3\n", 6, ["'tiers'", "above = 200_000"]),
        (ENTRY + "input_mtok = 1\ntiers = [{input_mtok = 1}]\n", 6, ["'tiers'", "'above'"]),
        (ENTRY + "input_mtok = 1\ntiers = [{above = 5}]\n", 6, ["'tiers'", "no price above 5"]),
        (ENTRY + "input_mtok = 1\ntiers = [{above = 5, input_mtk = 1}]\n", 6, ["did you mean input_mtok"]),
        (ENTRY + "input_mtok = 1\ntiers = [{above = 5, output_mtok = 1}]\n", 6, ["'output_mtok'", "below"]),
        (ENTRY + "input_mtok = 1\n[[price.tiers]]\nabove = -5\n", 6, ["'tiers'"]),
        (
            ENTRY + "input_mtok = 1\ntiers = [{above = 5, input_mtok = 1}, {above = 5, input_mtok = 2}]\n",
            6,
            ["two tiers"],
        ),
        (ENTRY + "input_mtok = 1\n" + ENTRY + "input_mtok = 2\n", 10, ["entry 2", "'input_mtok'", "line 3 already"]),
        (ENTRY + "free = true\n" + ENTRY + "free = true\n", 10, ["'free'", "line 3 already"]),
        (ENTRY + "free = true\n" + ENTRY + "output_mtok = 1\n", 8, ["'free'", "not both"]),
        (ENTRY + "hold_usd = 1\n" + ENTRY + "hold_usd = 1\n", 10, ["'hold_usd'", "line 3 already"]),
        (ENTRY + "add = true\n", 5, ["'add'", "at least one"]),
        (ENTRY + "add = 1\ninput_mtok = 1\n", 5, ["'add'", "true or false"]),
        (ENTRY + '"model:x" = "y"\nfree = true\n', 5, ["'model:x'", "not known"]),
        (ENTRY + 'service_tier = ""\nfree = true\n', 5, ["'service_tier'", "text"]),
        ('price = [{model = "m", free = true}, {model = "n"}]\n', 1, ["entry 2", "at least one price"]),
        ("\n[aliases]\na = 3\n", 3, ["[aliases]", "'a'", "openai/gpt-4o"]),
        ('\n[deployments.azure]\na = "b"\n"c.d" = ""\n', 4, ["[deployments.azure]", "'c.d'"]),
        ('\n[deployments.azure.x]\na = "b"\n', 2, ["[deployments.azure]", "'x'"]),
        ("\naliases = 3\n", 2, ["[aliases]", "table"]),
        ('x = """\n[[price]]\n"""\n', 1, ["'x'", "[[price]]"]),
        ('[[price]] # [[price]]\nmodel = "a" # x\nquux = "b"\n', 3, ["'quux'", "known are"]),
    ],
)
def test_an_error_names_the_file_the_line_and_the_field(price_file, text, line, parts):
    """Who wrote a wrong value finds it at once, and reads what to write instead."""
    with pytest.raises(PriceFileError) as error:
        price_file(text)
    said = str(error.value)
    assert f"prices.toml, line {line}: " in said or f"(at line {line}, " in said, said
    assert all(part in said for part in parts), said


_ODD = st.sampled_from(
    [
        "0",
        "-1",
        "1.5",
        "true",
        '""',
        '" "',
        '"x"',
        '"1e999999"',
        "1e999",
        "nan",
        "-inf",
        "[]",
        "[1]",
        "[{}]",
        "{}",
        "{a = 1}",
        "[{above = 1}]",
        "2026-01-01",
        "0001-01-01",
        "9999-12-31T23:59:59-12:00",
        "12:00:00",
        "1000000000000000000000000000000000000000000000",
    ]
)


def found_or_error(path):
    """What a file says of a model, or the text of the error that it is."""
    try:
        return PriceBook(overrides=path).resolve(provider="p", model="m", at=AT)
    except PriceFileError as error:
        return str(error)


@given(st.dictionaries(st.sampled_from([*FIELDS, "images_kcount:a:b", '"', "x.y"]), _ODD, max_size=4), _ODD)
def test_no_value_is_met_by_anything_but_a_price_or_an_error_for_people(tmp_path_factory, fields, target):
    """Whatever stands in a field, the file can be used, or PriceFileError tells why not."""
    given = {"model": '"m"'} | fields
    lines = [f"{name if name in FIELDS else json.dumps(name)} = {value}\n" for name, value in given.items()]
    path = tmp_path_factory.getbasetemp() / "odd.toml"
    path.write_text(f"[[price]]\n{''.join(lines)}[aliases]\na = {target}\n", encoding="utf-8")
    found = found_or_error(path)
    assert isinstance(found, RateCard | Unpriced) or found.startswith(str(path))


LINES = '''
top = 1 # [no]
[[price]] # [[price]]
model = "# = ["
tiers = [ # {
    { above = 1, input_mtok = 2 }, # ]
]
"a.b" = \'\'\'
[[price]]
c = 1\'\'\'\'\'
[ price . "x=y" ]
z = { q = "]" }
[[ price ]]
text = """ a \\""" "" """""
d.e = [[1], [2]]
'''


def test_lines_are_those_of_the_text():
    """Strings, comments and brackets that look like headers and fields are none."""
    assert tomllib.loads(LINES)
    found = [(one.keys, one.line) for one in statements(LINES)]
    assert found == [
        (("top",), 2),
        (("price",), 3),
        (("model",), 4),
        (("tiers",), 5),
        (("a.b",), 8),
        (("price", "x=y"), 11),
        (("z",), 12),
        (("price",), 13),
        (("text",), 14),
        (("d", "e"), 15),
    ]
    places = Places(LINES)
    assert [places.line("price", 0, name) for name in ("tiers", "x=y", "none")] == [5, 11, 3]
    assert [places.line("price", 1, name) for name in ("text", "d")] == [14, 15]
    assert (places.line("top"), places.line("price", 7), places.line("nothing")) == (2, 3, None)


_KEY = st.text("ab-_1", min_size=1, max_size=3)
_VALUE = st.recursive(
    st.sampled_from(['"#["', "'=]'", '"""\n[x]\n"""', "'''#\n'''", "1", "2026-01-01", '"a\\"b"', "true"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]"),
    max_leaves=4,
)


@given(st.lists(st.tuples(st.lists(st.tuples(_KEY, _VALUE), max_size=4, unique_by=lambda f: f[0])), max_size=4))
def test_every_table_and_field_is_found(tables):
    """Of any text made of tables and fields, each is found once, in order, at the line where it begins."""
    lines, wanted = [], []
    for (fields,) in tables:
        wanted.append((("price",), len(lines) + 1))
        lines += ["[[price]] # ="]
        for key, value in fields:
            wanted.append(((key,), len(lines) + 1))
            lines += f"{key} = {value} # [".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    assert [(one.keys, one.line) for one in statements(text)] == wanted


def test_a_file_is_a_card_for_whoever_asks(price_file):
    """The lines of the file that speak of a model are told: its alias, and its entry."""
    book = price_file('[aliases]\na = "openai/gpt-4o"\n\n[[price]]\nmodel = "gpt-4o"\nmultiplier = 2\n')
    assert book.own_lines(provider="x", model="a", at=AT) == (2, 4)
    assert book.own_lines(provider="openai", model="gpt-4o", at=AT) == (4,)
    assert book.own_lines(provider="openai", model="gpt-4.1", at=AT) == ()
    assert isinstance(card(book, model="a", provider="x"), RateCard)
