"""Settings: who wins, where a value came from, and what is said about a wrong one."""

import dataclasses
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tollspan.ledger import _settings
from tollspan.ledger._definitions import parse_budgets
from tollspan.ledger._settings import SETTINGS, ConfigurationError, Settings, load_settings, settings_reference

HOME = {"HOME": "/home/ada"}


def load(directory, *, toml=None, pyproject=None, strict=True, flags=None, **environ):
    """Load in a directory with these files and these variables (without TOLLSPAN_, in lower case)."""
    for name, text in (("tollspan.toml", toml), ("pyproject.toml", pyproject)):
        if text is not None:
            (directory / name).write_text(text, encoding="utf-8")
    variables = HOME | {f"TOLLSPAN_{name.upper()}": text for name, text in environ.items()}
    return load_settings(environ=variables, directory=directory, strict=strict, **(flags or {}))


def test_without_any_configuration_everything_is_default(tmp_path):
    """An empty environment gives the documented defaults, each with the source `default`."""
    settings = load(tmp_path)
    assert settings == Settings(
        ledger=settings.ledger,
        mode="best_effort",
        budgets=(),
        prices=None,
        profile=None,
        tags={},
        disabled=False,
        include_usage=True,
        cost_attributes=True,
        providers={},
        hold_usd=None,
        output_floor=256,
        count_tokens=False,
        timezone="UTC",
        busy_timeout_ms=5000,
        journal=True,
        queue_limit=100_000,
        keep_days=None,
        flush_on_sigterm=True,
        record_unsampled=True,
        wait_on_rate_limit=False,
        max_wait_timeout_s=60.0,
        retry_budget_s=90.0,
        drain_cut_streams=False,
        refuse_uncovered=False,
        baggage=(),
        webhook=None,
        source={setting.name: "default" for setting in SETTINGS},
        problems=(),
    )


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    """The first of flag, environment, file and default that says something wins, and `source` tells which."""
    toml = 'profile = "file"\noutput_floor = 17\ntimezone = "Asia/Tokyo"'
    settings = load(tmp_path, toml=toml, profile="env", output_floor="18", flags={"profile": "flag", "mode": None})
    assert (settings.profile, settings.output_floor, settings.timezone, settings.mode) == (
        "flag",
        18,
        "Asia/Tokyo",
        "best_effort",
    )
    assert [settings.source[name] for name in ("profile", "output_floor", "timezone", "mode")] == [
        "flag",
        "environment TOLLSPAN_OUTPUT_FLOOR",
        str(tmp_path / "tollspan.toml"),
        "default",
    ]


def test_an_empty_variable_counts_as_unset(tmp_path):
    """An empty variable does not hide the file."""
    assert load(tmp_path, toml='mode = "strict"', mode="", config=" ").mode == "strict"


@pytest.mark.parametrize(
    ("name", "text", "toml", "value"),
    [
        ("mode", "strict", '"strict"', "strict"),
        ("profile", "key-7", '"key-7"', "key-7"),
        (
            "tags",
            "feature=search, team=core",
            '{feature = "search", team = "core"}',
            {"feature": "search", "team": "core"},
        ),
        ("disabled", "Yes", "true", True),
        ("include_usage", "off", "false", False),
        ("cost_attributes", "0", "0", False),
        (
            "providers",
            "Gateway.corp:8443=openai, 10.0.0.5=azure.ai.openai",
            '{"gateway.corp:8443" = "openai", "10.0.0.5" = "azure.ai.openai"}',
            {"gateway.corp:8443": "openai", "10.0.0.5": "azure.ai.openai"},
        ),
        ("hold_usd", "0.10", "0.10", Decimal("0.10")),
        ("output_floor", "64", "64", 64),
        ("count_tokens", "on", "true", True),
        ("timezone", "Europe/Berlin", '"Europe/Berlin"', "Europe/Berlin"),
        ("busy_timeout_ms", "0", "0", 0),
        ("wait_on_rate_limit", "on", "true", True),
        ("max_wait_timeout_s", "2.5", "2.5", 2.5),
        ("retry_budget_s", "0", "0", 0.0),
        ("drain_cut_streams", "1", "true", True),
        ("baggage", "user, run,tag:a b,user", '["user", "run", "tag:a b"]', ("user", "run", "tag:a b")),
        ("baggage", "budget", '"budget"', ("budget",)),
        (
            "webhook",
            "HTTPS://ada:pw@hook.corp:8443/x?y=1",
            '"HTTPS://ada:pw@hook.corp:8443/x?y=1"',
            "HTTPS://ada:pw@hook.corp:8443/x?y=1",
        ),
        ("prices", "/etc/prices.toml", '"/etc/prices.toml"', Path("/etc/prices.toml")),
        ("ledger", "sqlite:////data/x.db", '"sqlite:////data/x.db"', "sqlite:////data/x.db"),
        ("ledger", "/data/x.db", '"/data/x.db"', "sqlite:////data/x.db"),
        ("ledger", "sqlite:///:memory:", '"sqlite:///:memory:"', "sqlite:///:memory:"),
    ],
)
def test_environment_and_file_mean_the_same(tmp_path, name, text, toml, value):
    """A setting reads alike from a variable, a flag, tollspan.toml and pyproject.toml."""
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    loaded = [
        load(tmp_path / "a", **{name: text}),
        load(tmp_path / "a", flags={name: text}),
        load(tmp_path / "b", toml=f"{name} = {toml}"),
        load(tmp_path / "c", pyproject=f"[tool.tollspan]\n{name} = {toml}"),
    ]
    assert [getattr(settings, name) for settings in loaded] == [value] * 4


