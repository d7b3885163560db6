"""`tollspan prices`: what a model costs, a price that is set, a ledger that is checked, a list that is renewed."""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from decimal import Decimal
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from tollspan.console._cli import cli
from tollspan.ledger import Ledger, LedgerEvent

LISTED = f"genai-prices:{version('genai-prices')}"
CENT = Decimal("0.01")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No configuration but that of the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The path of the configured price file, which is not there yet."""
    monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "prices.toml"))
    return tmp_path / "prices.toml"


def run(command):
    """`tollspan prices ...` in this process."""
    return CliRunner().invoke(cli, ["prices", *shlex.split(command)])


def in_json(command, status=0):
    result = run(f"{command} --json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def run_for_real(*words, **environ):
    """The whole command in a process of its own."""
    full = [sys.executable, "-m", "tollspan.console", *words]
    return subprocess.run(full, env=os.environ | environ, capture_output=True, text=True, check=False)


def seed(path, *events):
    usual = {"event_type": "commit", "provider": "openai", "model": "gpt-4o"}
    with Ledger(path) as ledger:
        for fields in events:
            ledger.write_event(LedgerEvent(**usual | fields))


# ---- show


def test_show_tells_the_card(file):
    """Prices with their units, the list they are from, limits, what an example costs, other tiers and sellers."""
    file.touch()
    text = run("show gpt-4o").stdout
    for line in (
        "gpt-4o at openai,",
        f"source: {LISTED}\n",
        "input_mtok                                2.5 USD per million tokens",
        "web_searches_kcount                        10 USD per thousand",
        "context window: 128,000 tokens",
        "most output: 16,384 tokens",
        "1000 tokens in and 1000 out cost $0.0125\n",
        "at the service tier batch: $0.00625",
        "also at azure",
    ):
        assert line in text, text
    data = in_json("show gpt-4o --tier batch")
    assert (data["provider"], data["source"], data["listed_as"], data["also_at"][0]) == (
        "openai", LISTED, "openai/gpt-4o", "azure",
    )  # fmt: skip
    assert data["example"] == {"tokens_in": 1000, "tokens_out": 1000, "cost_usd": "0.006250000"}
    assert (data["prices"]["input_mtok"], data["max_output_tokens"], data["file"]) == ("1.25", 16_384, None)


def test_show_tells_the_tiers_of_long_contexts():
    """Where a price begins at so many tokens, it stands below that number."""
    text = run("show anthropic/claude-sonnet-4-5").stdout
    assert "with more than 200,000 tokens in:\n    input_mtok                                  6 USD" in text


def test_show_tells_the_price_of_another_day(file):
    """History and announced prices are those in force at that instant; the zone is that of --tz."""
    file.write_text('[[price]]\nmodel = "m"\nfrom = 2026-12-01\ninput_mtok = 1\noutput_mtok = 1\n')
    assert run("show openai/m --at 2026-12-01").exit_code == 0
    assert run("show openai/m --at 2026-12-01 --tz Asia/Tokyo").exit_code == 1
    assert in_json("show openai/m --at 2026-12-01T09:00 --tz Asia/Tokyo")["at"] == "2026-12-01T09:00:00+09:00"
    refused = run("show m --at someday")
    assert (refused.exit_code, "--at: 'someday' is no instant" in refused.stderr) == (2, True)


def test_show_names_the_line_that_goes_before_the_list(file):
    """An override is seen to be one, with the file and the line of its alias and its entry."""
    file.write_text(
        '[deployments.azure]\nchat = "gpt-4o"\n\n[[price]]\nmodel = "gpt-4o"\nmultiplier = 0.5\nhold_usd = 2\n'
        '[[price]]\nmodel = "llama*"\nfree = true\n'
    )
    text = run("show azure/chat").stdout
    assert f"source: override, as azure/gpt-4o ({file}, lines 2 and 4)" in text
    assert f"0.5 times the prices of {LISTED}:" in text
    assert "a call whose cost has no bound holds $2" in text
    data = in_json("show chat --provider azure.ai.openai")
    assert (data["lines"], data["file"], data["hold_usd"]) == ([2, 4], str(file), "2.000000000")
    assert data["example"]["cost_usd"] == "0.006250000"
    assert "llama3 at any provider" in run("show llama3").stdout
    assert "free: it costs nothing" in run("show llama3 --provider localhost").stdout
    assert in_json("show llama3 --provider localhost")["free"]


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("gpt4o --provider openai", "gpt-4o"),
        ("opena/gpt-4o", "openai/gpt-4o"),
        ("gpt-4o --provider opneai", "openai/gpt-4o"),
        ("my-modl --provider openai", "my-model"),
        ("corp-fsat", "corp-fast"),
    ],
)
def test_show_knows_what_is_near(file, model, near):
    """Of a name without a price the nearest are told, those of the user's file too; the status is 1."""
    file.write_text('[[price]]\nmodel = "my-model"\ninput_mtok = 1\n[aliases]\ncorp-fast = "openai/gpt-4o"\n')
    data = in_json(f"show {model}", status=1)
    assert near in data["near"]
    assert (data["priced"], data["example"]["cost_usd"]) == (False, None)
    assert "no price for model" in data["reason"]
    text = run(f"show {model}").stdout
    assert near in text.split("near names: ")[1]


