"""voyageai."""

from tollspan.instrumentation._sites._site import CallSite

VOYAGE: tuple[CallSite, ...] = ()
