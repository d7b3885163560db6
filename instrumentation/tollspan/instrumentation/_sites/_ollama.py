"""ollama."""

from tollspan.instrumentation._sites._site import CallSite

OLLAMA: tuple[CallSite, ...] = ()
