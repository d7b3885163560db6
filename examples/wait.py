"""Waiting instead of failing: twenty tasks share a budget that has room for two of their calls at a time.

A call holds what it may cost at the most, and gives back what it did not use; then the next one in line may go.
"""

import asyncio

import offline  # noqa: F401 - answers without a key
from openai import AsyncOpenAI

from tollspan.budget import budget
from tollspan.instrumentation import instrument

instrument()


async def ask(client: AsyncOpenAI, number: int) -> None:
    await client.chat.completions.create(
        model="gpt-4o", max_tokens=1000, messages=[{"role": "user", "content": f"question {number}"}]
    )


async def main() -> None:
    patient = budget("0.03 USD", name="twenty", on_limit="wait", max_wait_timeout_s=30)
    async with AsyncOpenAI() as client, patient as b:
        answers = await asyncio.gather(*(ask(client, number) for number in range(20)))
        print(f"{len(answers)} answers for ${b.spent:.4f}; the limit is ${b.limit:.4f}")


asyncio.run(main())
