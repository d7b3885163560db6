"""`set_testing()`: budgets in the tests of an application, at once and in memory, with the events to look at."""

import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self, get_args, overload

from tollspan.exporter import Pipeline, use_pipeline
from tollspan.ledger import (
    BudgetDefinition,
    Ledger,
    LedgerEvent,
    Settings,
    Unit,
    Window,
    account_of,
    in_unit,
    unit_of,
)

from ._loading import BudgetSource, default_settings, definitions_of
from ._reach import reach

_lock = threading.RLock()
_running: "list[Testing]" = []
_MAX_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class BudgetBalance:
    """What a budget has spent, and what calls in flight hold of it: Decimal USD, tokens, requests or calls at once."""

    spent: Decimal
    held: Decimal


class Testing:
    """What `set_testing()` gives: the way to look at what happened, and to end it.

    What was recorded can be read after the end, too. Every look first waits until what is queued is in the ledger.
    """

    __test__ = False  # pytest takes a class for tests by its name

    def __init__(self, settings: Settings, max_wait_s: float) -> None:
        self._line = _StandIn(settings)
        self._line.max_wait_s = max_wait_s
        self._before: Pipeline | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger in memory, for all that cannot be asked here."""
        return self._line.ledger

    @property
    def events(self) -> list[LedgerEvent]:
        """Every event so far, in order."""
        with self._reading() as ledger:
            return ledger.tail()

    @property
    def calls(self) -> list[LedgerEvent]:
        """The commits so far: one for each call that was billed, or may have been."""
        return [event for event in self.events if event.event_type == "commit"]

    @property
    def spent(self) -> Decimal:
        """What all calls have cost so far, in USD: estimates included, calls without a price left out."""
        return sum((event.spend_usd or Decimal(0) for event in self.events), Decimal(0))

    @property
    def open_holds(self) -> int:
        """How many calls hold something in a strict budget, and have not ended: a stream that was left open, say."""
        with self._reading() as ledger:
            return ledger.open_holds().calls

    def balance(self, name: str, each: str | None = None) -> BudgetBalance:
        """The balance of a budget in its current window, or, where it has none, of all its entries together.

        Of a budget with `each` it is that of one value, or of all together. Raises KeyError for a budget that is not in
        force and in which no call has counted.
        """
        with self._reading() as ledger:
            known = {definition.name: definition for definition in self._definitions(ledger)}
            if name in known:
                return _balance(ledger, known[name].account, known[name].window, each)
            accounts = [account_of(name, unit) for unit in get_args(Unit)]
            if used := [account for account in accounts if ledger.balances(account, 0)]:
                return _balance(ledger, used[0], None, each)
        names = ", ".join(map(repr, sorted(known))) or "none"
        raise KeyError(f"budget {name!r} is not in force, and no call has counted in it; those that are known: {names}")

    def clear(self) -> None:
        """Forget what was recorded, and so what is spent and held; the budgets stay in force."""
        self._line.begin_anew()

    def end(self) -> None:
        """Put back what was in force before; what has begun inside of this one ends with it."""
        with _lock:
            while self in _running:
                _running.pop()._put_back()  # noqa: SLF001 - its own kind

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.end()

    def _begin(self) -> None:
        with _lock:
            _running.append(self)
            self._before = use_pipeline(self._line)

    def _put_back(self) -> None:
        use_pipeline(self._before)
        self._before = None
        self._line.close()

    @contextmanager
    def _reading(self) -> Iterator[Ledger]:
        try:
            yield self.ledger
        finally:
            if self not in _running:
                self._line.close()  # reading has opened it again

    def _definitions(self, ledger: Ledger) -> Iterator[BudgetDefinition]:
        yield from (known.definition for known in ledger.known_budgets())
        yield from self._line.settings.budgets
        yield from (entry.definition for entry in reach().entries)


class _StandIn(Pipeline):
    """The pipeline of a test. Its ledger is in memory, and can be read for as long as this lives, closed or not."""

    stands_in: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, Ledger(None))
        self._keep()

    def begin_anew(self) -> None:
        """Go on with an empty ledger."""
        old, forget = self.ledger, self._forget
        self._ledger, self._pid = Ledger(None), 0
        self._keep()
        old.close()
        forget()

    def _keep(self) -> None:
        """A ledger in memory is gone with its last connection: hold one that nobody else uses, and nobody closes."""
        assert self._ledger is not None, "a test's ledger is made with its pipeline"
        self._forget = weakref.finalize(self, self._ledger.store.open_reader().close)


def _balance(ledger: Ledger, account: str, window: Window | None, each: str | None) -> BudgetBalance:
    start, span = (window.start(time.time()), window.span) if window else (0, 0)
    chosen = [
        balance
        for scope, balance in ledger.balances(account, start, span).items()
        if each is None or _value(scope, in_window=window is not None) == each
    ]
    sums = sum(balance.spent for balance in chosen), sum(balance.held for balance in chosen)
    return BudgetBalance(*(in_unit(amount, unit_of(account)) for amount in sums))


def _value(scope: str, *, in_window: bool) -> str:
    """The value in the scope of a balance, such as `user=ada`, or `run=0123456789abcdef user=ada` without a window."""
    return (scope if in_window else scope.partition(" ")[2]).partition("=")[2]


@overload
def set_testing(
    on: Literal[True] = True,
    *,
    budgets: BudgetSource | Iterable[BudgetSource] | None = None,
    max_wait_s: float = _MAX_WAIT_S,
    **settings: Any,
) -> Testing: ...
@overload
def set_testing(on: Literal[False]) -> None: ...
def set_testing(
    on: bool = True,
    *,
    budgets: BudgetSource | Iterable[BudgetSource] | None = None,
    max_wait_s: float = _MAX_WAIT_S,
    **settings: Any,
) -> Testing | None:
    """Let the calls of this process count in a ledger in memory, as tests want it, until `end()` or the block's end.

    No file is read or written, and no setting of the machine holds: neither TOLLSPAN_* nor tollspan.toml. `budgets` are
    in force for all calls, beside those of the code under test: texts like `5 USD / day`, tables or definitions. Other
    settings are given by name, such as `mode="strict"`; the rest have their defaults, and prices are the built-in ones.

    No call waits in line longer than `max_wait_s` seconds (default 1), whatever its budgets say: enough for calls that
    tests answer themselves, and no test stands still for the minute that a budget may wait.

    It nests. `set_testing(False)` ends the innermost, and does nothing where none is. SDKs are instrumented by
    `instrument()`, as ever. Child processes that do not come from a fork know nothing of it. Raises BudgetSyntaxError,
    ConfigurationError, and TypeError for a name that is no setting.
    """
    if not on:
        with _lock:
            if _running:
                _running[-1].end()
        return None
    if "budget" in settings:
        raise TypeError("'budget' is no argument of set_testing; write budgets=")
    base = default_settings(**settings)
    definitions = definitions_of(budgets or (), mode=base.mode, timezone=base.timezone)
    testing = Testing(default_settings(**settings, budgets=definitions), max_wait_s)
    testing._begin()  # noqa: SLF001 - the two halves of one mechanism
    return testing
