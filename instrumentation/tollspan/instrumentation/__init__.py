"""Instrumentation of the LLM SDKs: `instrument()` and `uninstrument()`; zero-code mode calls the same."""

from ._instrumentor import TollspanInstrumentor, instrument, pre_instrument, uninstrument
from ._patching import INSTALLATION, sdk_version
from ._sites import CALL_SITES, CallSite
from ._wires import uncovered

__all__ = [
    "CALL_SITES",
    "INSTALLATION",
    "CallSite",
    "TollspanInstrumentor",
    "instrument",
    "pre_instrument",
    "sdk_version",
    "uncovered",
    "uninstrument",
]
