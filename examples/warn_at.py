"""Told before it is too late: each share of a budget is told once in its window, after the commit that reached it.

It is logged as well, with a warning of the logger `tollspan.budget`; a webhook is a setting.
"""

import offline  # noqa: F401 - answers without a key
from openai import OpenAI

from tollspan.budget import BudgetAlert, budget
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument


def tell(alert: BudgetAlert) -> None:
    print(f"{alert.budget}: {alert.share:.0%} of ${alert.limit:.4f} is spent")


instrument()
client = OpenAI()

with budget("0.005 USD / day", name="stories", warn_at=(0.1, 0.25), on_warn=tell):
    for _ in range(4):
        client.chat.completions.create(
            model="gpt-4o", max_tokens=300, messages=[{"role": "user", "content": "Tell me a story."}]
        )

pipeline().ledger.flush()  # alerts are told by a thread of their own, at the latest when the process ends
