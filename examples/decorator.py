"""A function with a budget of its own: shared by all processes that use the same ledger, and new every day."""

import offline  # noqa: F401 - answers without a key
from openai import OpenAI

from tollspan.budget import BudgetExceeded, budget
from tollspan.instrumentation import instrument

instrument()
client = OpenAI()


@budget("0.02 USD / day", name="summaries")
def summarise(text: str) -> str:
    answer = client.chat.completions.create(
        model="gpt-4o",
        max_tokens=500,  # at $10 per million tokens no call can cost more than about half a cent
        messages=[{"role": "user", "content": f"Summarise: {text}"}],
    )
    return answer.choices[0].message.content or ""


done = 0
try:
    while True:
        summarise(f"chapter {done + 1}")
        done += 1
except BudgetExceeded as refusal:
    print(f"{done} summaries, then: {refusal}")
    print(f"spent ${refusal.spent:.4f} of ${refusal.limit:.4f}; the next one may cost ${refusal.needed:.4f}")
