"""Definitions written in code are noted in the ledger once, so that `tollspan budget status` can show their limits."""

import time
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from tollspan.ledger import BudgetDefinition, Definition, Writer, dump_definition

_noted: WeakKeyDictionary[Writer, set[BudgetDefinition]] = WeakKeyDictionary()


def remember(writer: Writer, definitions: Iterable[BudgetDefinition]) -> None:
    """Note the definitions that this process has not noted yet."""
    noted = _noted.setdefault(writer, set())
    for definition in definitions:
        if definition.window is not None and definition not in noted:
            noted.add(definition)
            writer.define(Definition(definition.name, dump_definition(definition), time.time()))
