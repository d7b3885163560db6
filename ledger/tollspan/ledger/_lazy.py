"""Loading what a program needs when it needs it: most never ask for a report, and some never make a call."""

import sys
from collections.abc import Callable, Mapping


def _imported(module: str) -> object:
    return __import__(module, fromlist=("",))  # `python -X importtime` is blind to importlib.import_module


def lazy_face(room: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) of a room whose modules are loaded when a name of theirs is asked for.

    `names` has the modules of the room with the names that each gives to its face, separated by spaces. Type checkers
    see the imports that stand beside it.
    """
    face = vars(sys.modules[room])
    homes = {name: module for module, given in names.items() for name in given.split()}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        face[name] = getattr(_imported(f"{room}.{homes[name]}"), name)
        return face[name]

    def names_of_face() -> list[str]:
        return sorted({*face, *homes})

    return load, names_of_face


class LazyModule:
    """Stands for a module until something of it is asked for, and gives what the module has."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> object:
        return getattr(_imported(self._name), name)
