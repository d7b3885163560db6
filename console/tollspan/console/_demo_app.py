"""An application that calls LLMs, written as if nobody counted: it imports the vendors' SDKs and nothing else.

`python app.py calls` makes a call of each kind and then ten at once, `burst N` makes N long calls at once, `tiny` makes
one small call to each vendor that has a key. The SDKs find vendors and keys in the environment, as they always do. How
it went is told on stderr, as one line of JSON.
"""

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, TypedDict

import openai

if TYPE_CHECKING:
    import anthropic

MANUAL = "You answer visitors of a museum of light, each in one short paragraph. " * 60
COLOURS = ("red", "orange", "yellow", "green", "violet")


class Outcome(TypedDict):
    """How many calls were answered, and the type and the text of the error of each other one."""

    answered: int
    errors: list[tuple[str, str]]


def plain(ours: openai.OpenAI, theirs: "anthropic.Anthropic") -> int:
    """One request, one answer."""
    ours.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Why is the sky blue?"}])
    ours.responses.create(model="gpt-4o", instructions=MANUAL, input="And why is it red in the evening?")
    glory = "What is the ring of colours around the shadow of an aeroplane?"
    theirs.messages.create(
        model="claude-sonnet-4-5", max_tokens=500, system=MANUAL, messages=[{"role": "user", "content": glory}]
    )
    return 3


def streamed(ours: openai.OpenAI, theirs: "anthropic.Anthropic") -> int:
    """Answers that arrive piece by piece."""
    halo = "What makes a halo around the moon?"
    for _ in ours.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": halo}], stream=True):
        pass
    for _ in ours.responses.create(model="gpt-4o-mini", input="What is a mirage?", stream=True):
        pass
    with theirs.messages.stream(
        model="claude-haiku-4-5", max_tokens=500, messages=[{"role": "user", "content": "And what is a rainbow?"}]
    ) as stream:
        stream.get_final_message()
    return 3


async def at_once(ours: openai.AsyncOpenAI, theirs: "anthropic.AsyncAnthropic") -> int:
    """An async stream, and then ten calls at once."""
    stream = await theirs.messages.create(
        model="claude-sonnet-4-5",
        max_tokens=500,
        messages=[{"role": "user", "content": "Why do stars blink?"}],
        stream=True,
    )
    async for _ in stream:
        pass
    await asyncio.gather(
        *(
            ours.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": f"Why {c}?"}])
            for c in COLOURS
        ),
        *(
            theirs.messages.create(
                model="claude-haiku-4-5", max_tokens=200, messages=[{"role": "user", "content": f"Where is {c}?"}]
            )
            for c in COLOURS
        ),
    )
    return 1 + 2 * len(COLOURS)


def calls() -> Outcome:
    """Make a call of each kind; the first error ends the application."""
    import anthropic  # noqa: PLC0415 - takes a second, and `burst` has no use for it

    count = plain(openai.OpenAI(), anthropic.Anthropic())
    count += streamed(openai.OpenAI(), anthropic.Anthropic())
    count += asyncio.run(at_once(openai.AsyncOpenAI(), anthropic.AsyncAnthropic()))
    return {"answered": count, "errors": []}


async def burst(count: int) -> Outcome:
    """Make many calls at once, each with an answer of 10,000 tokens."""
    async with openai.AsyncOpenAI() as client:
        results = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="gpt-4o",
                    max_tokens=10_000,
                    messages=[{"role": "user", "content": f"Write chapter {number}."}],
                )
                for number in range(1, count + 1)
            ),
            return_exceptions=True,
        )
    errors = [(type(result).__name__, str(result)) for result in results if isinstance(result, BaseException)]
    return {"answered": count - len(errors), "errors": errors}


def greet_openai() -> None:
    """One call of a few tokens."""
    openai.OpenAI().chat.completions.create(
        model="gpt-4o-mini", max_tokens=16, messages=[{"role": "user", "content": "Say hello."}]
    )


def greet_anthropic() -> None:
    """One call of a few tokens."""
    import anthropic  # noqa: PLC0415 - takes a second, and `burst` has no use for it

    anthropic.Anthropic().messages.create(
        model="claude-haiku-4-5", max_tokens=16, messages=[{"role": "user", "content": "Say hello."}]
    )


def tiny() -> Outcome:
    """Greet each vendor that has a key."""
    greetings = {"OPENAI_API_KEY": greet_openai, "ANTHROPIC_API_KEY": greet_anthropic}
    outcome: Outcome = {"answered": 0, "errors": []}
    for key, greet in greetings.items():
        try:
            if os.environ.get(key):
                greet()
                outcome["answered"] += 1
        except Exception as error:  # noqa: BLE001 - it is told, and the other vendor is still to be greeted
            outcome["errors"].append((type(error).__name__, str(error)))
    return outcome


def main() -> None:
    """Do as the command line says."""
    command, *rest = sys.argv[1:]
    outcome = asyncio.run(burst(int(rest[0]))) if command == "burst" else tiny() if command == "tiny" else calls()
    sys.stderr.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
