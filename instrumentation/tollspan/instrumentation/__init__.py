"""Instrumentation of the LLM SDKs: `instrument()` and `uninstrument()`; zero-code mode calls the same."""

from typing import TYPE_CHECKING

from tollspan.ledger import lazy_face

if TYPE_CHECKING:
    from ._instrument import instrument, pre_instrument, uninstrument
    from ._instrumentor import TollspanInstrumentor
    from ._patching import INSTALLATION, sdk_version
    from ._sites import CALL_SITES, GAPS, CallSite, Gap
    from ._wires import uncovered
else:
    __getattr__, __dir__ = lazy_face(
        __name__,
        {
            "_instrument": "instrument pre_instrument uninstrument",
            "_instrumentor": "TollspanInstrumentor",
            "_patching": "INSTALLATION sdk_version",
            "_sites": "CALL_SITES GAPS CallSite Gap",
            "_wires": "uncovered",
        },
    )

__all__ = [
    "CALL_SITES",
    "GAPS",
    "INSTALLATION",
    "CallSite",
    "Gap",
    "TollspanInstrumentor",
    "instrument",
    "pre_instrument",
    "sdk_version",
    "uncovered",
    "uninstrument",
]
