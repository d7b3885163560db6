"""Budgets that are enforced before the money is spent: `budget(...)` and `scope(...)`."""

from ._admission import Admission, aadmit, admit, is_budgeted
from ._alerts import BudgetAlert, on_budget_alert
from ._budget import budget
from ._demand import CallIntent, largest_output
from ._entry import BudgetEntry
from ._errors import (
    BudgetBusy,
    BudgetExceeded,
    BudgetExhausted,
    CallRefused,
    LedgerOutOfReach,
    UnboundedCost,
    UnpricedModel,
)
from ._loading import LoadedBudgets, load_budgets
from ._reach import reach, scope
from ._testing import BudgetBalance, Testing, set_testing
from ._threads import THREADS

__all__ = [
    "THREADS",
    "Admission",
    "BudgetAlert",
    "BudgetBalance",
    "BudgetBusy",
    "BudgetEntry",
    "BudgetExceeded",
    "BudgetExhausted",
    "CallIntent",
    "CallRefused",
    "LedgerOutOfReach",
    "LoadedBudgets",
    "Testing",
    "UnboundedCost",
    "UnpricedModel",
    "aadmit",
    "admit",
    "budget",
    "is_budgeted",
    "largest_output",
    "load_budgets",
    "on_budget_alert",
    "reach",
    "scope",
    "set_testing",
]
