"""Which budgets and dimensions are in force here: one key of the OpenTelemetry context.

Living in that context, and not in a ContextVar of our own, they reach whatever it reaches. A context token is never
reset, because an exit may happen in another task than its entry: the state is written back without the entry instead.
One scope or budget object serves any number of tasks.

What the setting `baggage` lists stands in the baggage of the same context, and what others wrote there is in force too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.context import attach, create_key, get_value, set_value

from tollspan.ledger import internal_errors

from ._baggage import Written, budgets_of, dimensions_of, received, rewritten, to_write, travelling

if TYPE_CHECKING:
    from ._entry import BudgetEntry

_KEY = create_key("tollspan-reach")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reach:
    """The budgets and scopes entered here, outermost first, and the dimensions that the scopes have set.

    `written` is what they have put into baggage, and `replaced` what others had sent under the same names.
    """

    entries: tuple["BudgetEntry", ...] = ()
    scopes: tuple["scope", ...] = ()
    dimensions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    written: Written = field(default_factory=lambda: _NOTHING)
    replaced: Mapping[str, object] = field(default_factory=lambda: _NOTHING)


_NOWHERE = Reach()

Carried = tuple[Reach, Mapping[str, object]]
"""What one context has of ours: the reach, and the entries of baggage that the setting lists."""

NOTHING: Carried = (_NOWHERE, _NOTHING)


def reach() -> Reach:
    """What is in force in the current context, that of other services included where the configuration takes it."""
    here, names = _here(), travelling()
    if names:
        with internal_errors:
            return _with_received(here, names)
    return here


def is_anything_in_force() -> bool:
    """Whether a call that is made here belongs to anything."""
    here = reach()
    return bool(here.entries or here.dimensions)


def carried() -> Carried:
    """What another context needs, so that the same is in force there."""
    return _here(), received(travelling(), {}, {})


def within(what: Carried, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `work` with this in force and not what is in force here, which is so again afterwards, whatever it leaves.

    The rest of the context is left alone, what `work` does to it included.
    """
    before = None
    with internal_errors:
        before = carried()
        _replace(what)
    del what  # who keeps the exception keeps this frame
    try:
        return work(*args, **kwargs)
    finally:
        if before is not None:
            with internal_errors:
                _replace(before)


def enter(entry: "BudgetEntry") -> None:
    """Put a budget in force."""
    here = _here()
    _put(here, (*here.entries, entry), here.scopes, here.dimensions)


def leave(entry: "BudgetEntry") -> None:
    """Take a budget out of force; nothing happens where it is not."""
    here = _here()
    if any(e is entry for e in here.entries):
        _put(here, tuple(e for e in here.entries if e is not entry), here.scopes, here.dimensions)


class scope:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Say who and what the calls inside belong to: `with scope(user="ada", tags={"feature": "search"}): ...`.

    Inner scopes add to outer ones and override them. The dimensions stand in the ledger's rows, and budgets match them.

    Scopes and budgets reach tasks, `asyncio.to_thread`, and after `instrument()` threads that are started and work that
    is given to a ThreadPoolExecutor inside them. They do not reach processes, `_thread.start_new_thread`, nor the
    workers of a `multiprocessing.pool.ThreadPool` that was made before.
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
        here = _here()
        _put(here, here.entries, (*here.scopes, self), {**here.dimensions, **self._dimensions})
        return self

    def __exit__(self, *exception: object) -> None:
        here = _here()
        if self in here.scopes:
            at = len(here.scopes) - 1 - here.scopes[::-1].index(self)
            left = here.scopes[:at] + here.scopes[at + 1 :]
            dimensions = {name: value for each in left for name, value in each._dimensions.items()}  # noqa: SLF001 - its own kind
            _put(here, here.entries, left, dimensions)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__()


def _here() -> Reach:
    """What this process has put in force in the current context."""
    found = get_value(_KEY)
    return found if isinstance(found, Reach) else _NOWHERE


def _replace(what: Carried) -> None:
    here, entries = what
    context, names = set_value(_KEY, here), travelling()
    attach(rewritten(context, dict.fromkeys(names), {}, entries))


def _with_received(here: Reach, names: tuple[str, ...]) -> Reach:
    """What others sent comes first: it is the outermost, and the scopes of this process override its dimensions."""
    sent = received(names, here.written, here.replaced)
    if not sent:
        return here
    entries, dimensions = (*budgets_of(sent), *here.entries), {**dimensions_of(sent), **here.dimensions}
    return Reach(entries, here.scopes, dimensions, here.written, here.replaced)


def _put(
    before: Reach, entries: tuple["BudgetEntry", ...], scopes: tuple[scope, ...], dimensions: Mapping[str, str]
) -> None:
    after, names = Reach(entries, scopes, dimensions), travelling()
    context = set_value(_KEY, after)
    with internal_errors:
        if names or before.written:
            replaced = received(names, before.written, before.replaced)
            written = to_write(names, dimensions, entries, replaced)
            after = Reach(entries, scopes, dimensions, written, replaced)
            context = rewritten(set_value(_KEY, after), before.written, written, replaced)
    attach(context)
