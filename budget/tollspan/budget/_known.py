"""Definitions are noted in the ledger once, so that `tollspan budget status` can show their limits.

Those with `warn_at` are watched as they are used; for others nothing is subscribed to.
"""

import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from tollspan.ledger import BudgetDefinition, Definition, Ledger, dump_definition, internal_errors

from ._alerts import watch

_noted: WeakKeyDictionary[Ledger, set[BudgetDefinition]] = WeakKeyDictionary()


def remember(ledger: Ledger, definitions: Sequence[BudgetDefinition]) -> None:
    """Note the definitions that a call counts in, of which this process has not noted all yet."""
    noted = _noted.setdefault(ledger, set())
    from_outside = ledger.overrides.budgets(time.time())  # they stand in the ledger as overrides, and go with those
    for definition in definitions:
        if definition not in noted and definition not in from_outside:
            noted.add(definition)
            if definition.window is not None:
                ledger.writer.define(Definition(definition.name, dump_definition(definition), time.time()))
    watched = [definition for definition in definitions if definition.warn_at]
    if watched:
        with internal_errors:
            watch(ledger, watched)
