"""Budgets as blocks, one inside the other, and many calls at once: each call must fit into all of them."""

import asyncio

import offline  # noqa: F401 - answers without a key
from openai import AsyncOpenAI

from tollspan.budget import budget
from tollspan.instrumentation import instrument

instrument()


async def write(client: AsyncOpenAI, chapter: int) -> None:
    async with budget("0.01 USD", name="chapter") as mine:
        paragraphs = (
            client.chat.completions.create(
                model="gpt-4o-mini",
                max_tokens=1000,
                messages=[{"role": "user", "content": f"Write paragraph {n} of chapter {chapter}."}],
            )
            for n in (1, 2, 3)
        )
        await asyncio.gather(*paragraphs)
        print(f"chapter {chapter}: ${mine.spent:.6f} of ${mine.limit:.2f}")


async def main() -> None:
    async with AsyncOpenAI() as client, budget("0.10 USD", name="book") as whole:
        await asyncio.gather(*(write(client, chapter) for chapter in (1, 2, 3)))
        print(f"the book: ${whole.spent:.6f} of ${whole.limit:.2f}, ${whole.remaining:.6f} left")


asyncio.run(main())