# ---- set


def test_set_makes_the_file_and_tells_how_to_use_it(path):
    """Without a configured file one is made beside the ledger; it is told that it is not in force, and what to do."""
    made = path.parent / "prices.toml"
    told = run("set my-model --provider openai --input-mtok 0.30 --output-mtok $1.20").stdout
    assert f"{made}, line 3: new entry" in told
    assert "my-model at openai: 1000 tokens in and 1000 out cost $0.0015" in told
    assert f"not in force yet, because no price file is configured; to use it:\n  export TOLLSPAN_PRICES={made}" in told
    assert made.read_text().endswith(
        '\n\n[[price]]\nmodel = "my-model"\nprovider = "openai"\ninput_mtok = "0.30"\noutput_mtok = "1.20"\n'
    )
    assert made.stat().st_mode & 0o777 == 0o644
    assert run("show openai/my-model").exit_code == 1
    assert (
        CliRunner(env={"TOLLSPAN_PRICES": str(made)}).invoke(cli, ["prices", "show", "openai/my-model"]).exit_code == 0
    )


def test_set_changes_the_configured_file(file):
    """Comments, order and the mode of the file stay; a link is followed; nothing is left beside it."""
    real = file.with_name("real.toml")
    real.write_text('# ours\n[[price]]\nmodel = "m"  # the one\ninput_mtok = 1 # dear\n')
    real.chmod(0o640)
    file.symlink_to(real)
    before = {*file.parent.iterdir()}
    told = in_json("set m --input-mtok 2 --hold-usd 0.5 --from 2026-01-01")
    assert told["new"]
    told = in_json("set m --input-mtok 2 --hold-usd 0.5")
    assert (told["file"], told["line"], told["new"], told["in_use"]) == (str(file), 2, False, True)
    assert real.read_text().startswith(
        '# ours\n[[price]]\nmodel = "m"  # the one\ninput_mtok = "2" # dear\nhold_usd = "0.5"\n'
    )
    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert {*file.parent.iterdir()} == before


def test_every_option_of_set_has_its_field(file):
    """What the file can say of a model, the command can."""
    run("set a --input-mtok 1 --output-mtok 2 --cache-read-mtok 3 --cache-write-mtok 4 --price web_searches_kcount=5")
    run("set b --unit image --usd 0.04 --detail 1024x1024 --max-output-tokens 6 --context-window 7")
    run("set c --unit token --direction out --usd 1 --per 1000 --service-tier batch --until 2027-01-01T00:00:00+01:00")
    run("set d --multiplier 0.85 --from 2026-01-01T12:00:00z")
    run("set e --free")
    run("set g --add --price images_kcount=1")
    run("set f --provider azure --as gpt-4o")
    text = file.read_text()
    for line in (
        'input_mtok = "1"', 'output_mtok = "2"', 'cache_read_mtok = "3"', 'cache_write_mtok = "4"',
        'web_searches_kcount = "5"', 'unit = "image"', 'usd = "0.04"', 'detail = "1024x1024"',
        "max_output_tokens = 6", "context_window = 7", 'direction = "out"', "per = 1000", 'service_tier = "batch"',
        "until = 2027-01-01T00:00:00+01:00", 'multiplier = "0.85"', "from = 2026-01-01T12:00:00+00:00", "free = true",
        "add = true",
        '[deployments.azure]\nf = "gpt-4o"',
    ):  # fmt: skip
        assert line in text, line
    assert in_json("show azure/f")["listed_as"] == "azure/gpt-4o"


