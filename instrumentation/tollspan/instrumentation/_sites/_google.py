"""Google's google-genai."""

from tollspan.instrumentation._sites._site import CallSite

GOOGLE: tuple[CallSite, ...] = ()
