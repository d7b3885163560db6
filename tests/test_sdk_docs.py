"""The reference of SDKs is made from the table of call sites, and says what the tests of each row came to."""

import importlib.util
import json
from pathlib import Path

import pytest

from tollspan.instrumentation import CALL_SITES, GAPS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made():
    """The script that makes the page."""
    spec = importlib.util.spec_from_file_location("generate_sdk_table", ROOT / "docs/generate_sdk_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_table(made):
    """docs/reference/sdks.md is what `python docs/generate_sdk_table.py` makes now."""
    assert made.PAGE.read_text(encoding="utf-8") == made.page(CALL_SITES, made.known_results())


def test_every_row_and_its_tests_are_on_the_page(made):
    """Each row has its place, the version from which it is there, and what its tests came to with both versions."""
    site = CALL_SITES[0]
    name = f"{site.module}:{site.name}"
    run = {"sdks": {site.sdk: {"version": "1.2.3", "wires": ["httpx"]}}, "sites": {name: {"passed": 8, "skipped": 2}}}
    failed = run | {"sites": {name: {"passed": 7, "failed": 1}}}
    results = made.merged(made.merged({}, "oldest", [failed]), "newest", [run])
    page = made.page(CALL_SITES, results)
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{site.module}` `{site.name}` |")]
    assert row.endswith(f"| {site.since} | 7 of 8 | 8 of 8 |")
    (overview,) = [line for line in page.splitlines() if line.startswith(f"| [`{site.sdk}`]")]
    assert overview.endswith("| httpx | 1.2.3 | 1.2.3 |")
    assert page.count("not run") > len(CALL_SITES)
    for other in CALL_SITES:
        assert f"`{other.module}` `{other.name}`" in page


def test_what_is_not_covered_is_on_the_page_with_its_reason(made):
    """Each gap is a row; what the table covers by the same name is none."""
    page = made.page(CALL_SITES, {})
    covered = {(site.sdk, site.name.partition(".")[0]) for site in CALL_SITES}
    assert len(set(GAPS)) == len(GAPS) > 0
    for gap in GAPS:
        assert f"| `{gap.sdk}` | {gap.surface} | {gap.extent} | {gap.reason} |" in page
        assert gap.reason.endswith(".")
        named = {(gap.sdk, word) for word in gap.surface.replace(",", " ").split()}
        assert gap.extent != "not seen" or named.isdisjoint(covered)


def test_a_new_run_takes_the_place_of_the_old_one(made):
    """The runs of several environments are one result, and what was known of the other age stays."""
    first, second = ({"sdks": {sdk: {"version": "1"}}, "sites": {sdk: {"passed": 1}}} for sdk in ("a", "b"))
    known = made.merged({"newest": first, "oldest": first}, "oldest", [first, second])
    assert known["newest"] == first
    assert known["oldest"]["sdks"].keys() == {"a", "b"}
    assert json.loads(json.dumps(known)) == known


def test_the_oldest_version_of_a_table_goes_by_number(made):
    """Versions are compared by their numbers, and not by their letters."""
    rows = [CALL_SITES[0].__class__("x", since, "m", "n", "sends") for since in ("0.10", "0.9", "1.0")]
    assert made.oldest(rows) == "0.9"


def test_every_sdk_is_tested_with_an_old_version():
    """The list of the oldest versions names each SDK of the table once."""
    lines = (ROOT / ".ci/oldest-sdks.txt").read_text(encoding="utf-8").splitlines()
    named = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    assert sorted(named) == sorted({site.sdk for site in CALL_SITES})