@pytest.mark.parametrize(
    "url",
    ["T0PSECRET", "ftp://T0PSECRET", "https://", "https:///T0PSECRET", "http://T0PSECRET:x/", "http://h/T0P SECRET"],
)
def test_a_webhook_that_nobody_could_reach_is_refused_at_once(tmp_path, url):
    """Its error does not repeat it: a URL of a webhook is a secret."""
    with pytest.raises(ConfigurationError, match=r"the webhook is no URL; write it like https://example.com/hook") as e:
        load(tmp_path, webhook=url)
    assert "T0P" not in str(e.value)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("usr", "did you mean user?"),
        ("model", "cannot travel"),
        ("tag:", "cannot travel"),
        ("user;run", "cannot travel"),
    ],
)
def test_what_cannot_travel_is_refused(tmp_path, value, advice):
    """Only dimensions of a scope, tags and budgets are for other services."""
    with pytest.raises(ConfigurationError, match=re.escape(advice)):
        load(tmp_path, baggage=value)


def test_a_flag_may_be_a_value(tmp_path):
    """A flag takes values of Python as well as texts."""
    budgets = parse_budgets("5 USD / day", mode="strict")
    flags = {
        "ledger": Path("/data/x.db"),
        "disabled": True,
        "hold_usd": Decimal(1),
        "tags": {"a": "b"},
        "budgets": budgets,
    }
    settings = load(tmp_path, flags=flags)
    assert (settings.ledger, settings.disabled, settings.hold_usd) == ("sqlite:////data/x.db", True, Decimal(1))
    assert (settings.tags, settings.budgets) == ({"a": "b"}, budgets)


def test_an_unknown_flag_is_a_mistake_of_the_program(tmp_path):
    """A keyword that is no setting raises TypeError, even where problems are collected."""
    with pytest.raises(TypeError, match="did you mean profile"):
        load_settings(environ={}, directory=tmp_path, strict=False, proflie="x")


def test_budgets_take_mode_and_zone_from_the_settings(tmp_path):
    """Budgets of text and of tables follow `mode` and `timezone`, wherever these come from."""
    (from_text,) = load(tmp_path, budget="5 USD / day", mode="strict", timezone="Asia/Tokyo").budgets
    assert (from_text.name, from_text.mode, from_text.window.timezone) == ("env: 5 USD / day", "strict", "Asia/Tokyo")
    table = (
        '[[budget]]\nname = "a"\nlimit = "1 USD / day"\n[[budget]]\nname = "b"\nlimit = "1 USD / day"\nmode = "strict"'
    )
    budgets = load(tmp_path, toml=table, timezone="Asia/Tokyo").budgets
    assert [(budget.name, budget.mode, budget.window.timezone) for budget in budgets] == [
        ("a", "best_effort", "Asia/Tokyo"),
        ("b", "strict", "Asia/Tokyo"),
    ]


def test_the_nearest_file_is_found_upwards(tmp_path):
    """The search walks up, prefers tollspan.toml, and passes over a pyproject.toml that is not about tollspan."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.tollspan]\nprofile = "top"')
    (tmp_path / "a" / "pyproject.toml").write_text('[project]\ndependencies = ["tollspan"]\n[tool.other]\nx = 1')
    assert load(deep).profile == "top"
    (tmp_path / "tollspan.toml").write_text('profile = "own file"')
    assert load(deep).profile == "own file"
    (tmp_path / "a" / "tollspan.toml").write_text("")
    assert load(deep).profile is None


def test_a_broken_file_that_is_not_about_us_is_none_of_our_business(tmp_path):
    """A pyproject.toml that does not mention tollspan is not even parsed."""
    assert load(tmp_path, pyproject="[project\nbroken").problems == ()


def test_a_named_file_is_the_only_one_read(tmp_path):
    """TOLLSPAN_CONFIG names the file, relative to the directory, and the search does not happen."""
    (tmp_path / "other.toml").write_bytes(b'\xef\xbb\xbfprofile = "other"\r\n')
    settings = load(tmp_path, toml='mode = "strict"', config="other.toml")
    assert (settings.profile, settings.mode) == ("other", "best_effort")
    assert settings.source["profile"] == str(tmp_path / "other.toml")


@pytest.mark.parametrize("value", ["data/x.db", "sqlite:///data/x.db"])
def test_a_relative_path_in_a_file_is_relative_to_the_file(tmp_path, value):
    """Ledger and prices of a file are found beside it, from whatever directory a process starts."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "tollspan.toml").write_text(f'ledger = "{value}"\nprices = "prices.toml"')
    settings = load(tmp_path / "deep")
    assert settings.ledger == f"sqlite:///{tmp_path}/data/x.db"
    assert settings.prices == tmp_path / "prices.toml"


