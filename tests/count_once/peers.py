"""The other instrumentations, and the ways in which people call models, for the tests of counting once."""

import asyncio
import contextlib
import importlib
import os
import sys
from importlib.util import find_spec

ASK = [{"role": "user", "content": "Name three rivers of Europe."}]
OPENAI, ANTHROPIC = "gpt-4o-mini", "claude-haiku-4-5"
IN, OUT, CACHED = 100, 50, 40

# Name -> the modules whose instrumentors it has.
PEERS = {
    "openinference": (
        ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
        ("openinference.instrumentation.anthropic", "AnthropicInstrumentor"),
    ),
    "openllmetry": (
        ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
        ("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor"),
        ("opentelemetry.instrumentation.langchain", "LangchainInstrumentor"),
    ),
    "official": (
        ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
        ("opentelemetry.instrumentation.genai.anthropic", "AnthropicInstrumentor"),
    ),
}
# Those of Mistral's SDK. OpenLLMetry's knows the SDK before 2.0 only, OpenInference's the one from 2.0 on.
MISTRAL_PEERS = {
    "native": (("peers", "MistralItself"),),
    "openinference-mistral": (("openinference.instrumentation.mistralai", "MistralAIInstrumentor"),),
    "openllmetry-mistral": (("opentelemetry.instrumentation.mistralai", "MistralAiInstrumentor"),),
}
# LiteLLM's own callback, of which it has two.
LITELLM_PEERS = {"callback": (("peers", "LiteLLMCallback"),), "callback-v2": (("peers", "LiteLLMCallbackV2"),)}
_ALL_PEERS = PEERS | MISTRAL_PEERS | LITELLM_PEERS
# What they wrap.
_PATCHED = ("openai", "anthropic", "langchain_core.callbacks", "mistralai")
_PATCHED_MODULES = (
    "openai._base_client",
    "openai._client",
    "openai.resources.beta",
    "openai.resources.chat.completions",
    "openai.resources.completions",
    "openai.resources.embeddings",
    "openai.resources.images",
    "openai.resources.responses",
    "anthropic.lib.streaming",
    "anthropic.resources.beta.messages.messages",
    "anthropic.resources.messages",
    "langchain_core.callbacks",
    "mistralai.agents",
    "mistralai.chat",
    "mistralai.client.agents",
    "mistralai.client.chat",
    "mistralai.embeddings",
)
NEEDED = ("openai", "anthropic", "langchain_openai", "langchain_anthropic", "litellm")


def missing(modules):
    """Those of the modules that are not installed."""
    return [name for name in modules if not _is_there(name)]


