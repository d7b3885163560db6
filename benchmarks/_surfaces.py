"""What the benchmarks call: for each vendor's SDK, its surfaces as functions that make one call and read its answer."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

QUESTION = "Name three rivers of Europe, and the seas they reach."
MESSAGES = [{"role": "user", "content": QUESTION}]
PIECES = {"stream of 100": 100, "stream of 10": 10}
"""The streams, and how many pieces of text each has: what a piece costs is the difference."""
_KEYS = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}


@dataclass
class Calls:
    """The surfaces of one SDK, by name. They belong to one client, and async ones to one loop that stays."""

    loop: asyncio.AbstractEventLoop
    by_name: dict[str, Callable[[], Any]] = field(default_factory=dict)
    open: AsyncExitStack = field(default_factory=AsyncExitStack)

    def add(self, call: Callable[[int], Any], stream: Callable[[int], Iterable[Any]]) -> None:
        """The calls of a sync client, by the maximum of output tokens."""
        self.by_name["call"] = lambda: call(100)
        for name, pieces in PIECES.items():
            self.by_name[name] = lambda pieces=pieces: drain(stream(pieces))

    def add_async(
        self, call: Callable[[int], Coroutine[Any, Any, Any]], stream: Callable[[int], Coroutine[Any, Any, Any]]
    ) -> None:
        """The calls of an async client; `stream` is to read its answer itself."""
        self.by_name["call, async"] = lambda: self.loop.run_until_complete(call(100))
        for name, pieces in PIECES.items():
            self.by_name[f"{name}, async"] = lambda pieces=pieces: self.loop.run_until_complete(stream(pieces))

    def close(self) -> None:
        self.loop.run_until_complete(self.open.aclose())


def openai(calls: Calls, url: str) -> None:
    from openai import AsyncOpenAI, OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="local")
    aclient = AsyncOpenAI(base_url=f"{url}/v1", api_key="local")
    asked = {"model": "gpt-4o-mini", "messages": MESSAGES}
    # The caller asks for usage itself, so that all variants read the same chunks.
    streamed = {**asked, "stream": True, "stream_options": {"include_usage": True}}

    async def astream(pieces):
        await adrain(await aclient.chat.completions.create(**streamed, max_tokens=pieces))

    calls.add(
        lambda pieces: client.chat.completions.create(**asked, max_tokens=pieces),
        lambda pieces: client.chat.completions.create(**streamed, max_tokens=pieces),
    )
    calls.add_async(lambda pieces: aclient.chat.completions.create(**asked, max_tokens=pieces), astream)


def anthropic(calls: Calls, url: str) -> None:
    from anthropic import Anthropic, AsyncAnthropic

    # From version 2 on this SDK makes spans of its own; their cost is not ours.
    native = {"open_telemetry": False} if "open_telemetry" in inspect.signature(Anthropic).parameters else {}
    client = Anthropic(base_url=url, api_key="local", **native)
    aclient = AsyncAnthropic(base_url=url, api_key="local", **native)
    asked = {"model": "claude-sonnet-4-5", "messages": MESSAGES}

    async def astream(pieces):
        await adrain(await aclient.messages.create(**asked, max_tokens=pieces, stream=True))

    calls.add(
        lambda pieces: client.messages.create(**asked, max_tokens=pieces),
        lambda pieces: client.messages.create(**asked, max_tokens=pieces, stream=True),
    )
    calls.add_async(lambda pieces: aclient.messages.create(**asked, max_tokens=pieces), astream)


def google(calls: Calls, url: str) -> None:
    from google import genai

    client = genai.Client(api_key="local", http_options={"base_url": url})
    asked = {"model": "gemini-2.5-flash", "contents": QUESTION}
    limit = {pieces: genai.types.GenerateContentConfig(max_output_tokens=pieces) for pieces in PIECES.values()}

    async def astream(pieces):
        await adrain(await client.aio.models.generate_content_stream(**asked, config=limit[pieces]))

    calls.add(
        lambda pieces: client.models.generate_content(**asked, config=limit[pieces]),
        lambda pieces: client.models.generate_content_stream(**asked, config=limit[pieces]),
    )
    calls.add_async(lambda pieces: client.aio.models.generate_content(**asked, config=limit[pieces]), astream)
    calls.open.push_async_callback(client.aio.aclose)


def bedrock(calls: Calls, url: str) -> None:
    """Sync by boto3, async by aiobotocore: which of the two is installed."""
    sync = _has("boto3") and _boto3(calls, url)
    if not (_has("aiobotocore") and _aiobotocore(calls, url)) and not sync:
        raise ImportError("neither boto3 nor aiobotocore")


def _boto3(calls: Calls, url: str) -> bool:
    import boto3

    client = boto3.client("bedrock-runtime", endpoint_url=url, **_KEYS)
    calls.add(
        lambda pieces: client.converse(**_converse(pieces)),
        lambda pieces: client.converse_stream(**_converse(pieces))["stream"],
    )
    return True


def _aiobotocore(calls: Calls, url: str) -> bool:
    from aiobotocore.session import get_session

    opened = get_session().create_client("bedrock-runtime", endpoint_url=url, **_KEYS)
    client = calls.loop.run_until_complete(calls.open.enter_async_context(opened))

    async def astream(pieces):
        await adrain((await client.converse_stream(**_converse(pieces)))["stream"])

    calls.add_async(lambda pieces: client.converse(**_converse(pieces)), astream)
    return True


def _converse(pieces):
    messages = [{"role": "user", "content": [{"text": QUESTION}]}]
    model = "anthropic.claude-3-haiku-20240307-v1:0"
    return {"modelId": model, "messages": messages, "inferenceConfig": {"maxTokens": pieces}}


def _has(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


VENDORS: dict[str, Callable[[Calls, str], None]] = {
    "openai": openai,
    "anthropic": anthropic,
    "gemini": google,
    "bedrock": bedrock,
}


def drain(stream: Iterable[Any]) -> None:
    for _ in stream:
        pass


async def adrain(stream: Any) -> None:
    async for _ in stream:
        pass


def surfaces() -> Iterator[str]:
    """The names of all surfaces, calls first."""
    for end in ("", ", async"):
        yield f"call{end}"
    for name in PIECES:
        yield name
        yield f"{name}, async"
