# ruff: noqa: INP001 - a script
"""Make `docs/reference/sdks.md` from the table of call sites, and from what the contract tests came to.

    python docs/generate_sdk_table.py                                     # after a change of the table
    python docs/generate_sdk_table.py --oldest A.json... --newest B.json...  # after a run of the tests

The files are those that `pytest -p sdk_results --sdk-results` writes (see `.ci/sdks`). What they say is kept in
`docs/reference/sdks.json`.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tollspan.instrumentation import CALL_SITES, GAPS, CallSite, Gap
from tollspan.instrumentation._wires import WIRES

_HERE = Path(__file__).resolve().parent / "reference"
PAGE, RESULTS = _HERE / "sdks.md", _HERE / "sdks.json"
_AGES = ("oldest", "newest")
_HEAD = """# SDKs that are covered

Made from the table of call sites by `python docs/generate_sdk_table.py`; do not write here. A call by one of these
methods is admitted by the budgets before it is sent, recorded once, and shown on a span. `tollspan doctor` says what
holds for the versions that are installed. What comes by another way to an endpoint that tollspan knows is recorded all
the same, and counted as uncovered; `TOLLSPAN_REFUSE_UNCOVERED=true` has strict budgets refuse it. What is left out has
[its list](#not-covered-and-why).

"from" is the version from which the method is there. "tests" are those of `tests/sdks` for the method, passed of all,
with the oldest and with the newest version of the SDK: every method, sync and async, streamed or not, against a local
server that speaks the vendor's wire format; "not run" says that nobody has run them with such a version.
"""


def page(sites: Sequence[CallSite], results: Mapping[str, Any]) -> str:
    """The page for a table of call sites and what is known of its tests."""
    parts = [_HEAD, _overview(sites, results)]
    parts += [_section(sdk, [s for s in sites if s.sdk == sdk], results) for sdk in _sdks(sites)]
    return "\n".join([*parts, _wires(), _gaps(GAPS)])


def merged(known: Mapping[str, Any], age: str, files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of the tests, with what these runs say of one age in place of what was known before."""
    fresh: dict[str, Any] = {"sdks": {}, "sites": {}}
    for found in files:
        for part in fresh:
            fresh[part] |= found[part]
    return {**known, age: fresh}


def _sdks(sites: Sequence[CallSite]) -> list[str]:
    return list(dict.fromkeys(site.sdk for site in sites))


def _overview(sites: Sequence[CallSite], results: Mapping[str, Any]) -> str:
    lines = ["| SDK | from | methods | does | by | tested: oldest | newest |", "|---|---|---|---|---|---|---|"]
    for sdk in _sdks(sites):
        own = [site for site in sites if site.sdk == sdk]
        does = ", ".join(sorted({site.reader.operation for site in own if site.reader})) or "what the wire tells"
        tested = [results.get(age, {}).get("sdks", {}).get(sdk, {}) for age in _AGES]
        by = ", ".join(sorted({wire for found in tested for wire in found.get("wires", ())})) or "not known"
        versions = [f"{found.get('version') or 'not run'}" for found in tested]
        count = len({_twin(site) for site in own})
        lines.append(f"| [`{sdk}`](#{sdk}) | {oldest(own)} | {count} | {does} | {by} | {' | '.join(versions)} |")
    return "\n".join(lines) + "\n"


def _twin(site: CallSite) -> tuple[str, str]:
    """A method without what tells its async twin from it."""
    owner, _, method = site.name.rpartition(".")
    plain = owner.replace("Async", "").removesuffix("WithAsync")
    return site.module.replace("async_", "").replace(".aio", ""), f"{plain}.{method.replace('__a', '__')}"


def _section(sdk: str, sites: Sequence[CallSite], results: Mapping[str, Any]) -> str:
    lines = [
        f"## {sdk}",
        "",
        "| method | kind | API flavour | from | tests: oldest | newest |",
        "|---|---|---|---|---|---|",
    ]
    for site in sites:
        flavour = site.reader.name if site.reader else "by its path"
        since = f"{site.since} to {site.until}" if site.until else site.since
        tests = " | ".join(_tests(site, results.get(age, {})) for age in _AGES)
        lines.append(f"| `{site.module}` `{site.name}` | {site.kind} | {flavour} | {since} | {tests} |")
    return "\n".join(lines) + "\n"


def _tests(site: CallSite, found: Mapping[str, Any]) -> str:
    outcomes = found.get("sites", {}).get(f"{site.module}:{site.name}", {})
    ran = sum(outcomes.values()) - outcomes.get("skipped", 0)
    return f"{outcomes.get('passed', 0)} of {ran}" if ran else "not run"


def _wires() -> str:
    head = "Each attempt of a call, and each message of a websocket, is seen where its library sends it:"
    lines = ["## HTTP and websocket libraries", "", head, ""]
    return "\n".join([*lines, *(f"- `{wire.module}.{wire.name}`" for wire in WIRES)]) + "\n"


def _gaps(gaps: Sequence[Gap]) -> str:
    lines = ["## Not covered, and why", "", "| SDK | surface | extent | why |", "|---|---|---|---|"]
    return (
        "\n".join([*lines, *(f"| `{gap.sdk}` | {gap.surface} | {gap.extent} | {gap.reason} |" for gap in gaps)]) + "\n"
    )


def oldest(sites: Iterable[CallSite]) -> str:
    """The oldest version that rows of one SDK name."""
    return min((site.since for site in sites), key=lambda since: tuple(map(int, since.split("."))))


def known_results() -> dict[str, Any]:
    """What the last runs of the tests said."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return found


def main() -> None:
    """Make the page, or print requirements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for age in _AGES:
        parser.add_argument(f"--{age}", nargs="+", type=Path, metavar="FILE")
    given = parser.parse_args()
    results = known_results()
    for age in _AGES:
        if files := getattr(given, age):
            results = merged(results, age, [json.loads(file.read_text(encoding="utf-8")) for file in files])
    PAGE.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(CALL_SITES, results), encoding="utf-8")


if __name__ == "__main__":
    main()
