"""Spans and costs for an application that knows nothing of tollspan.

export TOLLSPAN_LEDGER=sqlite:///example.db OTEL_TRACES_EXPORTER=console
opentelemetry-instrument python examples/zero_code.py
tollspan today
"""

import offline  # noqa: F401 - answers without a key
from openai import OpenAI

client = OpenAI()
answer = client.chat.completions.create(
    model="gpt-4o-mini",
    max_tokens=200,
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print("answer:", answer.choices[0].message.content)

stream = client.chat.completions.create(
    model="gpt-4o-mini",
    max_tokens=200,
    messages=[{"role": "user", "content": "And why is it red in the evening?"}],
    stream=True,
)
print("streamed in", sum(1 for _ in stream), "chunks")
