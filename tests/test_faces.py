"""Each room has one flat face, and a plain install imports little."""

import importlib
import importlib.resources
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


def test_instrumenting_imports_no_sdk():
    """`instrument()` imports neither an SDK, nor an HTTP library, nor the price table."""
    code = (
        "import sys; from tollspan.instrumentation import instrument; instrument(); "
        "print([m for m in ('openai', 'anthropic', 'httpx', 'httpx2', 'genai_prices', 'sqlite_utils', 'click', 'rich') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