def test_set_says_where_something_else_goes_before_it(file):
    """An entry that stands behind a glob is changed where it stands, and does not come into force unheard."""
    file.write_text('[[price]]\nmodel = "m*"\nfree = true\n\n[[price]]\nmodel = "m1"\ninput_mtok = 1\n')
    told = run("set m1 --input-mtok 2").stdout
    assert "but line 1 of it goes before that for m1" in told
    assert in_json("set m1 --input-mtok 3")["hidden_by_lines"] == [1]
    assert in_json("set m2 --input-mtok 3")["hidden_by_lines"] == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("set", "Missing argument 'MODEL'"),
        ("set m", "say what it costs: --input-mtok"),
        ("set m --provider openai --from 2026-01-01", "say what it costs: --input-mtok"),
        ("set m --input-mtok cheap", "'input_mtok' must be a price in USD"),
        ("set m --input-mtok -1", "not negative"),
        ("set m --price images_kcount", "--price: 'images_kcount' is no price; write it like images_kcount=40"),
        ("set m --price image_kcount=4", "did you mean images_kcount"),
        ("set m --unit imag --usd 4", "did you mean image"),
        ("set m --free --from soon", "--from: 'soon' is no date or instant"),
        ("set m --free --input-mtok 1", "not both"),
        ("set m --as gpt-4o --free", "--as: what it stands for has the price"),
    ],
)
def test_set_says_what_is_wrong_and_writes_nothing(file, command, said):
    """Wrong use ends with 2, and the file is as it was."""
    result = run(command)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output
    assert not file.exists()


def test_a_file_that_is_wrong_or_cannot_be_written_is_left_alone(file):
    """Neither show, nor set, nor check goes by a file with an error; it says where that is."""
    file.write_text('[[price]]\nmodel = "m"\ninput_mtok = "cheap"\n')
    for command in ("set m --free", "show m"):
        result = run(command)
        assert (result.exit_code, f"{file}, line 3: [[price]] entry 1" in result.stderr) == (2, True), result.output
    assert "cheap" in file.read_text()
    file.unlink()
    file.mkdir()
    assert (run("set m --free").exit_code, "cannot be read" in run("set m --free").stderr) == (2, True)


def test_set_keeps_the_line_ends_of_the_file(file):
    """A file of Windows stays one."""
    file.write_bytes(b'\xef\xbb\xbf# ours\r\n[[price]]\r\nmodel = "m"\r\ninput_mtok = 1 # dear\r\n')
    assert in_json("set m --input-mtok 2 --output-mtok 3")["line"] == 2
    assert file.read_bytes() == (
        b'# ours\r\n[[price]]\r\nmodel = "m"\r\ninput_mtok = "2" # dear\r\noutput_mtok = "3"\r\n'
    )


# ---- check


USED = (
    {"cost_actual_usd": CENT, "usage": {"tokens_in": 5}},
    {"model": "gpt-4oo", "usage": {"tokens_in": 5}, "reason": "no price"},
    {"provider": "azure.ai.openai", "model": "prod chat", "usage": {"tokens_out": 5}, "reason": "no price"},
    {"model": "gpt-4.1", "usage": {"tokens_in": 3, "images": 2}, "reason": "no rate for 'images'"},
    {"model": "gpt-image-9", "usage": {"images": 2, "images:1024x1024": 2}, "reason": "no price"},
    {"provider": "openrouter", "model": "odd", "cost_actual_usd": CENT, "cost_source": "provider"},
    {"provider": "localhost:11434", "model": "llama3.2:3b", "usage": {"tokens_in": 3}, "reason": "no price"},
    {"provider": "groq", "model": None, "usage": {"tokens_in": 3}, "reason": "no model"},
    {"event_type": "cancel", "model": "gpt-9", "status": "error", "http_status": 404},
    {"event_type": "cancel", "model": "strict-1", "status": "error", "attempts": 0},
)


def checked(status):
    return {one["model"]: one for one in in_json("check", status)["models"]}


