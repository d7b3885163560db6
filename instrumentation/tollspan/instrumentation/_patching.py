"""Installing the table: each row is put in place when its module is imported, and taken away without a trace.

Nothing of an SDK or an HTTP library is imported for it.
"""

import logging
import sys
import threading
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, Literal

import wrapt

from tollspan.ledger import internal_errors

from ._sites import CALL_SITES, CallSite
from ._sockets._talk import leave_all
from ._watch import WATCH
from ._wires import WIRES, Wire
from ._wrappers import Wrapper, wrapper_for

_log = logging.getLogger("tollspan.instrumentation")

State = Literal["waiting", "in place", "unresolved"]
_TARGETS: tuple[CallSite | Wire, ...] = (*WIRES, *CALL_SITES)


@dataclass(frozen=True, slots=True)
class _Patch:
    owner: Any
    attribute: str
    original: Any
    inherited: bool
    wrapper: "wrapt.FunctionWrapper[..., Any]"

    def undo(self) -> None:
        """Put the original back; where somebody has wrapped us since, our wrapper stays in between, and is idle."""
        if vars(self.owner).get(self.attribute) is not self.wrapper:
            return
        if self.inherited:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, self.original)


class Installation:
    """What is patched in this process. `state` tells for each row and wire whether it is in place."""

    def __init__(self) -> None:
        self.active = False
        self.state: dict[CallSite | Wire, State] = {}
        self._patches: list[_Patch] = []
        self._hooked: set[str] = set()
        self._lock = threading.RLock()

    def install(self) -> None:
        """Patch what is imported, and arm what is not; harmless when it is done already."""
        with self._lock:
            if self.active:
                return
            self.active = True
            for target in _TARGETS:
                self.state[target] = "waiting"
            for name in dict.fromkeys(target.module for target in _TARGETS):
                self._arm(name)

    def remove(self) -> None:
        """Put back every original, newest first. Calls in progress end as they began; on websockets, now."""
        with self._lock:
            self.active = False
            for patch in reversed(self._patches):
                patch.undo()
            self._patches.clear()
            self.state.clear()
            leave_all()

    def _arm(self, name: str) -> None:
        """An import hook cannot be taken back, so there is one for each module, and it looks whether we are active."""
        if name in sys.modules:
            self._imported(sys.modules[name])
        if name not in self._hooked:
            self._hooked.add(name)
            wrapt.register_post_import_hook(self._imported, name)

    def _imported(self, module: ModuleType) -> None:
        with self._lock:
            if not self.active:
                return
            for target in _TARGETS:
                if target.module == module.__name__ and self.state[target] == "waiting":
                    self.state[target] = "unresolved"
                    with internal_errors:  # the application's import goes on
                        self._put_in_place(target, module)

    def _put_in_place(self, target: CallSite | Wire, module: ModuleType) -> None:
        wrapper = wrapper_for(target) if isinstance(target, CallSite) else target.maker(module)
        self._note(target, done=self._patch(module, target.name, wrapper))

    def _note(self, target: CallSite | Wire, *, done: bool) -> None:
        self.state[target] = "in place" if done else "unresolved"
        if not done and not (isinstance(target, CallSite) and is_out_of_range(target)):
            _log.warning(
                "%s.%s is not there: this version of it is not covered; see `tollspan doctor`",
                target.module,
                target.name,
            )

    def _patch(self, module: ModuleType, name: str, wrapper: Wrapper) -> bool:
        try:
            owner, attribute, original = wrapt.resolve_path(module, name)
        except AttributeError:
            return False
        inherited = attribute not in vars(owner)
        # `enabled` is asked at each call: our wrappers work for as long as there are patches.
        ours = wrapt.FunctionWrapper(original, wrapper, enabled=partial(bool, self._patches))
        self._patches.append(_Patch(owner, attribute, vars(owner).get(attribute, original), inherited, ours))
        setattr(owner, attribute, ours)
        return True


def sdk_version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def is_out_of_range(site: CallSite) -> bool:
    """Whether the installed SDK is older than the method is expected to be, or so new that it is gone."""
    installed = sdk_version(site.sdk)
    if installed is None:
        return False
    return _numbers(installed) < _numbers(site.since) or (
        site.until is not None and _numbers(installed) >= _numbers(site.until)
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


INSTALLATION = Installation()
"""The one installation of the process."""

WATCH.table_loaded(INSTALLATION)
