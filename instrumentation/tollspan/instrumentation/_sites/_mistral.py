"""mistralai."""

from tollspan.instrumentation._sites._site import CallSite

MISTRAL: tuple[CallSite, ...] = ()
