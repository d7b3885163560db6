"""Ways to instrument an SDK, to be put in place and taken away again in turns: none, the least, ours, our peers'."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Any, Protocol

import wrapt
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

METHODS = {
    "openai": (
        ("openai.resources.chat.completions.completions", "Completions", "create"),
        ("openai.resources.chat.completions.completions", "AsyncCompletions", "create"),
    ),
    "anthropic": (
        ("anthropic.resources.messages.messages", "Messages", "create"),
        ("anthropic.resources.messages.messages", "AsyncMessages", "create"),
    ),
    "gemini": (
        ("google.genai.models", "Models", "generate_content"),
        ("google.genai.models", "Models", "generate_content_stream"),
        ("google.genai.models", "AsyncModels", "generate_content"),
        ("google.genai.models", "AsyncModels", "generate_content_stream"),
    ),
    "bedrock": (
        ("botocore.client", "BaseClient", "_make_api_call"),
        ("aiobotocore.client", "AioBaseClient", "_make_api_call"),
    ),
}
"""What the floor wraps, by vendor: module, class, method. The coroutine functions are those of classes in A."""

PEERS = {
    "OpenTelemetry": {
        "openai": ("genai-openai", "genai.openai", "OpenAIInstrumentor"),
        "anthropic": ("genai-anthropic", "genai.anthropic", "AnthropicInstrumentor"),
        "gemini": ("google-genai", "google_genai", "GoogleGenAiSdkInstrumentor"),
        "bedrock": ("genai-bedrock", "genai.bedrock", "BedrockInstrumentor"),
    },
    "OpenLLMetry": {
        "openai": ("openai", "openai", "OpenAIInstrumentor"),
        "anthropic": ("anthropic", "anthropic", "AnthropicInstrumentor"),
        "gemini": ("google-generativeai", "google_generativeai", "GoogleGenerativeAiInstrumentor"),
        "bedrock": ("bedrock", "bedrock", "BedrockInstrumentor"),
    },
}
"""By vendor: the end of the distribution's name after `opentelemetry-instrumentation-`, of the module's, the class."""


class Variant(Protocol):
    def install(self) -> None: ...

    def remove(self) -> None: ...


class Bare:
    def install(self) -> None:
        pass

    remove = install


class Floor:
    """The least that an instrumentation can do: one wrapper and one span with 12 attributes."""

    def __init__(self, vendor: str) -> None:
        self._tracer = new_provider().get_tracer("floor")
        self._methods = methods(vendor)
        self._patched: list[tuple[type, str, Any]] = []

    def install(self) -> None:
        for owner, name in self._methods:
            original = vars(owner)[name]
            wrapper = self._async if owner.__name__.startswith("A") else self._sync
            self._patched.append((owner, name, original))
            setattr(owner, name, wrapt.FunctionWrapper(original, wrapper))

    def remove(self) -> None:
        while self._patched:
            setattr(*self._patched.pop())

    def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        model = kwargs.get("model") or args[1]["modelId"]
        return self._tracer.start_span("chat", attributes={f"gen_ai.request.a{i}": model for i in range(6)})

    def _end(self, span: Any) -> None:
        span.set_attributes({f"gen_ai.usage.b{i}": i for i in range(6)})
        span.end()

    def _sync(self, wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        span = self._start(args, kwargs)
        result = wrapped(*args, **kwargs)
        self._end(span)
        return result

    async def _async(self, wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        span = self._start(args, kwargs)
        result = await wrapped(*args, **kwargs)
        self._end(span)
        return result


class Tollspan:
    """Ours, with its ledger. It has a tracer provider of its own, because it stays on it and sees what others make."""

    def __init__(self) -> None:
        self._provider = new_provider()

    def install(self) -> None:
        from tollspan.instrumentation import instrument

        instrument(self._provider)

    def remove(self) -> None:
        from tollspan.instrumentation import uninstrument

        uninstrument()


class Peer:
    """Another instrumentation, as it comes, on whatever version of the SDK there is.

    What it leaves wrapped is put back: one of them would wrap its own wrappers, more of them with each turn.
    """

    def __init__(self, instrumentor: Any, vendor: str) -> None:
        self._instrumentor, self._provider = instrumentor, new_provider()
        self._originals = [(owner, name, vars(owner)[name]) for owner, name in methods(vendor)]

    def install(self) -> None:
        self._instrumentor.instrument(tracer_provider=self._provider, skip_dep_check=True)

    def remove(self) -> None:
        self._instrumentor.uninstrument()
        for owner, name, original in self._originals:
            if vars(owner)[name] is not original:
                setattr(owner, name, original)


def methods(vendor: str) -> list[tuple[type, str]]:
    """Classes and methods of METHODS, as far as they are installed. Raises ImportError where none is."""
    found = []
    for module, owner, method in METHODS[vendor]:
        with suppress(ImportError):  # Bedrock's calls are those of two libraries
            found.append((getattr(import_module(module), owner), method))
    if not found:
        raise ImportError(f"{METHODS[vendor][0][0].partition('.')[0]} is not installed")
    return found


def new_provider() -> TracerProvider:
    """A tracer provider whose spans go nowhere."""
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    return provider


def variants(vendor: str, missing: Callable[[str], None]) -> dict[str, Variant]:
    """The variants for a vendor's SDK, by name; what is not installed is told to `missing`."""
    found: dict[str, Variant] = {"bare": Bare(), "floor": Floor(vendor), "tollspan": Tollspan()}
    for name, packages in PEERS.items():
        distribution, module, instrumentor = packages[vendor]
        distribution = f"opentelemetry-instrumentation-{distribution}"
        try:
            made = getattr(import_module(f"opentelemetry.instrumentation.{module}"), instrumentor)()
        except ImportError:
            missing(f"{name} for {vendor}: {distribution} is not installed")
        else:
            found[f"{name} {version(distribution)}"] = Peer(made, vendor)
    return found
