"""What the spans of other instrumentations say about a call to a model: ten dialects, as tables of attribute names.

`read(span)` gives one frozen `Inference` for the span of one call to a model, and None for any other span: of an agent,
a tool, a workflow, a retriever. To add a dialect, add a row to `_tables.py`.
"""

from ._inference import Inference
from ._read import attributes_of, is_inference_start, is_marked, operation_of, read

__all__ = ["Inference", "attributes_of", "is_inference_start", "is_marked", "operation_of", "read"]
