"""voyageai: by requests, from tasks by aiohttp, each call in a session or connection of its own."""

from collections.abc import Iterator

from tollspan.instrumentation._readers import Reader
from tollspan.instrumentation._readers._voyage import VOYAGE_EMBEDDINGS, VOYAGE_MORE_EMBEDDINGS, VOYAGE_RERANK
from tollspan.instrumentation._sites._site import CallSite


def _both(since: str, method: str, reader: Reader) -> Iterator[CallSite]:
    client, aclient = "voyageai.client", "voyageai.client_async"
    yield CallSite("voyageai", since, client, f"Client.{method}", "sends", reader, vendor="voyageai")
    yield CallSite("voyageai", since, aclient, f"AsyncClient.{method}", "async sends", reader, vendor="voyageai")


VOYAGE: tuple[CallSite, ...] = (
    *_both("0.2", "embed", VOYAGE_EMBEDDINGS),
    *_both("0.2", "rerank", VOYAGE_RERANK),
    *_both("0.3", "multimodal_embed", VOYAGE_MORE_EMBEDDINGS),
    *_both("0.3", "contextualized_embed", VOYAGE_MORE_EMBEDDINGS),
)
