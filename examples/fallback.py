"""Rather a cheaper answer than none: a call that does not fit its budget any more goes to another model."""

import offline  # noqa: F401 - answers without a key
from openai import OpenAI

from tollspan.budget import budget
from tollspan.instrumentation import instrument

instrument()
client = OpenAI()

with budget("0.011 USD", name="run", on_limit="fallback", fallback_model="gpt-4o-mini") as b:
    for _ in range(4):
        answer = client.chat.completions.create(
            model="gpt-4o", max_tokens=1000, messages=[{"role": "user", "content": "Tell me a story."}]
        )
        print(f"answered by {answer.model}; ${b.spent:.4f} of ${b.limit:.4f} spent")
