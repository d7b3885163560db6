"""The ground floor: events, money, prices, budget definitions, and the store that keeps them.

`open_ledger()` opens the configured ledger, `LedgerEvent` is one row of it.
"""

from ._definitions import BudgetDefinition, BudgetSyntaxError, CutStream, Mode, OnLimit, Unit, parse_limit
from ._errors import LedgerConflict, LedgerError, LedgerUnavailable
from ._events import Charge, EventType, LedgerEvent, Status, event_id_for, new_call_id
from ._guard import internal_errors
from ._holds import Balance, Cost, Demand, Grant, Limit, Refusal, decide
from ._ledger import Ledger, open_ledger
from ._money import NANO_PER_USD, format_usd, to_nano, to_nano_up, to_usd
from ._prices import PriceBook, PriceFileError
from ._rates import CostBound, RateCard, Unpriced
from ._registry import dump_definition, load_definition
from ._settings import SETTINGS, ConfigurationError, Settings, load_settings, settings_reference
from ._store import LEDGER_BUDGET, Definition, Entry, HoldRequest, Key
from ._tickets import Ticket
from ._windows import Window, WindowKind
from ._writer import Writer, WriterCounts

__all__ = [
    "LEDGER_BUDGET",
    "NANO_PER_USD",
    "SETTINGS",
    "Balance",
    "BudgetDefinition",
    "BudgetSyntaxError",
    "Charge",
    "ConfigurationError",
    "Cost",
    "CostBound",
    "CutStream",
    "Definition",
    "Demand",
    "Entry",
    "EventType",
    "Grant",
    "HoldRequest",
    "Key",
    "Ledger",
    "LedgerConflict",
    "LedgerError",
    "LedgerEvent",
    "LedgerUnavailable",
    "Limit",
    "Mode",
    "OnLimit",
    "PriceBook",
    "PriceFileError",
    "RateCard",
    "Refusal",
    "Settings",
    "Status",
    "Ticket",
    "Unit",
    "Unpriced",
    "Window",
    "WindowKind",
    "Writer",
    "WriterCounts",
    "decide",
    "dump_definition",
    "event_id_for",
    "format_usd",
    "internal_errors",
    "load_definition",
    "load_settings",
    "new_call_id",
    "open_ledger",
    "parse_limit",
    "settings_reference",
    "to_nano",
    "to_nano_up",
    "to_usd",
]
