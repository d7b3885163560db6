"""`tollspan prices update`: a newer list of prices, when it is asked for and at no other time.

The list is a package, genai-prices, so that each row of the ledger can name the version that it was priced by.
"""

import importlib
import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import requires, version

import click

from ._render import print_json

_PACKAGE = "genai-prices"
_LONGEST_S = 300
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "install")
# pip takes an index that it cannot reach for an empty one, and is then content with what is installed.
_ASK = ("--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-")


class UpdateError(click.ClickException):
    """The list could not be renewed; the text says why, and what to do."""

    exit_code = 2


def update(*, as_json: bool) -> None:
    """Have pip install the newest version of the package that has the prices, and say what that came to."""
    before, wanted = version(_PACKAGE), _requirement()
    if importlib.util.find_spec("pip") is None:
        raise UpdateError(
            f"{_PACKAGE} {before} stays, because this environment has no pip; renew it as the environment was made, "
            f"like: uv pip install --upgrade {shlex.quote(wanted)}"
        )
    newest = str(json.loads(_pip(*_ASK, wanted, before=before))["install"][0]["metadata"]["version"])
    if newest != before:
        _pip("--upgrade", wanted, before=before)
        importlib.invalidate_caches()
    after = version(_PACKAGE)
    if as_json:
        print_json({"package": _PACKAGE, "before": before, "after": after, "changed": before != after})
    elif before != after:
        click.echo(f"{_PACKAGE} {before} is replaced by {after}; processes have its prices from their next start on")
    else:
        click.echo(f"{_PACKAGE} {before} stays: the package index has no newer version, its latest is {newest}")


def _requirement() -> str:
    """What tollspan itself asks of the package: no version that it does not know."""
    wanted = (line for line in requires("tollspan") or () if line.startswith(_PACKAGE))
    return next(wanted, _PACKAGE).partition(";")[0].strip()


def _pip(*words: str, before: str) -> str:
    """What pip prints. Raises UpdateError where it fails."""
    command = [*_PIP, *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UpdateError(f"{_PACKAGE} {before} stays, because pip did not do its work: {error}") from error
    if done.returncode:
        by_hand = shlex.join([sys.executable, "-m", "pip", "install", "--upgrade", words[-1]])
        raise UpdateError(
            f"{_PACKAGE} {before} stays, because pip could not get a newer one: {_why(done.stderr.splitlines())}. Is "
            f"the package index in reach? By hand it is: {by_hand}"
        )
    return done.stdout


def _why(said: Sequence[str]) -> str:
    errors = [line.removeprefix("ERROR:").strip() for line in said if line.startswith("ERROR")]
    return errors[-1] if errors else next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
