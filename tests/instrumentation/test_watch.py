"""What calls need is loaded with the first SDK or HTTP library, and is in place before that can be used."""

import subprocess
import sys

import pytest

from tollspan.instrumentation._patching import _TARGETS
from tollspan.instrumentation._watch import PACKAGES

BEGIN = """
import sys
import tollspan.instrumentation as ours
from tollspan.instrumentation import instrument, uninstrument
def table_is_loaded():
    return "tollspan.instrumentation._patching" in sys.modules
instrument()
assert not table_is_loaded()
"""


@pytest.fixture(name="run")
def _run(tmp_path):
    """Run code in a process of its own, which has a `litellm` of one function, a `cohere` that is broken, and more."""
    package = tmp_path / "packages" / "litellm"
    package.mkdir(parents=True)
    (package / "main.py").write_text("def completion():\n    return 'answer'\n")
    (package / "__init__.py").write_text("from .main import completion as taken\nfrom .main import completion\n")
    (package.parent / "cohere.py").write_text("raise RuntimeError('broken')\n")
    (package.parent / "replicate.py").touch()
    (package.parent / "fresh.py").touch()

    def run(code):
        whole = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n{BEGIN}{code}"
        done = subprocess.run([sys.executable, "-c", whole], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    return run


def test_every_package_of_the_table_is_waited_for():
    """The packages that are waited for are those that the rows and the wires name, and no others."""
    assert {package for package in PACKAGES if not any(_is_in(target.module, package) for target in _TARGETS)} == set()
    assert {t.module for t in _TARGETS if not any(_is_in(t.module, package) for package in PACKAGES)} == set()


def _is_in(module, package):
    return f"{module}.".startswith(f"{package}.")


def test_the_table_comes_before_the_first_module_of_an_sdk(run):
    """What a package takes from its own modules while it is imported is patched already."""
    run("""
import litellm
assert table_is_loaded()
assert litellm.taken is litellm.main.completion and hasattr(litellm.taken, "__wrapped__")
rows = {site.module: state for site, state in ours.INSTALLATION.state.items() if site.name == "completion"}
assert rows == {"litellm": "in place", "litellm.main": "in place"}
uninstrument()
assert not hasattr(litellm.main.completion, "__wrapped__")
""")


def test_an_sdk_that_is_not_installed_changes_nothing(run):
    """A library that looks whether an SDK is there, and does without it, loads nothing of ours."""
    run("""
try:
    import mistralai_azure
except ModuleNotFoundError as error:
    assert error.name == "mistralai_azure"
assert not table_is_loaded()
""")


def test_an_sdk_that_breaks_breaks_as_ever(run):
    """What an SDK raises while it is imported reaches the application, and the next one is patched all the same."""
    run("""
try:
    import cohere
except RuntimeError as error:
    assert str(error) == "broken"
import litellm
assert hasattr(litellm.taken, "__wrapped__")
""")


def test_nothing_is_patched_after_uninstrument(run):
    """An SDK that is imported after `uninstrument()` stays as it is; `instrument()` then patches it at once."""
    run("""
uninstrument()
import litellm
assert not table_is_loaded() and not hasattr(litellm.main.completion, "__wrapped__")
instrument()
assert hasattr(litellm.main.completion, "__wrapped__")
""")


def test_the_table_is_installed_by_whoever_loads_it(run):
    """To look at the installation is to see it installed, and it stays so for what is imported later."""
    run("""
assert ours.INSTALLATION.active
assert {*ours.INSTALLATION.state.values()} == {"waiting"}
import litellm
assert hasattr(litellm.taken, "__wrapped__")
""")


def test_a_bug_of_ours_breaks_no_import(run):
    """Where the table cannot be loaded, the application has its SDK, unpatched."""
    run("""
sys.modules["tollspan.instrumentation._patching"] = None
import litellm
assert litellm.taken() == "answer"
""")


LOADING = """
import threading
from importlib.abc import Loader
from importlib.util import find_spec

class Found(Loader):
    def __init__(self, loader):
        self.loader = loader
    def create_module(self, spec):
        return self.loader.create_module(spec)
    def exec_module(self, module):
        meanwhile()
        self.loader.exec_module(module)

class Finder:  # of `wrapt`, which the table needs, and nobody else here
    def find_spec(self, name, path=None, target=None):
        if name != "wrapt":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        spec.loader = Found(spec.loader)
        return spec

sys.meta_path.insert(0, Finder())
assert "wrapt" not in sys.modules
"""


def test_two_threads_import_two_sdks(run):
    """Who imports a second package while the first one has the table loaded waits for the hooks, and is patched."""
    run(f"""{LOADING}
second = threading.Thread(target=__import__, args=("litellm",))
def meanwhile():
    second.start()
    second.join(0.2)
    assert "litellm" not in sys.modules
import replicate
second.join()
import litellm
assert hasattr(litellm.taken, "__wrapped__")
""")


def test_the_table_is_loaded_without_the_lock_of_all_imports(run):
    """Another thread that imports what the table needs, and that itself needs more, ends its import."""
    run(f"""{LOADING}
begun, table_wanted = threading.Event(), threading.Event()
def meanwhile():
    begun.set()
    assert table_wanted.wait(10)
    import fresh
class Wanted:
    def find_spec(self, name, path=None, target=None):
        if name == "tollspan.instrumentation._patching":
            table_wanted.set()
sys.meta_path.insert(1, Wanted())
other = threading.Thread(target=__import__, args=("wrapt",))
other.start()
assert begun.wait(10)
import litellm
other.join()
assert hasattr(litellm.taken, "__wrapped__")
""")


def test_a_package_shows_no_trace(run):
    """Looking for a package loads nothing of ours, and one that was imported has its own loader, source and data."""
    run("""
import importlib.resources, importlib.util, inspect
assert importlib.util.find_spec("litellm").origin.endswith("__init__.py")
assert importlib.util.find_spec("mistralai_azure") is None
assert not table_is_loaded()
import litellm
assert type(litellm.__loader__).__module__ == type(litellm.__spec__.loader).__module__ == "_frozen_importlib_external"
assert "taken" in inspect.getsource(litellm)
assert importlib.resources.files("litellm").joinpath("main.py").is_file()
importlib.reload(litellm)
assert hasattr(litellm.taken, "__wrapped__")
""")
