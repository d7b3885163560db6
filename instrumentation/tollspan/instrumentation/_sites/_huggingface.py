"""huggingface_hub's InferenceClient."""

from tollspan.instrumentation._sites._site import CallSite

HUGGINGFACE: tuple[CallSite, ...] = ()
