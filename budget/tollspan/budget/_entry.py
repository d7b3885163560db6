"""One entry into a budget: the handle that a block gives, and what admission looks at."""

import secrets
import time
from decimal import Decimal

from tollspan.exporter import pipeline
from tollspan.ledger import Balance, BudgetDefinition, Key, in_unit

from ._errors import OF_ENTRY
from ._reach import leave, reach


class BudgetEntry:
    """One entry into a budget: what `with budget(...) as b` gives.

    Amounts are Decimal USD, or a number of tokens or requests, as the budget's unit says; they are read from the ledger
    at each access. A budget with a window shows that window's shared balance, one without shows this entry's own; one
    with `each` shows the balance of the value that the scopes in force give.
    """

    __slots__ = ("definition", "is_received", "open", "run")

    def __init__(self, definition: BudgetDefinition) -> None:
        self.definition = definition
        self.open = True
        self.is_received = False  # from another service: it restricts its own calls, and defines nothing here
        self.run = "" if definition.window else f"{OF_ENTRY}{secrets.token_hex(8)}"

    @property
    def limit(self) -> Decimal:
        """How much may be spent: as it was written, or as it was set over that from outside."""
        return self._amount(self._limit())

    @property
    def spent(self) -> Decimal:
        """What was spent, estimated spend included."""
        return self._amount(self._balance().spent)

    @property
    def held(self) -> Decimal:
        """What calls in flight hold."""
        return self._amount(self._balance().held)

    @property
    def remaining(self) -> Decimal:
        """What is neither spent nor held; never below 0."""
        balance = self._balance()
        return self._amount(max(0, self._limit() - balance.spent - balance.held))

    def key(self, scope: str = "", at: float | None = None) -> Key:
        """The balance of this entry, for a value of `each`, at an instant (epoch seconds; now by default)."""
        window = self.definition.window
        start = window.start(time.time() if at is None else at) if window else 0
        return (self.definition.account, " ".join(filter(None, (self.run, scope))), start)

    def _limit(self) -> int:
        return pipeline().ledger.overrides.limit_of(self.definition, time.time())

    def _balance(self) -> Balance:
        each = self.definition.each
        value = reach().dimensions.get(each) if each else None
        window = self.definition.window
        return pipeline().ledger.balance(
            self.key("" if value is None else f"{each}={value}"), window.span if window else 0
        )

    def _amount(self, value: int) -> Decimal:
        return in_unit(value, self.definition.unit)


def close(entry: BudgetEntry) -> None:
    """Leave an entry; from now on it is ignored, also in contexts that this one cannot reach."""
    entry.open = False
    leave(entry)
