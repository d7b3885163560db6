"""IBM's ibm-watsonx-ai."""

from tollspan.instrumentation._sites._site import CallSite

WATSONX: tuple[CallSite, ...] = ()
