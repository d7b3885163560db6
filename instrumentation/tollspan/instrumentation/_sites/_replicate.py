"""replicate."""

from tollspan.instrumentation._sites._site import CallSite

REPLICATE: tuple[CallSite, ...] = ()
