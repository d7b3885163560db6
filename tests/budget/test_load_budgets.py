"""`load_budgets()`: budgets that a running process takes from a file, a text or tables."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from tollspan.budget import BudgetBusy, BudgetExceeded, load_budgets, set_testing
from tollspan.exporter import pipeline
from tollspan.ledger import BudgetDefinition, BudgetSyntaxError, ConfigurationError, parse_limit

TABLES = '[[budget]]\nname = "small"\nlimit = "0.15 USD / day"\nmode = "strict"\n'
IN_MANY_TOOLS = '[project]\nname = "app"\n\n[tool.tollspan]\nprofile = "p"\n\n[[tool.tollspan.budget]]\n' + TABLES[11:]
LIST = [{"name": "small", "limit": "0.15 USD / day", "mode": "strict"}]
LIMIT = dict(zip(("limit", "unit", "window"), parse_limit("0.15 USD / day"), strict=True))


def in_a_file(name, text):
    Path(name).write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize(
    "source",
    [
        lambda: in_a_file("budgets.toml", TABLES),
        lambda: Path(in_a_file("budgets.toml", "\ufeff" + TABLES)).absolute(),
        lambda: in_a_file("pyproject.toml", IN_MANY_TOOLS),
        lambda: TABLES,
        lambda: IN_MANY_TOOLS,
        lambda: 'budget = [{name = "small", limit = "0.15 USD / day", mode = "strict"}]',
        lambda: LIST,
        lambda: iter(LIST),
        lambda: [BudgetDefinition(name="small", **LIMIT)],
    ],
    ids=["file", "path", "pyproject", "text", "text for many tools", "line", "list", "iterator", "definition"],
)
def test_what_is_loaded_holds_for_the_whole_process(calls, source):
    """From each kind of source come the same definitions, and calls have to fit them until they are taken out."""
    calls.spend(10_000)
    loaded = load_budgets(source())
    assert loaded == (BudgetDefinition(name="small", **LIMIT),)
    calls.ask()
    with pytest.raises(BudgetBusy, match="'small'"):
        calls.ask()
    loaded.remove()
    calls.ask()


def test_a_budget_in_force_is_replaced_and_comes_back(calls, configure):
    """A loaded budget takes the place of the one of its name, keeps its balance, and gives the place back."""
    configure(mode="strict", budgets=[BudgetDefinition(name="small", **LIMIT | {"limit": 50_000_000})])
    with pytest.raises(BudgetExceeded):
        calls.ask()
    with load_budgets(TABLES):
        calls.spend(10_000)
        with pytest.raises(BudgetExceeded) as refused:
            calls.ask()
        assert (refused.value.limit, refused.value.spent) == (Decimal("0.15"), Decimal("0.10025"))
    with pytest.raises(BudgetExceeded) as refused:
        calls.ask(max_output_tokens=1)
    assert (refused.value.limit, refused.value.spent) == (Decimal("0.05"), Decimal("0.10025"))


def test_a_changed_file_is_loaded_anew_without_a_gap():
    """Load it, then remove what was loaded before: at no moment is there no limit, and what the file lost is gone."""
    first = load_budgets(TABLES + TABLES.replace("small", "other"))
    second = load_budgets(TABLES.replace("0.15", "0.25"))
    names = {budget.name: budget.limit for budget in pipeline().settings.budgets}
    assert names == {"small": 250_000_000, "other": 150_000_000}
    first.remove()
    first.remove()
    assert pipeline().settings.budgets == second
    second.remove()
    assert pipeline().settings.budgets == ()


def test_budgets_beside_the_configured_ones(calls, configure):
    """What was configured stays in force, and so does every budget of the code."""
    configure(budget="1 requests / day", mode="strict")
    load_budgets(LIST)
    calls.ask()
    with pytest.raises(BudgetExceeded, match="1 requests"):
        calls.ask()


def test_what_a_test_loads_ends_with_it():
    """Inside of `set_testing()` the application's budgets are not seen, and what is loaded there ends with it."""
    load_budgets(LIST)
    with set_testing():
        assert pipeline().settings.budgets == ()
        inner = load_budgets(TABLES.replace("small", "inner"))
        assert pipeline().settings.budgets == inner
    inner.remove()
    assert [budget.name for budget in pipeline().settings.budgets] == ["small"]


