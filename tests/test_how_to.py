"""The how-to pages are tried: what they say to write is written into a copy of the code, and works."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ledger", "exporter", "budget", "instrumentation", "console")
INSIDE = Path("instrumentation/tollspan/instrumentation")


def blocks(page):
    """The Python on a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to" / page).read_text(encoding="utf-8"), re.DOTALL)


def copied(folder):
    """A copy of what the pages change."""
    shutil.copytree(ROOT / "instrumentation", folder / "instrumentation", ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("readers", "sdks", "instrumentation", "conftest.py"):
        source, target = ROOT / "tests" / part, folder / "tests" / part
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / INSIDE


def registered(table, name, line, module, imported):
    """Put an entry into a table, and the import that it needs."""
    text = table.read_text(encoding="utf-8").replace(line, f"{line}\n    *{name},", 1)
    table.write_text(f"from {module} import {imported}\n{text}", encoding="utf-8")


def run(folder, *arguments):
    """Run in the copy; gives what came."""
    paths = [str(folder / "instrumentation"), *(str(ROOT / room) for room in ROOMS if room != "instrumentation")]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_adding_an_sdk_as_the_page_says(tmp_path):
    """The rows resolve in the table, and the contract takes the cases, or skips where the SDK is not installed."""
    looking, rows, cases = blocks("add-an-sdk.md")
    inside = copied(tmp_path)
    (inside / "_sites/_cerebras.py").write_text(rows, encoding="utf-8")
    package = "tollspan.instrumentation._sites._cerebras"
    registered(inside / "_sites/__init__.py", "CEREBRAS", "    *OPENAI,", package, "CEREBRAS")
    (tmp_path / "tests/sdks/test_cerebras.py").write_text(cases, encoding="utf-8")
    seen = (
        f"{looking}\nfrom tollspan.instrumentation import CALL_SITES\nprint(sum('cereb' in s.sdk for s in CALL_SITES))"
    )
    told = run(tmp_path, "-c", seen)
    assert told.stdout.strip() == "2", told.stderr
    done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/sdks/test_cerebras.py")
    installed = importlib.util.find_spec("cerebras") is not None
    assert done.returncode == (0 if installed else pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout + done.stderr


def test_adding_a_flavour_as_the_page_says(tmp_path):
    """The reader is found by its path, passes the tests of the page, and those that every reader has to pass."""
    reader, tests = blocks("add-an-api-flavour.md")
    inside = copied(tmp_path)
    (inside / "_readers/_deepgram.py").write_text(reader, encoding="utf-8")
    package = "tollspan.instrumentation._readers._deepgram"
    registered(inside / "_readers/__init__.py", "DEEPGRAM", "    OPENAI_CHAT,", package, "DEEPGRAM")
    (tmp_path / "tests/readers/test_deepgram.py").write_text(tests, encoding="utf-8")
    own = ("tests/readers/test_deepgram.py", "tests/readers/test_fuzz.py", "-k", "deepgram or own_streams")
    done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *own)
    assert done.returncode == 0, done.stdout
