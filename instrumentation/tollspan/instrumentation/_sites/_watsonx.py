"""IBM's ibm-watsonx-ai: what it sends for a token, or to know a model, is no call."""

from tollspan.instrumentation._readers import Reader
from tollspan.instrumentation._readers._watsonx import WATSONX_EMBEDDINGS, WATSONX_RERANK
from tollspan.instrumentation._sites._site import CallSite, Kind

_FOUND = "ibm_watsonx_ai.foundation_models"
_MODEL = f"{_FOUND}.inference.model_inference"


def _row(module: str, name: str, kind: Kind = "sends", reader: Reader | None = None, since: str = "1.1") -> CallSite:
    return CallSite("ibm-watsonx-ai", since, module, name, kind, reader, vendor="ibm.watsonx.ai")


WATSONX: tuple[CallSite, ...] = (
    *(_row(_MODEL, f"ModelInference.{name}") for name in ("generate", "generate_text", "generate_text_stream")),
    *(_row(_MODEL, f"ModelInference.{name}", since="1.2") for name in ("chat", "chat_stream")),
    *(
        _row(_MODEL, f"ModelInference.{name}", "async sends", since="1.2")
        for name in ("achat", "achat_stream", "agenerate", "agenerate_stream")
    ),
    _row(f"{_FOUND}.embeddings.embeddings", "Embeddings.generate", reader=WATSONX_EMBEDDINGS),
    _row(f"{_FOUND}.embeddings.embeddings", "Embeddings.agenerate", "async sends", WATSONX_EMBEDDINGS, "1.4"),
    _row(f"{_FOUND}.rerank.rerank", "Rerank.generate", reader=WATSONX_RERANK),
)
