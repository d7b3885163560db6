"""together."""

from tollspan.instrumentation._sites._site import CallSite

TOGETHER: tuple[CallSite, ...] = ()
