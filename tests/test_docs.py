"""What the documents say is what the code does."""

import re
from pathlib import Path

import pytest

from tollspan.ledger import settings_reference

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
