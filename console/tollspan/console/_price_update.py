"""`tollspan prices update`: a newer list of prices, when it is asked for and at no other time.

The list is a package, genai-prices, so that each row of the ledger can name the version that it was priced by.
"""

import importlib
import importlib.util
import shlex
import subprocess
import sys
from importlib.metadata import requires, version

import click

from ._render import print_json

_PACKAGE = "genai-prices"
_LONGEST_S = 300


class UpdateError(click.ClickException):
    """The list could not be renewed; the text says why, and what to do."""

    exit_code = 2


def update(*, as_json: bool) -> None:
    """Have pip install the newest version of the package that has the prices, and say what that came to."""
    before = version(_PACKAGE)
    command = [sys.executable, "-m", "pip", "install", "--upgrade", "--disable-pip-version-check", _requirement()]
    if importlib.util.find_spec("pip") is None:
        raise UpdateError(
            f"{_PACKAGE} {before} stays, because this environment has no pip; renew it as the environment was made, "
            f"like: uv pip install --upgrade {shlex.quote(_requirement())}"
        )
    click.echo(f"running {shlex.join(command)}", err=True)
    _run(command, before)
    importlib.invalidate_caches()
    after = version(_PACKAGE)
    if as_json:
        print_json({"package": _PACKAGE, "before": before, "after": after, "changed": before != after})
    elif before == after:
        click.echo(f"{_PACKAGE} {after} is the newest version that there is; nothing was changed")
    else:
        click.echo(f"{_PACKAGE} {before} is replaced by {after}; processes have its prices from their next start on")


def _requirement() -> str:
    """What tollspan itself asks of the package: no version that it does not know."""
    wanted = (line for line in requires("tollspan") or () if line.startswith(_PACKAGE))
    return next(wanted, _PACKAGE).partition(";")[0].strip()


def _run(command: list[str], before: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UpdateError(f"{_PACKAGE} {before} stays, because pip did not do its work: {error}") from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = said[-1] if said else (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UpdateError(
            f"{_PACKAGE} {before} stays, because pip could not install a newer one: {why}. Is the package index in "
            f"reach? To see more, run: {shlex.join(command)}"
        )