def test_check_tells_what_every_model_resolves_to_and_how_to_price_the_rest(path, file):
    """Each model of the ledger: by which list or line it is priced now, or why not, and the command that does it."""
    file.write_text('[[price]]\nmodel = "llama*"\nfree = true\n')
    seed(path, *USED)
    found = checked(1)
    assert {name: one["status"] for name, one in found.items()} == {
        "gpt-4o": "priced",
        "gpt-4oo": "unpriced",
        "prod chat": "unpriced",
        "gpt-4.1": "unpriced",
        "gpt-image-9": "unpriced",
        "odd": "stated",
        "llama3.2:3b": "free",
        None: "unpriced",
        "gpt-9": "unbilled",
        "strict-1": "unpriced",
    }
    assert (found["gpt-4o"]["source"], found["gpt-4o"]["calls"], found["gpt-4o"]["fix"]) == (LISTED, 1, None)
    assert (found["llama3.2:3b"]["file"], found["llama3.2:3b"]["lines"]) == (str(file), [1])
    assert found["llama3.2:3b"]["unpriced_calls"] == 1
    fixes = {name: one["fix"]["command"] for name, one in found.items() if one["fix"]}
    base = "tollspan prices set"
    assert fixes == {
        "gpt-4oo": f"{base} gpt-4oo --provider openai --input-mtok USD --output-mtok USD",
        "prod chat": f"{base} 'prod chat' --provider azure.ai.openai --input-mtok USD --output-mtok USD",
        "gpt-4.1": f"{base} gpt-4.1 --provider openai --add --price images_kcount=USD",
        "gpt-image-9": f"{base} gpt-image-9 --provider openai --price images_kcount=USD",
        None: None,
        "strict-1": f"{base} strict-1 --provider openai --input-mtok USD --output-mtok USD",
    }
    assert found["gpt-4oo"]["fix"]["alias"] == f"{base} gpt-4oo --provider openai --as gpt-4o"
    assert found["prod chat"]["fix"]["alias"] == f"{base} 'prod chat' --provider azure.ai.openai --as MODEL"
    assert "tollspan adjust" in found[None]["reason"]
    assert "'images'" in found["gpt-4.1"]["reason"]


def test_check_in_words(path, file):
    """People read a table, then each model without a price with the reason and what to type."""
    file.write_text('[[price]]\nmodel = "llama*"\nfree = true\n')
    seed(path, *USED)
    result = run("check")
    assert result.exit_code == 1
    for line in (
        f"openai/gpt-4o                {LISTED}",
        f"localhost:11434/llama3.2:3b  free ({file}, line 1)",
        "openrouter/odd               as stated with its calls",
        "openai/gpt-9                 nothing was billed",
        "openai/gpt-4oo               PRICE MISSING",
        "openai/gpt-4oo: no price for model 'gpt-4oo' of provider 'openai'",
        "or, if it costs nothing:             tollspan prices set gpt-4oo --provider openai --free",
        "or, if it stands for another model:  tollspan prices set gpt-4oo --provider openai --as gpt-4o",
        "6 models of 10 without a price",
    ):
        assert line in result.stdout, result.stdout


def test_what_check_tells_to_do_is_enough(path, file):
    """Each of its commands, with prices in the place of USD, is one that works: after them nothing is unpriced."""
    file.touch()
    seed(path, *(fields for fields in USED if fields.get("model", "") is not None))
    for one in in_json("check", 1)["models"]:
        if one["fix"]:
            command = one["fix"]["command"].removeprefix("tollspan prices ").replace("USD", "1")
            assert run(command).exit_code == 0, command
    assert in_json("check")["unpriced"] == 0
    told = run("check")
    assert "every model has a price now; 5 calls from before that, or without usage, have no cost" in told.stdout


def test_check_notes_what_has_no_effect(path, file):
    """A provider that is spelled wrongly, a name that leads nowhere, an entry behind a glob: each by its line."""
    entries = (
        ('model = "m*"', "free = true"),
        ('model = "m1"', "input_mtok = 1"),
        ('model = "x"', 'free = true\nprovider = "opneai"'),
        ('model = "y"', 'free = true\nprovider = "gw:80"'),
    )
    names = '[deployments.azure]\na = "gpt-4oo"\nb = "gpt-4o"\n[aliases]\nc = "openai/gpt-4o"\nd = "e"\n"f*" = "g"\n'
    file.write_text("".join(f"[[price]]\n{model}\n{price}\n" for model, price in entries) + names)
    seed(path, {"provider": "gw:80", "model": "y", "cost_actual_usd": CENT})
    assert in_json("check")["notes"] == [
        "line 7: provider 'opneai' is in no list, nor in this ledger (did you mean openai?)",
        "line 16: 'a' stands for 'gpt-4oo', which has no price",
        "line 20: 'd' stands for 'e', which has no price",
        "line 4: no model comes to it, because line 1 matches all: move it up",
    ]
    assert f"{file}, line 7: provider 'opneai'" in run("check").stdout


