"""Amazon Bedrock: Converse, and InvokeModel of every model family."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

BEDROCK: tuple[Reader, ...] = ()
BEDROCK_FETCHES: tuple[Fetch, ...] = ()
