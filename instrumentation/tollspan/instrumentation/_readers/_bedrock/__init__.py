"""Amazon Bedrock: Converse, and InvokeModel of every model family. Also Claude where other clouds serve it."""

from tollspan.instrumentation._readers._anthropic._messages import ANTHROPIC_ON_VERTEX, VERTEX_COUNTS
from tollspan.instrumentation._readers._bedrock._converse import BEDROCK_CONVERSE
from tollspan.instrumentation._readers._bedrock._invoke import BEDROCK_INVOKE
from tollspan.instrumentation._readers._facts import Fetch, Reader

# In this order: counting tokens on Vertex ends like asking a model there.
BEDROCK: tuple[Reader, ...] = (BEDROCK_CONVERSE, BEDROCK_INVOKE, VERTEX_COUNTS, ANTHROPIC_ON_VERTEX)
BEDROCK_FETCHES: tuple[Fetch, ...] = ()
