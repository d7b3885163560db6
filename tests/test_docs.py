"""What the documents say is what the code does."""

import datetime as dt
import re
from pathlib import Path

import pytest

from tollspan.console._cli import prices
from tollspan.console._price_notes import notes_on
from tollspan.ledger import PriceBook, PriceCatalog, RateCard, Unpriced, settings_reference
from tollspan.ledger._prices._entries import FIELDS, UNIT_KEYS
from tollspan.ledger._prices._rates import PRICE_KEYS

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- begin: generated from SETTINGS -->\n", "<!-- end -->"


def test_the_settings_page_is_generated_from_the_table():
    """docs/settings.md holds exactly the table that the settings in code make."""
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0] == settings_reference()


def test_readme_is_short_and_its_links_lead_somewhere():
    """The README fits 120 lines, and every file that it links to is there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs/decisions").glob("*.md")))
def test_decisions_are_numbered_and_short(page):
    """A decision has a number in its name, the same in its title, and takes half a page."""
    lines = (ROOT / "docs/decisions" / page).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {int(page[:4])}. ")
    assert len(lines) <= 30


def test_readme_code_runs():
    """The README's example of budgets and scopes runs as it is written, around a client of our own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]

    class Client:
        class chat:  # noqa: N801 - as the SDK spells it
            class completions:  # noqa: N801 - as the SDK spells it
                @staticmethod
                def create(*_args):
                    return "an answer"

    names = {"client": Client()}
    exec(compile(code.replace("instrument()  #", "#"), "README.md", "exec"), names)
    assert names["answer"] == "an answer"
    assert names["run"].remaining == names["run"].limit


def priced(book, provider, model, usage, *, at="2026-11-21", tier=None):
    """USD of a usage on a day, by a book."""
    when = dt.datetime.fromisoformat(f"{at}T00:00:00+00:00").timestamp()
    card = book.resolve(provider=provider, model=model, at=when, service_tier=tier)
    cost = card.cost(usage) if isinstance(card, RateCard) else card
    return cost if isinstance(cost, Unpriced) else cost / 10**9


def test_the_example_of_a_price_file_does_what_its_comments_say(tmp_path):
    """docs/prices.md: the file can be read, and each of its entries has the effect that it tells."""
    text = (ROOT / "docs/prices.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    (tmp_path / "prices.toml").write_text(text, encoding="utf-8")
    own, listed = PriceBook(overrides=tmp_path / "prices.toml"), PriceBook()
    million, long = {"tokens_in": 100_000, "tokens_out": 100_000}, {"tokens_in": 200_001, "tokens_out": 0}
    built_in = priced(listed, "openai", "gpt-4o", million)
    assert priced(own, "openai", "gpt-4o", million) == pytest.approx(built_in * 0.85)
    assert priced(own, "google", "gemini-2.5-flash", million) == priced(listed, "google", "gemini-2.5-flash", million)
    assert priced(own, "google", "gemini-2.5-flash", {"images": 1}) == 0.04
    assert priced(own, "azure", "tuned-1", million) == 1
    assert priced(own, "azure", "tuned-1", long) == pytest.approx(0.800004)
    assert priced(own, "azure", "tuned-1", million, at="2026-12-01") == 0.75
    assert priced(own, "azure", "tuned-1", million, tier="batch") == 0.5
    assert priced(own, "x", "our-painter", {"images": 2, "images:1024x1024": 2, "tokens_in": 1000}) == 0.085
    assert isinstance(priced(own, "x", "our-painter", {"images": 1}), Unpriced)
    assert priced(own, None, "llama3", million) == 0
    assert priced(own, "azure", "prod-chat", million) == priced(listed, "azure", "gpt-4o", million)
    assert priced(own, "gateway", "corp-fast", million) == priced(own, "openai", "gpt-4o-mini", million)
    profile = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"
    claude = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert priced(own, "aws.bedrock", profile, million) == priced(listed, "aws", claude, million)
    assert priced(own, "openai", "ft:gpt-4o-mini:acme:1", million) == priced(
        listed, "openai", "ft:gpt-4o-mini-2024-07-18", million
    )
    assert list(notes_on(own, PriceCatalog(own), (), dt.datetime(2026, 11, 21, tzinfo=dt.UTC).timestamp())) == []
    held = own.resolve(provider="x", model="search-agent", at=0)
    assert (str(held.hold_usd), isinstance(held, Unpriced)) == ("0.50", True)


def test_the_page_of_prices_names_every_field_command_and_unit():
    """What a price file can say, and what the commands are, stands in docs/prices.md."""
    text = (ROOT / "docs/prices.md").read_text(encoding="utf-8")
    assert [name for name in FIELDS if name not in PRICE_KEYS and name not in text] == []
    assert [name for name in prices.commands if f"`tollspan prices {name}" not in text] == []
    assert [unit for unit in UNIT_KEYS if unit not in text and unit != "code_execution"] == []