@pytest.mark.parametrize(
    "case",
    [
        (None, "", "", "best_effort"),
        (None, "", 'mode = "strict"\n', "strict"),
        (None, "best_effort", 'mode = "strict"\n', "best_effort"),
        ("strict", "", 'mode = "best_effort"\n', "strict"),
    ],
    ids=["default", "source", "environment", "flag"],
)
def test_mode_and_time_zone_of_budgets_that_do_not_say_it(monkeypatch, configure, case):
    """Flag and environment go before what the source says for all its budgets, and that before the default."""
    flag, variable, said, mode = case
    monkeypatch.setenv("TOLLSPAN_MODE", variable)
    configure(mode=flag)
    text = said + 'timezone = "Europe/Berlin"\n[[budget]]\nname = "b"\nlimit = "1 USD / day"\n'
    (loaded,) = load_budgets(text)
    assert (loaded.mode, loaded.window.timezone) == (mode, "Europe/Berlin")
    (own,) = load_budgets([{"name": "own", "limit": "1 USD / day", "mode": "strict", "timezone": "Asia/Tokyo"}])
    assert (own.mode, own.window.timezone) == ("strict", "Asia/Tokyo")


def test_settings_of_the_file_that_are_not_about_budgets_change_nothing():
    """A whole tollspan.toml may be loaded: neither the ledger nor the profile of the process are its business."""
    before = pipeline().settings
    load_budgets(f'profile = "other"\nledger = "other.db"\nqueue_limit = 5000\n{TABLES}')
    assert replace(pipeline().settings, budgets=()) == before


NO_WINDOW = BudgetDefinition(name="run", **LIMIT | {"window": None})


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        (f'{TABLES}\n[[budget]]\nname = "b"\nlimit = "5 UDS / day"\n', BudgetSyntaxError,
         r"^the TOML text, line 6: budget 'b', limit: '5 UDS / day' has the unit 'UDS' \(did you mean USD\?\)"),
        (TABLES + 'on_limt = "wait"\n', BudgetSyntaxError, r"line 1: .* no key 'on_limt' \(did you mean on_limit"),
        (TABLES + TABLES, BudgetSyntaxError, "line 5: budget 'small' stands there twice"),
        ([{"name": "b", "limit": "5 USD"}], BudgetSyntaxError, "^the list of budgets: budget 'b', limit: '5 USD' has"),
        ([{"limit": "5 USD / day"}], BudgetSyntaxError, "^the list of budgets: budget number 1 has no name"),
        ([*LIST, BudgetDefinition(name="small", **LIMIT)], BudgetSyntaxError, "'small' stands there twice"),
        ([NO_WINDOW], BudgetSyntaxError, "'run' has no window"),
        ([5], BudgetSyntaxError, "budget number 1 is not a table"),
        ("[[budget]\n", ConfigurationError, r"^the TOML text is no TOML: .*line 1"),
        (TABLES.replace("budget", "budgets"), ConfigurationError, r"^the TOML text has no budgets; write \[\[budget"),
        ("[tool.black]\nx = 1\n", ConfigurationError, r"write \[\[tool.tollspan.budget\]\]"),
        ('mdoe = "strict"\n' + TABLES, ConfigurationError, "'mdoe' is no setting"),
        ('mode = "strct"\n' + TABLES, ConfigurationError, r"^the TOML text, mode: 'strct' .*did you mean strict"),
        (TABLES[1:].replace("]]", "]"), ConfigurationError, r"^the TOML text, budget: .* write \[\[budget\]\] tables"),
        ("budget = 5\n", ConfigurationError, "5 is no list of budgets"),
        ("5 USD / day", ConfigurationError, "cannot be read: .*; write the path of a TOML file, a TOML text"),
        (Path("nowhere.toml"), ConfigurationError, "nowhere.toml cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_changes_nothing(source, kind, says):
    """The error names the source, the line where it is known, and the field; no budget of the source is in force."""
    with pytest.raises(kind, match=says):
        load_budgets(source)
    assert pipeline().settings.budgets == ()


def test_an_error_in_a_file_names_the_file():
    """Whoever has many files learns which one to correct."""
    name = in_a_file("budgets.toml", "\n\n" + TABLES.replace("day", "dya"))
    with pytest.raises(
        BudgetSyntaxError, match=r"^budgets\.toml, line 3: budget 'small', limit: .*did you mean day"
    ) as wrong:
        load_budgets(name)
    assert wrong.value.entry == 1
