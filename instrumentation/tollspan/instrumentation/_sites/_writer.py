"""Writer's writer-sdk."""

from tollspan.instrumentation._sites._site import CallSite

WRITER: tuple[CallSite, ...] = ()
