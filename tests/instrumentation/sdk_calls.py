"""Every way in which people call the SDKs, written once for the sync and the async clients."""

import asyncio
import contextlib
import inspect
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import pytest

from tollspan.console import _provider_wire as wire

openai = pytest.importorskip("openai", reason="the OpenAI SDK drives these tests")
anthropic = pytest.importorskip("anthropic", reason="the Anthropic SDK drives these tests")
pydantic = pytest.importorskip("pydantic", reason="both SDKs take its models as schemas")

ASK = [{"role": "user", "content": "Name three rivers of Europe."}]
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
# USD per million tokens of input and output, which are 1,000 nano-USD per token.
RATES = {"openai": (150, 600), "anthropic": (1_000, 5_000)}
KINDS = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])

# Nothing here is encrypted, and to load the certificates takes most of the time that it takes to make a client.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CHANGING = frozenset({"id", "created", "created_at", "completed_at", "item_id", "call_id"})


class River(pydantic.BaseModel):
    """What a parsed answer is made of."""

    name: str
    length: int


def library_of(sdk):
    """The HTTP library that an SDK sends with: httpx2, or httpx in older ones."""
    inside = {"openai": openai, "anthropic": anthropic}[sdk]._base_client
    return next(getattr(inside, name) for name in ("httpx2", "httpx") if hasattr(inside, name))


def make_client(provider, sdk, *, asynchronous=False, **options):
    """A client of an SDK for the local provider, which does not retry unless told."""
    inside, prefix = {"openai": openai, "anthropic": anthropic}[sdk], "Async" if asynchronous else ""
    address = provider.openai_url if sdk == "openai" else provider.anthropic_url
    options = {"base_url": address, "api_key": "sk-never-kept", "max_retries": 0, **options}
    if "http_client" not in options:
        options["http_client"] = getattr(inside, f"Default{prefix}HttpxClient")(verify=_NO_TLS)
    return getattr(inside, prefix + {"openai": "OpenAI", "anthropic": "Anthropic"}[sdk])(**options)


def drive(work, *, asynchronous):
    """Run a coroutine: in an event loop, or, where it is of sync calls only, in one step without any."""
    if asynchronous:
        return asyncio.run(work)
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a sync call must not suspend")


async def resolved(value):
    """The value itself, or what it is awaited to."""
    return await value if inspect.isawaitable(value) else value


async def listed(stream):
    """All that a sync or an async iterable gives."""
    return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)


async def next_of(stream):
    """The next item of a sync or an async iterator."""
    return await anext(stream) if hasattr(stream, "__anext__") else next(stream)


