"""Budgets that are enforced before the money is spent: `budget(...)` and `scope(...)`."""

from typing import TYPE_CHECKING

from tollspan.ledger import lazy_face

from . import _foreign  # noqa: F401 - from here on, calls that only spans of others tell of count in budgets

if TYPE_CHECKING:
    from ._admission import Admission, aadmit, admit, holds_tokens, is_budgeted
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
        UncoveredCall,
        UnpricedModel,
    )
    from ._loading import LoadedBudgets, load_budgets
    from ._matching import charged
    from ._reach import reach, scope
    from ._testing import BudgetBalance, Testing, set_testing
    from ._threads import THREADS
else:
    __getattr__, __dir__ = lazy_face(
        __name__,
        {
            "_admission": "Admission aadmit admit holds_tokens is_budgeted",
            "_alerts": "BudgetAlert on_budget_alert",
            "_budget": "budget",
            "_demand": "CallIntent largest_output",
            "_entry": "BudgetEntry",
            "_errors": (
                "BudgetBusy BudgetExceeded BudgetExhausted CallRefused LedgerOutOfReach UnboundedCost "
                "UncoveredCall UnpricedModel"
            ),
            "_loading": "LoadedBudgets load_budgets",
            "_matching": "charged",
            "_reach": "reach scope",
            "_testing": "BudgetBalance Testing set_testing",
            "_threads": "THREADS",
        },
    )

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
    "UncoveredCall",
    "UnpricedModel",
    "aadmit",
    "admit",
    "budget",
    "charged",
    "holds_tokens",
    "is_budgeted",
    "largest_output",
    "load_budgets",
    "on_budget_alert",
    "reach",
    "scope",
    "set_testing",
]
