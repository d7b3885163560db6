"""XAI's xai-sdk, which speaks gRPC: its requests are read where its interceptors send them."""

from collections.abc import Iterator

from tollspan.instrumentation._sites._site import CallSite, Kind


def _both(since: str, module: str, *names: str) -> Iterator[CallSite]:
    for name in names:
        yield CallSite("xai-sdk", since, f"xai_sdk.sync.{module}", name, "sends", vendor="x_ai")
        steps: Kind = "sends" if "stream" in name else "async sends"
        yield CallSite("xai-sdk", since, f"xai_sdk.aio.{module}", name, steps, vendor="x_ai")


_CHAT = ("sample", "sample_batch", "parse", "stream", "stream_batch", "defer", "defer_batch")

XAI: tuple[CallSite, ...] = (
    *_both("1.4", "chat", *(f"Chat.{name}" for name in _CHAT)),
    *_both("1.15", "chat", "Chat.compact", "Client.compact_context"),
    *_both("1.4", "image", "Client.sample", "Client.sample_batch"),
    *_both("1.7", "video", "Client.generate", "Client.start"),
    *_both("1.10", "video", "Client.extend", "Client.extend_start"),
)