def test_check_counts_on_the_prices_of_ones_own(path, file):
    """Where an entry lacks a unit, the command has its prices too: what it writes takes that one's place."""
    file.write_text('[[price]]\nmodel = "gpt-*"\ninput_mtok = 1\noutput_mtok = 2\n')
    seed(path, {"usage": {"tokens_in": 1, "images": 1}, "reason": "no rate"})
    command = checked(1)["gpt-4o"]["fix"]["command"]
    assert command.endswith("--provider openai --input-mtok 1 --output-mtok 2 --price images_kcount=USD")
    assert run(command.removeprefix("tollspan prices ").replace("USD", "3")).exit_code == 0
    assert checked(0)["gpt-4o"]["prices"] == {"images_kcount": "3", "input_mtok": "1", "output_mtok": "2"}


def test_check_looks_behind_a_request(path, file):
    """A model that answered behind the request of another has to have a price as well."""
    file.touch()
    seed(path, {"usage": {"tokens_in": 1, "tokens_in@helper": 1, "tokens_in@gpt-4.1": 2}, "reason": "no price"})
    found = checked(1)["gpt-4o"]
    assert "'helper'" in found["reason"]
    assert found["fix"]["command"].startswith("tollspan prices set helper --provider openai --input-mtok USD")
    file.write_text('[[price]]\nmodel = "helper"\nfree = true\n')
    assert checked(0)["gpt-4o"]["status"] == "priced"


def test_check_needs_a_ledger(path):
    """Without one it says so, and makes none."""
    result = run("check")
    assert (result.exit_code, "no ledger at" in result.stderr) == (2, True)
    assert not path.exists()


# ---- update


def wheel(folder, its_version):
    """A distribution of genai-prices with nothing in it but its name."""
    folder.mkdir()
    info = f"genai_prices-{its_version}.dist-info"
    with zipfile.ZipFile(folder / f"genai_prices-{its_version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: genai-prices\nVersion: {its_version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return folder


def offered(folder):
    """pip sees what is in a folder, and no index; what it installs goes elsewhere than into this environment."""
    target = str(folder.parent / "installed")
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_TARGET": target, "PYTHONPATH": target}


def test_update_installs_the_newest_list_and_says_so(tmp_path):
    """On request, by pip, and it tells what was there before and what is there now."""
    done = run_for_real("prices", "update", **offered(wheel(tmp_path / "new", "99.0")))
    before = version("genai-prices")
    assert done.stdout == (
        f"genai-prices {before} is replaced by 99.0; processes have its prices from their next start on\n"
    ), done.stderr
    assert (tmp_path / "installed" / "genai_prices-99.0.dist-info").is_dir()


def test_update_says_when_there_is_nothing_newer(tmp_path):
    """The version that is installed is the latest one: nothing changes."""
    have = version("genai-prices")
    done = run_for_real("prices", "update", "--json", **offered(wheel(tmp_path / "same", have)))
    assert json.loads(done.stdout) == {
        "package": "genai-prices", "before": have, "after": have, "changed": False,
    }  # fmt: skip
    assert not (tmp_path / "installed").exists()


def test_update_without_network_is_a_clear_error(tmp_path):
    """That the index is out of reach is no reason to say that all is new."""
    done = run_for_real("prices", "update", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_CONFIG_FILE=os.devnull)
    assert (done.returncode, done.stdout) == (2, "")
    for words in ("genai-prices", "stays", "Is the package index in reach?", "-m pip install --upgrade"):
        assert words in done.stderr


def test_nothing_else_looks_for_newer_prices():
    """Looking up a price starts no thread and opens no connection: the list is renewed on request only."""
    code = """
import socket, threading
def refuse(*_args, **_options):
    raise AssertionError("a connection")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from click.testing import CliRunner
from tollspan.console._cli import cli
for words in (["show", "gpt-4o"], ["show", "unheard-of"], ["set", "m", "--free"]):
    result = CliRunner().invoke(cli, ["prices", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
assert threading.active_count() == 1, threading.enumerate()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
