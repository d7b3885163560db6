"""Which budgets and dimensions are in force here: one key of the OpenTelemetry context.

Living in that context, and not in a ContextVar of our own, they reach tasks and, with OpenTelemetry's threading
instrumentation, threads. A context token is never reset, because an exit may happen in another task than its entry: the
state is written back without the entry instead. One scope or budget object serves any number of tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from opentelemetry.context import attach, create_key, get_value, set_value

if TYPE_CHECKING:
    from ._entry import BudgetEntry

_KEY = create_key("tollspan-reach")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reach:
    """The budgets and scopes entered here, outermost first, and the dimensions that the scopes have set."""

    entries: tuple["BudgetEntry", ...] = ()
    scopes: tuple["scope", ...] = ()
    dimensions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


_NOWHERE = Reach()


def reach() -> Reach:
    """What is in force in the current context."""
    found = get_value(_KEY)
    return found if isinstance(found, Reach) else _NOWHERE


def enter(entry: "BudgetEntry") -> None:
    """Put a budget in force."""
    here = reach()
    _put(Reach((*here.entries, entry), here.scopes, here.dimensions))


def leave(entry: "BudgetEntry") -> None:
    """Take a budget out of force; nothing happens where it is not."""
    here = reach()
    if any(e is entry for e in here.entries):
        _put(Reach(tuple(e for e in here.entries if e is not entry), here.scopes, here.dimensions))


class scope:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Say who and what the calls inside belong to: `with scope(user="ada", tags={"feature": "search"}): ...`.

    Inner scopes add to outer ones and override them. The dimensions stand in the ledger's rows, and budgets match them.
    """

    def __init__(
        self,
        *,
        profile: str | None = None,
        user: str | None = None,
        team: str | None = None,
        session: str | None = None,
        run: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        named = {"profile": profile, "user": user, "team": team, "session": session, "run": run}
        self._dimensions = {name: str(value) for name, value in named.items() if value is not None}
        self._dimensions |= {f"tag:{key}": str(value) for key, value in (tags or {}).items()}

    def __enter__(self) -> Self:
        here = reach()
        _put(Reach(here.entries, (*here.scopes, self), {**here.dimensions, **self._dimensions}))
        return self

    def __exit__(self, *exception: object) -> None:
        here = reach()
        if self in here.scopes:
            at = len(here.scopes) - 1 - here.scopes[::-1].index(self)
            left = here.scopes[:at] + here.scopes[at + 1 :]
            dimensions = {name: value for each in left for name, value in each._dimensions.items()}  # noqa: SLF001 - its own kind
            _put(Reach(here.entries, left, dimensions))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__()


def _put(here: Reach) -> None:
    attach(set_value(_KEY, here))
