"""`tollspan prune`."""

import json
import time
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tollspan.console._cli import cli
from tollspan.ledger import Ledger, LedgerEvent, new_call_id

DAY_S = 86_400


@pytest.fixture
def path(tmp_path):
    """A ledger with a call of $1 on each of the last five days, an hour before the same time."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        for age in range(1, 6):
            at = time.time() - age * DAY_S - 3600
            ledger.append(
                LedgerEvent(
                    event_type="commit", call_id=new_call_id(at).hex(), timestamp=at, cost_actual_usd=Decimal(1)
                )
            )
    return path


def run(*arguments):
    """The result of a command line."""
    return CliRunner().invoke(cli, ["prune", *arguments])


def remaining(path):
    """How many events there are, and whether the balances are right."""
    with Ledger(path) as ledger:
        return len(ledger.tail()), ledger.verify()


def test_old_events_go_and_balances_stay(path):
    """Calls older than --keep are deleted, balances can still be verified, and the text says what was done."""
    result = run("--keep", "3d")
    assert (result.exit_code, remaining(path)) == (0, (2, []))
    assert "3 events of calls that began before" in result.output
    assert "are gone" in result.output
    assert "0 events" in run("--keep", "3d").output


def test_a_dry_run_only_counts(path):
    """--dry-run tells how many would go, and changes nothing."""
    result = run("--keep", "2", "--dry-run", "--json")
    assert json.loads(result.output)["events"] == 4
    assert remaining(path) == (5, [])


@pytest.mark.parametrize("keep", ["0d", "-1d", "1.5d", "soon", "12h"])
def test_what_is_no_number_of_days_is_wrong_use(path, keep):
    """Less than a day, fractions and words end with status 2 and an example."""
    result = run("--keep", keep)
    assert result.exit_code == 2
    assert "write it like 400d" in result.output
    assert remaining(path) == (5, [])