def _is_there(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@contextlib.contextmanager
def restored():
    """Put the SDKs' classes back as they were: not every peer takes away all that it has wrapped."""
    for name in _PATCHED_MODULES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    modules = [module for name, module in sys.modules.items() if name.startswith(_PATCHED)]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    before = {kind: dict(vars(kind)) for kind in kinds if kind.__module__.startswith(_PATCHED)}
    try:
        yield
    finally:
        for kind, had in before.items():
            for name, value in tuple(vars(kind).items()):
                if name in had and had[name] is not value and not name.startswith("__abc"):
                    setattr(kind, name, had[name])
                elif name not in had and callable(value):
                    delattr(kind, name)


@contextlib.contextmanager
def instrumented_by(names, tracing):
    """With these peers active on a tracer provider; the last one activated is the first one taken away."""
    with contextlib.ExitStack() as stack:
        for module, name in [row for peer in names for row in _ALL_PEERS[peer]]:
            instrumentor = getattr(importlib.import_module(module), name)()
            instrumentor.instrument(tracer_provider=tracing, skip_dep_check=True)
            stack.callback(instrumentor.uninstrument)
        yield


class MistralItself:
    """What Mistral's SDK records by itself: since 2.0 if asked to, before that always."""

    def instrument(self, **_):
        """Ask for it."""
        os.environ["MISTRAL_SDK_TELEMETRY"] = "global"

    def uninstrument(self):
        """Ask no more."""
        del os.environ["MISTRAL_SDK_TELEMETRY"]


class LiteLLMCallback:
    """LiteLLM's callback `otel`."""

    kind = "litellm.integrations.opentelemetry", "OpenTelemetry"

    def instrument(self, *, tracer_provider, **_):
        """Have it called for every call by LiteLLM."""
        import litellm  # noqa: PLC0415 - may be missing

        module, name = self.kind
        litellm.callbacks = [getattr(importlib.import_module(module), name)(tracer_provider=tracer_provider)]

    def uninstrument(self):
        """Have it called no more: LiteLLM has copied it from the one list to others."""
        import litellm  # noqa: PLC0415 - may be missing

        for name in ("", "input_", "success_", "failure_", "_async_success_", "_async_failure_"):
            getattr(litellm, f"{name}callbacks" if not name else f"{name}callback").clear()


class LiteLLMCallbackV2(LiteLLMCallback):
    """The one that replaces it where LITELLM_OTEL_V2 is set. It records calls from tasks only."""

    kind = "litellm.integrations.otel.logger", "OpenTelemetryV2"


def openai_client(provider, *, asynchronous=False):
    """A client of OpenAI's SDK for the local provider."""
    import openai  # noqa: PLC0415 - may be missing

    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return kind(base_url=provider.openai_url, api_key="sk-local", max_retries=0)


def anthropic_client(provider, *, asynchronous=False):
    """A client of Anthropic's SDK for the local provider."""
    import anthropic  # noqa: PLC0415 - may be missing

    kind = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    return kind(base_url=provider.anthropic_url, api_key="sk-local", max_retries=0)


def _openai_request(*, stream=False):
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {"model": OPENAI, "messages": ASK, **more}


def _anthropic_request(*, stream=False):
    return {"model": ANTHROPIC, "messages": ASK, "max_tokens": 200, **({"stream": True} if stream else {})}


def openai_plain(provider):
    """One call."""
    openai_client(provider).chat.completions.create(**_openai_request())


def openai_raw(provider):
    """One call whose raw response is asked for."""
    openai_client(provider).chat.completions.with_raw_response.create(**_openai_request()).parse()


def openai_stream(provider):
    """One call whose answer is streamed, and read to its end."""
    assert list(openai_client(provider).chat.completions.create(**_openai_request(stream=True)))


def openai_responses(provider):
    """One call of the responses API."""
    openai_client(provider).responses.create(model=OPENAI, input="Name three rivers of Europe.")


def openai_async(provider):
    """One call from a task."""

    async def work():
        async with openai_client(provider, asynchronous=True) as client:
            await client.chat.completions.create(**_openai_request())

    asyncio.run(work())


def openai_async_stream(provider):
    """One streamed call from a task."""

    async def work():
        async with openai_client(provider, asynchronous=True) as client:
            stream = await client.chat.completions.create(**_openai_request(stream=True))
            assert [chunk async for chunk in stream]

    asyncio.run(work())


def anthropic_plain(provider):
    """One call."""
    anthropic_client(provider).messages.create(**_anthropic_request())


def anthropic_raw(provider):
    """One call whose raw response is asked for."""
    anthropic_client(provider).messages.with_raw_response.create(**_anthropic_request()).parse()


def anthropic_stream(provider):
    """One call whose answer is streamed, and read to its end."""
    assert list(anthropic_client(provider).messages.create(**_anthropic_request(stream=True)))


def anthropic_helper(provider):
    """One call by the streaming helper."""
    with anthropic_client(provider).messages.stream(**_anthropic_request()) as stream:
        stream.get_final_message()


def anthropic_async(provider):
    """One call from a task."""

    async def work():
        async with anthropic_client(provider, asynchronous=True) as client:
            await client.messages.create(**_anthropic_request())

    asyncio.run(work())


def _chat_openai(provider):
    import openai  # noqa: PLC0415 - may be missing
    from langchain_openai import ChatOpenAI  # noqa: PLC0415 - may be missing

    # Its own HTTP clients live as long as the process, longer than the event loop of a test.
    return ChatOpenAI(
        model=OPENAI, base_url=provider.openai_url, api_key="sk-local", stream_usage=True, max_retries=0,
        http_client=openai.DefaultHttpxClient(), http_async_client=openai.DefaultAsyncHttpxClient(),
    )  # fmt: skip


def _chat_anthropic(provider):
    from langchain_anthropic import ChatAnthropic  # noqa: PLC0415 - may be missing

    return ChatAnthropic(
        model=ANTHROPIC, base_url=provider.anthropic_url, api_key="sk-local", max_tokens=200, max_retries=0
    )


def langchain_openai(provider):
    """One call by LangChain."""
    _chat_openai(provider).invoke("Name three rivers of Europe.")


def langchain_openai_async(provider):
    """One call by LangChain from a task."""
    asyncio.run(_chat_openai(provider).ainvoke("Name three rivers of Europe."))


def langchain_openai_stream(provider):
    """One streamed call by LangChain."""
    assert list(_chat_openai(provider).stream("Name three rivers of Europe."))


def langchain_anthropic(provider):
    """One call by LangChain."""
    _chat_anthropic(provider).invoke("Name three rivers of Europe.")


def langchain_anthropic_stream(provider):
    """One streamed call by LangChain."""
    assert list(_chat_anthropic(provider).stream("Name three rivers of Europe."))


def _litellm_request(provider, *, asynchronous=False):
    # The clients that it makes itself outlive a test, and keep the methods as they were patched then.
    client = openai_client(provider, asynchronous=asynchronous)
    return {"model": f"openai/{OPENAI}", "client": client, "api_key": "sk-local", "messages": ASK, "num_retries": 0}


def litellm_plain(provider):
    """One call by LiteLLM."""
    import litellm  # noqa: PLC0415 - may be missing

    litellm.completion(**_litellm_request(provider))


def litellm_async(provider):
    """One call by LiteLLM from a task."""
    import litellm  # noqa: PLC0415 - may be missing

    asyncio.run(litellm.acompletion(**_litellm_request(provider, asynchronous=True)))


def litellm_stream(provider):
    """One streamed call by LiteLLM."""
    import litellm  # noqa: PLC0415 - may be missing

    request = _litellm_request(provider) | {"stream": True, "stream_options": {"include_usage": True}}
    assert list(litellm.completion(**request))


WAYS = {
    way.__name__: way
    for way in (
        openai_plain, openai_raw, openai_stream, openai_responses, openai_async, openai_async_stream, anthropic_plain,
        anthropic_raw, anthropic_stream, anthropic_helper, anthropic_async, langchain_openai, langchain_openai_async,
        langchain_openai_stream, langchain_anthropic, langchain_anthropic_stream, litellm_plain, litellm_async,
        litellm_stream,
    )
}  # fmt: skip
