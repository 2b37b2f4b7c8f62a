"""Real data for tests: the folder `../shared/data` beside the repository."""

from pathlib import Path

from tests import ROOT

FOLDER = ROOT.parent / "shared" / "data"


def shared(path: str) -> Path:
    """A file of the shared data folder; fails the test with a clear message when it is not there."""
    found = FOLDER / path
    if not found.exists():
        raise AssertionError(f"This test needs real data at {found}, which is not there.")
    return found
