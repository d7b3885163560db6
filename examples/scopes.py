"""A budget for each user: `scope` says whose call it is, `each` gives every user a balance of their own."""

import offline  # noqa: F401 - answers without a key
from openai import OpenAI

from tollspan.budget import BudgetExceeded, budget, scope
from tollspan.instrumentation import instrument

instrument()
client = OpenAI()


def chat(question: str) -> None:
    client.chat.completions.create(model="gpt-4o", max_tokens=500, messages=[{"role": "user", "content": question}])


def visit(user: str, questions: int) -> None:
    answered = 0
    with scope(user=user, tags={"feature": "chat"}):
        try:
            for number in range(questions):
                chat(f"question {number} of {user}")
                answered += 1
        except BudgetExceeded as refusal:
            print(f"{user}: {answered} answers, then {type(refusal).__name__} for {refusal.scope}")
        else:
            print(f"{user}: {answered} answers")


with budget("0.01 USD / hour", name="visitors", each="user"):
    visit("ada", questions=100)
    visit("grace", questions=3)
