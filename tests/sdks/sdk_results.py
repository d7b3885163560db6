"""A plugin of pytest: what the cases of each call site came to, with the versions of the SDKs, as a file of JSON.

    PYTHONPATH=tests/sdks python -m pytest -p sdk_results tests/sdks --sdk-results FILE

`docs/generate_sdk_table.py` makes the reference of SDKs from two such files.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tollspan.console._sdks import wires_of
from tollspan.instrumentation import CALL_SITES, sdk_version
from tollspan.instrumentation._wires import WIRES


def pytest_addoption(parser):
    """See pytest."""
    parser.addoption("--sdk-results", metavar="FILE", help="write what the cases of each call site came to, as JSON")


def pytest_configure(config):
    """See pytest."""
    if path := config.getoption("--sdk-results"):
        config.pluginmanager.register(_Results(Path(path).absolute()))


class _Results:
    def __init__(self, path):
        self._path = path
        self._outcomes = defaultdict(dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        """Note the outcome of a test that takes a case; a failure in any of its phases is one."""
        report = yield
        case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
        if case is not None and (report.when == "call" or not report.passed):
            known = self._outcomes[case.site].get(item.nodeid)
            self._outcomes[case.site][item.nodeid] = "failed" if "failed" in (known, report.outcome) else report.outcome
        return report

    def pytest_sessionfinish(self):
        """Write what was noted."""
        libraries = {wire.module.partition(".")[0] for wire in WIRES}
        driven = {site.sdk for site in CALL_SITES if f"{site.module}:{site.name}" in self._outcomes}
        tested = {sdk for sdk in driven if sdk_version(sdk)}  # botocore is there without boto3, too
        results = {
            "sdks": {sdk: {"version": sdk_version(sdk), "wires": wires_of(sdk, libraries)} for sdk in sorted(tested)},
            "sites": {site: dict(Counter(found.values())) for site, found in sorted(self._outcomes.items())},
        }
        self._path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