@contextlib.asynccontextmanager
async def entered(manager):
    """A sync or an async context manager, entered."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


def method(client, *paths):
    """The first of these methods that the client has; the test is skipped where this SDK has none of them."""
    for path in paths:
        with contextlib.suppress(AttributeError):
            return attrgetter(path)(client)
    pytest.skip(f"this version of the SDK has no {paths[0]}")


def arguments(flavour, **more):
    """The keyword arguments of a plain call."""
    if flavour == "chat":
        return {"model": MODELS["openai"], "messages": ASK, "max_completion_tokens": 100, **more}
    if flavour == "responses":
        return {"model": MODELS["openai"], "input": ASK, "max_output_tokens": 100, **more}
    return {"model": MODELS["anthropic"], "messages": ASK, "max_tokens": 100, **more}


def create(client, flavour, **more):
    """The plain call of a flavour: its answer or stream, or what is awaited to it."""
    path = {"chat": "chat.completions.create", "responses": "responses.create", "messages": "messages.create"}[flavour]
    return attrgetter(path)(client)(**arguments(flavour, **more))


FLAVOURS = {"chat": "openai", "responses": "openai", "messages": "anthropic"}


@dataclass(frozen=True)
class Surface:
    """One way to call: `run` makes the call on a client and gives all that the user gets to see."""

    name: str
    flavour: str
    run: Callable[[Any], Awaitable[list[Any]]]
    streams: bool = False

    @property
    def sdk(self):
        return FLAVOURS[self.flavour]


def _plain(path, flavour, **more):
    async def run(client):
        return [await resolved(method(client, *path)(**arguments(flavour, **more)))]

    return run


def _stream(path, flavour, **more):
    async def run(client):
        stream = await resolved(method(client, *path)(**arguments(flavour, stream=True, **more)))
        return [type(stream), *await listed(stream)]

    return run


def _helper(path, flavour, final, **more):
    async def run(client):
        async with entered(method(client, *path)(**arguments(flavour, **more))) as stream:
            events = await listed(stream)
            return [type(stream), *events, await resolved(getattr(stream, final)())]

    return run


def _raw(path, flavour):
    async def run(client):
        raw = await resolved(method(client, *path)(**arguments(flavour)))
        return [type(raw), raw.status_code, sorted(raw.headers), await resolved(raw.parse())]

    return run


def _raw_stream(path, flavour):
    async def run(client):
        raw = await resolved(method(client, *path)(**arguments(flavour, stream=True)))
        stream = await resolved(raw.parse())
        return [type(raw), type(stream), *await listed(stream)]

    return run


def _streaming(path, flavour):
    async def run(client):
        async with entered(method(client, *path)(**arguments(flavour))) as response:
            return [type(response), response.status_code, await resolved(response.parse())]

    return run


def _streamed_lines(path, flavour):
    async def run(client):
        async with entered(method(client, *path)(**arguments(flavour, stream=True))) as response:
            lines = await listed(response.iter_lines())
            return [type(response), [line.partition(":")[0] for line in lines]]

    return run


def _with_options(flavour):
    async def run(client):
        return [await resolved(create(client.with_options(timeout=20), flavour))]

    return run


_CHAT = ("chat.completions.create",)
_RESPONSES = ("responses.create",)
_MESSAGES = ("messages.create",)
_BETA = ("beta.messages.create",)
_CHAT_PARSE = ("chat.completions.parse", "beta.chat.completions.parse")
_CHAT_STREAM = ("chat.completions.stream", "beta.chat.completions.stream")

SURFACES = (
    Surface("chat.create", "chat", _plain(_CHAT, "chat")),
    Surface("chat.create stream", "chat", _stream(_CHAT, "chat"), streams=True),
    Surface("chat.parse", "chat", _plain(_CHAT_PARSE, "chat", response_format=River)),
    Surface("chat.stream", "chat", _helper(_CHAT_STREAM, "chat", "get_final_completion"), streams=True),
    Surface("chat raw", "chat", _raw(("chat.completions.with_raw_response.create",), "chat")),
    Surface(
        "chat raw stream", "chat", _raw_stream(("chat.completions.with_raw_response.create",), "chat"), streams=True
    ),
    Surface("chat streaming", "chat", _streaming(("chat.completions.with_streaming_response.create",), "chat")),
    Surface(
        "chat streaming stream",
        "chat",
        _streamed_lines(("chat.completions.with_streaming_response.create",), "chat"),
        streams=True,
    ),
    Surface("chat with_options", "chat", _with_options("chat")),
    Surface("responses.create", "responses", _plain(_RESPONSES, "responses")),
    Surface("responses.create stream", "responses", _stream(_RESPONSES, "responses"), streams=True),
    Surface("responses.parse", "responses", _plain(("responses.parse",), "responses", text_format=River)),
    Surface(
        "responses.stream", "responses", _helper(("responses.stream",), "responses", "get_final_response"), streams=True
    ),
    Surface("responses raw", "responses", _raw(("responses.with_raw_response.create",), "responses")),
    Surface("beta.responses.create", "responses", _plain(("beta.responses.create",), "responses")),
    Surface("messages.create", "messages", _plain(_MESSAGES, "messages")),
    Surface("messages.create stream", "messages", _stream(_MESSAGES, "messages"), streams=True),
    Surface(
        "messages.stream", "messages", _helper(("messages.stream",), "messages", "get_final_message"), streams=True
    ),
    Surface("messages.parse", "messages", _plain(("messages.parse",), "messages", output_format=River)),
    Surface("beta.messages.create", "messages", _plain(_BETA, "messages")),
    Surface("beta.messages.create stream", "messages", _stream(_BETA, "messages"), streams=True),
    Surface(
        "beta.messages.stream",
        "messages",
        _helper(("beta.messages.stream",), "messages", "get_final_message"),
        streams=True,
    ),
    Surface("beta.messages.parse", "messages", _plain(("beta.messages.parse",), "messages", output_format=River)),
    Surface("messages raw", "messages", _raw(("messages.with_raw_response.create",), "messages")),
    Surface(
        "messages raw stream", "messages", _raw_stream(("messages.with_raw_response.create",), "messages"), streams=True
    ),
    Surface("messages streaming", "messages", _streaming(("messages.with_streaming_response.create",), "messages")),
    Surface("messages with_options", "messages", _with_options("messages")),
)


def call(provider, surface, *, asynchronous, **options):
    """Make the call of a surface with a client of its own; gives all that the user gets to see."""

    async def work():
        client = make_client(provider, surface.sdk, asynchronous=asynchronous, **options)
        try:
            return await surface.run(client)
        finally:
            await resolved(client.close())

    return drive(work(), asynchronous=asynchronous)


def shown(value):
    """A result in a form that two equal answers share: its type and content, but for ids and times."""
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    if isinstance(value, pydantic.BaseModel):
        whole = value.model_dump(warnings=False)
        return [type(value), _scrubbed(whole), _scrubbed(value.model_dump(exclude_unset=True, warnings=False))]
    return value


def _scrubbed(value):
    if isinstance(value, dict):
        return {key: _scrubbed(inner) for key, inner in value.items() if key not in _CHANGING}
    return [_scrubbed(inner) for inner in value] if isinstance(value, list) else value


def canned(request, *, chunked=False, asynchronous=False):
    """What a mock transport answers to a request of either SDK: its body whole, or in chunks of 50 bytes."""
    body, flavour = json.loads(request.content), wire.flavour_of(request.url.path)
    schema, streams = wire.schema_asked(body), body.get("stream")
    text = wire.dumps(wire.instance_of(schema)) if schema else "The Rhine, the Elbe and the Rhone."
    counts = {"pieces": 4, "input": 20, "cached": 0, "written": 0, "output": 10, "reasoning": 0}
    reply = wire.Reply(ident="x", created=1, model=body["model"], text=text, tool=None, cut=False, n=1, **counts)
    content = (
        b"".join(wire.events(flavour, reply, body)) if streams else wire.dumps(wire.payload(flavour, reply)).encode()
    )
    mime = "text/event-stream" if streams else "application/json"
    return {
        "status_code": 200,
        "headers": {"content-type": mime},
        "content": _cut(content, asynchronous) if chunked else content,
    }


def _cut(content, asynchronous):
    async def slowly():
        for start in range(0, len(content), 50):
            yield content[start : start + 50]

    return slowly() if asynchronous else (content[start : start + 50] for start in range(0, len(content), 50))


def mocked(sdk, handler, *, asynchronous):
    """An HTTP client of the SDK's library whose answers `handler` makes: it gives the arguments of a response."""
    library = library_of(sdk)
    transport = library.MockTransport(lambda request: library.Response(**handler(request)))
    return (library.AsyncClient if asynchronous else library.Client)(transport=transport)
