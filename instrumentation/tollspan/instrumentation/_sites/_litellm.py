"""litellm, as far as it sends by HTTP clients of its own."""

from tollspan.instrumentation._sites._site import CallSite

LITELLM: tuple[CallSite, ...] = ()
