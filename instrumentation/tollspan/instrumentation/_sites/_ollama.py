"""ollama. Its streams send their request when their first item is asked for."""

from tollspan.instrumentation._readers._ollama import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_GENERATE
from tollspan.instrumentation._sites._site import CallSite, Kind

_CLIENTS: tuple[tuple[str, Kind], ...] = (("Client", "sends"), ("AsyncClient", "async sends"))
_METHODS = (
    ("0.1", "chat", OLLAMA_CHAT),
    ("0.1", "generate", OLLAMA_GENERATE),
    ("0.1", "embeddings", OLLAMA_EMBED),
    ("0.3", "embed", OLLAMA_EMBED),
)

OLLAMA: tuple[CallSite, ...] = tuple(
    CallSite("ollama", since, "ollama._client", f"{client}.{method}", kind, reader, vendor="ollama")
    for client, kind in _CLIENTS
    for since, method, reader in _METHODS
)
