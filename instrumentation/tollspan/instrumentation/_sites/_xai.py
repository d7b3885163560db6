"""XAI's xai-sdk, which speaks gRPC."""

from tollspan.instrumentation._sites._site import CallSite

XAI: tuple[CallSite, ...] = ()
