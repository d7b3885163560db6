"""What the spans of other instrumentations say about a call to a model: ten dialects, as tables of attribute names.

`read(span)` gives one frozen `Inference` for the span of one call to a model, and None for any other span: of an agent,
a tool, a workflow, a retriever. To add a dialect, add a row to `_tables.py`.
Neither the tables nor what reads by them are loaded before the first span that may be of a call.
"""

from typing import TYPE_CHECKING

from tollspan.ledger import lazy_face

from ._marks import attributes_of, is_inference_start, is_marked

if TYPE_CHECKING:
    from ._inference import Inference
    from ._read import operation_of, read
else:
    __getattr__, __dir__ = lazy_face(__name__, {"_inference": "Inference", "_read": "operation_of read"})

__all__ = ["Inference", "attributes_of", "is_inference_start", "is_marked", "operation_of", "read"]
