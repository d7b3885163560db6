"""Changes of a price file by a command: what the user wrote stays as it is, and what is set is in force."""

import datetime as dt
import textwrap
from decimal import Decimal
from pathlib import Path

import pytest

from tollspan.ledger import PriceFileError, set_alias, set_price
from tollspan.ledger._prices._file import parse_price_file

PATH = Path("prices.toml")
MINE = """\
# Prices of our contract, see the wiki.
[[price]]  # the big one
model = 'gpt-4o'
input_mtok = "2.0"   # until spring
output_mtok = 8.0

# All others of that family:
# 15 % off.
[[price]]
provider = "openai"
model = "gpt-*"
multiplier = 0.85

[deployments.azure] # names of ours
prod-chat = "gpt-4o"   # since May

[aliases]
corp = "openai/gpt-4o"
"""


def changed(fields, text=MINE):
    return set_price(text, PATH, fields)


def lines_that_differ(text, before=MINE):
    """The lines that are gone, and those that are new."""
    old, new = before.splitlines(), text.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_a_field_that_is_there_is_changed_where_it_stands():
    """Its comment stays, as does the rest of the entry; a field that is not there comes to its end."""
    change = changed({"model": "GPT-4o", "input_mtok": "1.5", "hold_usd": "0.10", "max_output_tokens": 99})
    assert (change.line, change.new) == (2, False)
    assert lines_that_differ(change.text) == (
        ['input_mtok = "2.0"   # until spring'],
        ['input_mtok = "1.5"   # until spring', 'hold_usd = "0.10"', "max_output_tokens = 99"],
    )
    assert change.text.index("output_mtok = 8.0\nhold_usd") > 0


def test_free_takes_the_place_of_prices_and_prices_of_free():
    """What contradicts the new field goes; the limits stay."""
    free = changed({"model": "gpt-4o", "free": True})
    assert lines_that_differ(free.text)[1] == ["free = true"]
    (entry, _) = parse_price_file(free.text, PATH).entries
    assert (entry.free, dict(entry.prices)) == (True, {})
    dear = changed({"model": "gpt-4o", "input_mtok": "3"}, free.text)
    assert "free" not in dear.text
    assert 'input_mtok = "3"' in dear.text


def test_a_new_entry_goes_before_the_one_that_would_hide_it():
    """The first entry that matches is in force: a name comes before a glob, and before that one's comments."""
    change = changed({"model": "gpt-5", "provider": "openai", "input_mtok": "1"})
    assert (change.line, change.new) == (7, True)
    assert change.text.index('model = "gpt-5"') < change.text.index("# All others")
    assert lines_that_differ(change.text) == ([], ['model = "gpt-5"', 'input_mtok = "1"'])
    found = parse_price_file(change.text, PATH).find("openai", ("gpt-5",), 0)
    assert found.line == 7


def test_a_new_entry_that_nothing_hides_comes_last():
    """It does not move what is there."""
    change = changed({"model": "claude-*", "provider": "anthropic", "multiplier": "0.9"})
    assert change.text.startswith(MINE)
    assert change.text[len(MINE) :] == textwrap.dedent("""
        [[price]]
        model = "claude-*"
        provider = "anthropic"
        multiplier = "0.9"
    """)


def test_dates_and_tiers_tell_entries_apart():
    """The price of a day to come is another entry; setting it again changes that one."""
    wanted = {"model": "gpt-4o", "from": dt.date(2027, 1, 1), "input_mtok": "1", "output_mtok": "2"}
    once = changed(wanted)
    assert once.new
    assert "from = 2027-01-01\n" in once.text
    twice = changed(wanted | {"input_mtok": "0.5"}, once.text)
    assert (twice.new, twice.line) == (False, once.line)
    assert lines_that_differ(twice.text, once.text) == (['input_mtok = "1"'], ['input_mtok = "0.5"'])
    batch = changed({"model": "gpt-4o", "service_tier": "batch", "input_mtok": "1"}, twice.text)
    assert batch.new
    assert len(parse_price_file(batch.text, PATH).entries) == 4


def test_prices_by_unit_stand_beside_each_other():
    """A second unit of a model is a second entry, and the same unit again is a change of the first."""
    text = ""
    for direction, usd in (("in", "1"), ("out", "2"), ("in", "3")):
        fields = {"model": "m", "unit": "token", "direction": direction, "usd": usd, "per": 1000}
        text = set_price(text, PATH, fields).text
    (entry,) = parse_price_file(text, PATH).entries
    assert {key: steps[0][1] for key, steps in entry.prices.items()} == {
        "input_mtok": Decimal(3000),
        "output_mtok": Decimal(2000),
    }


@pytest.mark.parametrize("text", ["", "# mine", '[aliases]\na = "b"', '[[price]]\nmodel = "x"\nfree = true'])
def test_a_file_may_be_empty_or_lack_its_last_line_end(text):
    """What is written is a file that can be read, whatever was there before."""
    change = changed({"model": 'odd "name" \x7f\té*', "input_mtok": "1", "images_kcount:1024x1024": "40"}, text)
    assert change.text.startswith(text)
    entry = parse_price_file(change.text, PATH).entries[-1]
    assert entry.model == 'odd "name" \x7f\té*'
    assert change.text.splitlines()[change.line - 1] == "[[price]]"


@pytest.mark.parametrize(
    ("text", "fields", "said"),
    [
        (MINE, {"model": "m", "input_mtok": "cheap"}, "'input_mtok' must be a price in USD"),
        (MINE, {"model": "m", "input_mtk": "1"}, "did you mean input_mtok"),
        (MINE, {"model": "m", "free": True, "input_mtok": "1"}, "not both"),
        (MINE, {"model": "m"}, "at least one price"),
        ("[[price]\n", {"model": "m", "free": True}, "line 1"),
        ('price = [{model = "m", free = true}]\n', {"model": "n", "free": True}, "as [[price]] tables"),
        ('[[price]]\nmodel = "m"\ninput_mtok = 1\n[[price.tiers]]\nabove = 1\ninput_mtok = 2\n',
         {"model": "m", "free": True}, "'tiers' is a table of its own; change it by hand"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_is_not_written(text, fields, said):
    """The error says what is wrong, and there is no new text."""
    with pytest.raises(PriceFileError, match=r"prices\.toml") as error:
        changed(fields, text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "provider", "target", "gone", "new"),
    [
        ("prod-chat", "az.ai.openai", "o3", ['prod-chat = "gpt-4o"   # since May'], 'prod-chat = "o3"   # since May'),
        ("Other.One", "azure", "gpt-5", [], '"Other.One" = "gpt-5"'),
        ("CORP", None, "azure/gpt-5", ['corp = "openai/gpt-4o"'], 'corp = "azure/gpt-5"'),
        ("corp2", None, "azure/gpt-5", [], 'corp2 = "azure/gpt-5"'),
        ("abc", "aws.bedrock", "nova", [], 'abc = "nova"'),
    ],
)  # fmt: skip
def test_another_name_is_set_among_its_like(name, provider, target, gone, new):
    """It stands in the table of its provider, which is made where there is none."""
    change = set_alias(MINE, PATH, name, provider, target)
    added = ["[deployments.aws]"] if provider == "aws.bedrock" else []
    assert lines_that_differ(change.text) == (gone, [*added, new])
    assert change.text.splitlines()[change.line - 1] == new
    assert change.new is not bool(gone)


def test_the_first_other_name_makes_its_table():
    """An empty file gets what it lacks."""
    assert set_alias("", PATH, "a b", None, "openai/x").text == '[aliases]\n"a b" = "openai/x"\n'
