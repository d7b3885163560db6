"""A provider, and families of processes that call it."""

import pytest
from families import Family

from tollspan.console import LocalProvider


@pytest.fixture(scope="module")
def provider():
    """A provider for all families of a module."""
    with LocalProvider() as running:
        yield running


@pytest.fixture
def family(provider, tmp_path):
    """Make a family: `family(mode)`; none outlives the test."""
    families = []

    def make(mode):
        families.append(Family(tmp_path / str(len(families)), provider, mode))
        return families[-1]

    yield make
    for one in families:
        one.kill()
