"""Budgets that are enforced before the money is spent: `budget(...)` and `scope(...)`."""

from ._admission import Admission, aadmit, admit, is_budgeted
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
from ._reach import reach, scope

__all__ = [
    "Admission",
    "BudgetBusy",
    "BudgetEntry",
    "BudgetExceeded",
    "BudgetExhausted",
    "CallIntent",
    "CallRefused",
    "LedgerOutOfReach",
    "UnboundedCost",
    "UnpricedModel",
    "aadmit",
    "admit",
    "budget",
    "is_budgeted",
    "largest_output",
    "reach",
    "scope",
]