def test_a_relative_path_in_the_environment_is_left_relative(tmp_path):
    """A relative ledger in the environment is for the working directory, as paths in the environment are."""
    assert load(tmp_path, ledger="x.db").ledger == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", HOME, "/home/ada/.local/share"),
        ("linux", HOME | {"XDG_DATA_HOME": "/data"}, "/data"),
        ("linux", HOME | {"XDG_DATA_HOME": "data"}, "/home/ada/.local/share"),
        ("darwin", HOME | {"XDG_DATA_HOME": "/data"}, "/home/ada/Library/Application Support"),
        ("win32", {"LOCALAPPDATA": "C:/Users/ada/AppData/Local"}, "C:/Users/ada/AppData/Local"),
        ("win32", HOME, "/home/ada/AppData/Local"),
    ],
)
def test_the_default_ledger_is_in_the_data_directory_of_the_platform(
    platform, environ, expected, tmp_path, monkeypatch
):
    """Without configuration the ledger is where programs of the platform keep a user's data."""
    monkeypatch.setattr(sys, "platform", platform)
    settings = load_settings(environ=environ, directory=tmp_path)
    assert settings.ledger == f"sqlite:///{expected}/tollspan/ledger.db"


def test_without_a_home_the_ledger_is_in_memory_and_a_problem(tmp_path, monkeypatch):
    """A process of a user without a home directory still runs, and is told what to set."""
    monkeypatch.setattr(_settings.Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    settings = load_settings(environ={}, directory=tmp_path, strict=False)
    assert settings.ledger == "sqlite:///:memory:"
    assert "set TOLLSPAN_LEDGER" in settings.problems[0]


WRONG = [
    ({"mode": "strct"}, "mode (environment TOLLSPAN_MODE): 'strct' is no mode (did you mean strict?)"),
    ({"budget": "5 USD / dya"}, "budget (environment TOLLSPAN_BUDGET): '5 USD / dya'"),
    ({"budget": "5 USD"}, "say / day, / month or / total"),
    ({"disabled": "maybe"}, "neither true nor false"),
    ({"output_floor": "0"}, "a whole number of 16 or more"),
    ({"output_floor": "many"}, "a whole number of 16 or more"),
    ({"busy_timeout_ms": "-1"}, "a whole number of 0 or more"),
    ({"hold_usd": "much"}, "write it like 0.25"),
    ({"hold_usd": "-1"}, "write it like 0.25"),
    ({"hold_usd": "inf"}, "write it like 0.25"),
    ({"timezone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
    ({"tags": "search"}, "write it like feature=search"),
    ({"providers": "https://gateway.corp=openai"}, "without scheme and path"),
    ({"ledger": "postgresql://host/db"}, "this version writes SQLite only; use sqlite:///path"),
    ({"ledger": "mysql://host/db"}, "use sqlite:///path"),
    ({"ledger": "sqlite://x.db"}, "use sqlite:///path"),
    ({"ledger": "sqlite:///"}, "use sqlite:///path"),
    ({"ledger": "ledger"}, "a path that ends in .db"),
    ({"config": "missing.toml"}, "cannot be read"),
    ({"toml": "mode = "}, "tollspan.toml cannot be read: Invalid value (at end of document)"),
    ({"toml": '\n\nmode = "strct"'}, "tollspan.toml, line 3, mode: 'strct' is no mode"),
    ({"toml": 'mode = "strict"\nprofle = "x"'}, "tollspan.toml, line 2, profle is no setting (did you mean profile?)"),
    ({"toml": "output_floor = 1.5"}, "line 1, output_floor: "),
    ({"toml": "disabled = 2"}, "line 1, disabled: "),
    ({"toml": "profile = 7"}, "line 1, profile: 7 is not a text"),
    ({"toml": "budget = 5"}, "line 1, budget: 5 is no list of budgets"),
    ({"toml": 'budget = "5 USD"'}, "line 1, budget: '5 USD' has no window"),
    ({"toml": "[tags]\nfeature = 1"}, "line 1, tags: 'feature' has no text"),
    ({"toml": '[[budget]]\nname = "a"\nlimit = "1 USD / day"\n\n[[budget]]\nname = "b"'}, "line 5, budget: budget 'b'"),
    ({"pyproject": '[x]\nmode = 1\n[tool.tollspan]\nmode = "strct"'}, "pyproject.toml, line 4, mode: "),
    ({"pyproject": "[tool.tollspan"}, "pyproject.toml cannot be read"),
    ({"pyproject": "", "config": "pyproject.toml"}, "has no table [tool.tollspan]"),
    ({"budgt": "5 USD / day"}, "TOLLSPAN_BUDGT (environment) is no setting (did you mean TOLLSPAN_BUDGET?)"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG)
def test_a_wrong_setting_raises_where_a_person_waits(tmp_path, wrong, text):
    """With `strict`, an error names the place, what is wrong, and what to write."""
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, **wrong)
    assert text in str(refused.value)


@pytest.mark.parametrize(("wrong", "text"), WRONG)
def test_a_wrong_setting_never_stops_an_application(tmp_path, wrong, text):
    """Without `strict`, the same error is a problem, its setting has the default, and all others are in force."""
    settings = load(tmp_path, **wrong, strict=False, flags={"profile": "kept"} if "profile" not in str(wrong) else {})
    (problem,) = settings.problems
    assert text in problem
    expected = dataclasses.replace(load(tmp_path, config="/dev/null", flags={"profile": settings.profile}), source={})
    found = dataclasses.replace(settings, source={}, problems=(), mode="best_effort")
    assert found == expected
    assert set(settings.source) == {setting.name for setting in SETTINGS}


def test_all_problems_are_collected(tmp_path):
    """Problems of the environment and of a file are listed together."""
    problems = load(tmp_path, toml="disabled = 3\nx = 1", strict=False, mode="no", timezone="no", spam="no").problems
    assert len(problems) == 5


def test_a_password_is_not_repeated_in_an_error(tmp_path):
    """The URL of a ledger may hold a password, so the error does not quote it."""
    for url in ("postgresql://ada:secret@host/db", "ada:secret@host"):
        (problem,) = load(tmp_path, ledger=url, strict=False).problems
        assert "secret" not in problem


def test_a_removed_working_directory_is_survived(tmp_path, monkeypatch):
    """A process whose working directory is gone has no file to read, and no error."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_settings(environ=HOME).problems == ()


def test_the_process_is_read_by_default(tmp_path, monkeypatch):
    """Without arguments the environment and the working directory of the process count."""
    (tmp_path / "tollspan.toml").write_text('profile = "here"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLLSPAN_TAGS", "a=b")
    settings = load_settings()
    assert (settings.profile, settings.tags) == ("here", {"a": "b"})


def test_the_table_is_complete():
    """Each setting has one row and one field, a variable of its name, and a documentation of one line."""
    names = [setting.name for setting in SETTINGS]
    fields = {field.name for field in dataclasses.fields(Settings)} - {"source", "problems"}
    assert {"budgets" if name == "budget" else name for name in names} == fields
    assert len(set(names)) == len(names)
    for setting in SETTINGS:
        assert setting.env == f"TOLLSPAN_{setting.name.upper()}"
        assert setting.doc.endswith(".")
        assert "\n" not in setting.doc
        assert "|" not in setting.doc


def test_the_reference_has_a_row_for_each_setting():
    """The generated table names every setting, its variable and its default."""
    lines = settings_reference().splitlines()
    assert len(lines) == 3 + len(SETTINGS)
    assert all(line.count(" | ") == 3 for line in lines[2:])
    for setting in SETTINGS:
        assert any(f"`{setting.name}` | `{setting.env}` | " in line for line in lines)
    assert "| `output_floor` | `TOLLSPAN_OUTPUT_FLOOR` | `256` |" in settings_reference()
    assert "`sqlite:///<data directory>/tollspan/ledger.db`" in settings_reference()


def test_rare_modules_are_not_imported(tmp_path):
    """Loading settings without a file imports neither TOML nor zones nor spelling help, which take milliseconds."""
    code = (
        "import sys, types; package = types.ModuleType('tollspan.ledger'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['tollspan.ledger'] = package\n"  # without what the package itself imports
        "from tollspan.ledger._settings import load_settings\n"
        "load_settings(environ={'TOLLSPAN_BUDGET': '5 USD / day'})\n"
        "print({'tomllib', 'zoneinfo', 'difflib'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(Path(_settings.__file__).parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
