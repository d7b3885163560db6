"""The table of SDK call sites: one small module for each SDK. To cover another method, add a row there.

A row only opens and closes a call around the SDK's method. What was sent and answered is seen on the wire.
"""

from tollspan.instrumentation._sites._anthropic import ANTHROPIC
from tollspan.instrumentation._sites._bedrock import BEDROCK
from tollspan.instrumentation._sites._cohere import COHERE
from tollspan.instrumentation._sites._dashscope import DASHSCOPE
from tollspan.instrumentation._sites._gaps import GAPS, Gap
from tollspan.instrumentation._sites._google import GOOGLE
from tollspan.instrumentation._sites._groq import GROQ
from tollspan.instrumentation._sites._huggingface import HUGGINGFACE
from tollspan.instrumentation._sites._litellm import LITELLM
from tollspan.instrumentation._sites._mistral import MISTRAL
from tollspan.instrumentation._sites._ollama import OLLAMA
from tollspan.instrumentation._sites._openai import OPENAI
from tollspan.instrumentation._sites._replicate import REPLICATE
from tollspan.instrumentation._sites._site import KEYWORDS, CallSite, Form, Keywords, Kind, Task
from tollspan.instrumentation._sites._together import TOGETHER
from tollspan.instrumentation._sites._voyage import VOYAGE
from tollspan.instrumentation._sites._watsonx import WATSONX
from tollspan.instrumentation._sites._writer import WRITER
from tollspan.instrumentation._sites._xai import XAI

__all__ = ["CALL_SITES", "GAPS", "KEYWORDS", "CallSite", "Form", "Gap", "Keywords", "Kind", "Task"]

CALL_SITES: tuple[CallSite, ...] = (
    *OPENAI,
    *ANTHROPIC,
    *GOOGLE,
    *BEDROCK,
    *DASHSCOPE,
    *MISTRAL,
    *COHERE,
    *GROQ,
    *OLLAMA,
    *TOGETHER,
    *LITELLM,
    *HUGGINGFACE,
    *VOYAGE,
    *REPLICATE,
    *WRITER,
    *WATSONX,
    *XAI,
)
