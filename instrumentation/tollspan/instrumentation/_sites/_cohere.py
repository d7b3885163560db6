"""cohere, with its clients of versions 1 and 2."""

from tollspan.instrumentation._sites._site import CallSite

COHERE: tuple[CallSite, ...] = ()
