"""An alert after the fact: a listener hears of each commit once it is on disk, in order, off the path of any call."""

from collections.abc import Sequence
from decimal import Decimal

import offline  # noqa: F401 - answers without a key
from openai import OpenAI

from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument
from tollspan.ledger import LedgerEvent

ALERT_AT = Decimal("0.001")
total = Decimal(0)


def alert(events: Sequence[LedgerEvent]) -> None:
    global total
    for event in events:
        before, total = total, total + (event.spend_usd or 0)
        if before <= ALERT_AT < total:
            print(f"event {event.offset}: spend has passed {ALERT_AT} USD with a call of {event.model}")


instrument()
pipeline().ledger.subscribe(alert)  # the ledger that this process writes to
client = OpenAI()
for _ in range(5):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Tell me a story."}])
