"""IBM watsonx.ai."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

WATSONX: tuple[Reader, ...] = ()
WATSONX_FETCHES: tuple[Fetch, ...] = ()
