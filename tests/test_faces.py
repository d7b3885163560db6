"""Each room has one flat face, and a plain install imports little."""

import ast
import importlib
import importlib.resources
import importlib.util
import inspect
import subprocess
import sys

import pytest

ROOMS = ("ledger", "exporter", "budget", "instrumentation", "console")


@pytest.mark.parametrize("room", ROOMS)
def test_all_is_sorted_and_there(room):
    """`__all__` of a room is sorted, and every name in it exists."""
    module = importlib.import_module(f"tollspan.{room}")
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_typed(room):
    """Each room ships its own `py.typed`."""
    module = importlib.import_module(f"tollspan.{room}")
    assert importlib.resources.files(module).joinpath("py.typed").is_file()


@pytest.mark.parametrize("room", ["ledger", "exporter", "budget", "instrumentation"])
def test_a_lazy_face_gives_what_type_checkers_see(room):
    """What a room loads when it is asked for is what the imports for type checkers say, and all of `__all__`."""
    module = importlib.import_module(f"tollspan.{room}")
    (checked,) = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.If)]
    homes = {name.name: node.module for node in checked.body for name in node.names}
    assert homes.keys() == {*module.__all__} - {"lazy_face"}
    for name, home in homes.items():
        assert getattr(module, name) is getattr(importlib.import_module(f"tollspan.{room}.{home}"), name)


def test_a_lazy_face_is_like_any_module():
    """A face that has loaded nothing lists its names, imports them by `*`, and says as ever what it does not have."""
    code = """
import tollspan.ledger, tollspan.budget
for room in (tollspan.ledger, tollspan.budget):
    assert {*room.__all__, "__name__", "__doc__"} <= {*dir(room)}
try:
    tollspan.ledger.Nothing
except AttributeError as error:
    assert str(error) == "module 'tollspan.ledger' has no attribute 'Nothing'"
try:
    from tollspan.ledger import Nothing
except ImportError as error:
    assert "cannot import name 'Nothing' from 'tollspan.ledger'" in str(error)
from tollspan.budget import *
assert budget is tollspan.budget.budget
"""
    assert _fresh(code) == ""


LATER = {
    "tollspan.ledger": """
        _adjust _archive _batch _events _fetched _figures _holds _journal _ledger _migrations _overrides _parquet
        _prices _prune _queries _recost _reconcile _reprice _runs _selection _store _sweep _upkeep _verify _writer
    """,
    "tollspan.exporter": "_booking _foreign _record _translate _dialects._inference _dialects._read _dialects._tables",
    "tollspan.budget": "_admission _alerts _budget _demand _entry _known _loading _matching _testing _webhook",
    "tollspan.instrumentation": "_call _instrumentor _patching _readers _sites _spans _tap _wires",
}
"""What is loaded when it is first used: by a call, a foreign span, a report."""
ELSEWHERE = """
    aiobotocore aiohttp anthropic botocore click cohere dashscope genai_prices google.genai groq grpc httpx httpx2
    huggingface_hub ibm_watsonx_ai litellm mistralai ollama openai opentelemetry.instrumentation packaging psycopg
    pyarrow pydantic replicate requests rich sqlite3 sqlite_utils together voyageai websockets wrapt writerai xai_sdk
    zoneinfo
"""
"""What others have made, and nobody needs who makes no call."""


def test_switching_on_loads_little():
    """`instrument()` loads no SDK, no HTTP library, no price table, and nothing of ours that only calls or reports use.

    Without any of them imported by the application, that is.
    """
    code = "import sys; from tollspan.instrumentation import instrument; instrument(); print(*sys.modules)"
    loaded = {*_fresh(code).split()}
    unwanted = {*ELSEWHERE.split()}
    for room, modules in LATER.items():
        assert all(importlib.util.find_spec(f"{room}.{module}") for module in modules.split())
        unwanted |= {f"{room}.{module}" for module in modules.split()}
    assert "tollspan.instrumentation._instrument" in loaded
    assert sorted(unwanted & loaded) == []


def test_writing_loads_no_report(tmp_path):
    """What writes the ledger loads neither its figures, nor its archive, nor what verifies it."""
    code = f"""
import sys
from tollspan.ledger import Ledger, LedgerEvent, new_call_id
with Ledger({str(tmp_path / "own.db")!r}) as ledger:
    call_id = new_call_id(1e9)
    ledger.append(LedgerEvent(event_type="cancel", event_id=call_id.hex(), call_id=call_id.hex()))
    reports = ("_figures", "_queries", "_archive", "_parquet", "_verify")
    assert not {{f"tollspan.ledger.{{name}}" for name in reports}} & {{*sys.modules}}
    ledger.overview()
    assert "tollspan.ledger._figures" in sys.modules
"""
    assert _fresh(code) == ""


def _fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
