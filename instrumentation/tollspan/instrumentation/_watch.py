"""Waiting for the first SDK: what calls need is loaded when one of the packages that the table names is imported.

The table, its readers and its wires take longer to load than all the rest, and many processes that switch tollspan on
never make a call.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tollspan.ledger import internal_errors

if TYPE_CHECKING:
    from ._patching import Installation

PACKAGES = frozenset(
    {
        "aiobotocore",
        "aiohttp",
        "anthropic",
        "botocore",
        "cohere",
        "dashscope",
        "google.genai",
        "groq",
        "httpx",
        "httpx2",
        "huggingface_hub",
        "ibm_watsonx_ai",
        "litellm",
        "mistralai",
        "mistralai_azure",
        "mistralai_gcp",
        "ollama",
        "openai",
        "replicate",
        "requests",
        "together",
        "voyageai",
        "websocket",
        "websockets.asyncio",
        "websockets.sync",
        "writerai",
        "xai_sdk",
    }
)
"""The packages whose modules the rows of `_sites` and `_wires` name."""


class Watch:
    """Stands in `sys.meta_path`, and installs the table just before one of the packages is loaded.

    A package that is looked for and is not there, or is not loaded, changes nothing. Like any import hook this one is
    never taken back: who removes one makes imports of other threads miss the finder after it.
    """

    def __init__(self) -> None:
        self._is_waiting = False
        self._installation: Installation | None = None
        self._looking: set[tuple[int, str]] = set()

    def begin(self) -> None:
        """Install the table when a package comes; at once where one is there, or where the table is loaded anyway."""
        self._is_waiting = True
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        if self._installation is not None or not PACKAGES.isdisjoint(sys.modules):
            self.install()

    def end(self) -> None:
        """Wait no more, and take away what was installed."""
        self._is_waiting = False
        if self._installation is not None:
            self._installation.remove()

    def table_loaded(self, installation: "Installation") -> None:
        """Told by the table: whoever loads it sees it installed where `instrument` was called before."""
        self._installation = installation
        if self._is_waiting:
            installation.install()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find of a package, with a loader that tells us. Python's import lock is held here."""
        asked = get_ident(), fullname
        if fullname not in PACKAGES or asked in self._looking:
            return None
        self._looking.add(asked)
        try:
            found = find_spec(fullname)
        finally:
            self._looking.discard(asked)
        if found is not None and hasattr(found.loader, "exec_module"):
            found.loader = _TellingLoader(found.loader, self)
        return found

    def install(self) -> None:
        """Load and install the table, if that is waited for; whoever comes meanwhile waits until it is done."""
        if self._is_waiting:
            from ._patching import INSTALLATION  # noqa: PLC0415 - what this module is for

            INSTALLATION.install()
            self._is_waiting = False

    def imported(self, module: ModuleType) -> None:
        """Have the hooks called that are there since the package was found: they are too late to see it otherwise."""
        if self._installation is not None:
            from wrapt import notify_module_loaded  # noqa: PLC0415 - the table has loaded it

            notify_module_loaded(module)


class _TellingLoader(Loader):
    """Loads a package as its own loader does, and tells the watch before and after."""

    def __init__(self, loader: Any, watch: Watch) -> None:
        self._loader, self._watch = loader, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module, which nobody sees before the hooks of the table are there."""
        with internal_errors:  # the application's import goes on
            self._watch.install()
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, which then shows no trace of us."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        with internal_errors:
            self._watch.imported(module)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)


WATCH = Watch()
"""The one watch of the process."""
