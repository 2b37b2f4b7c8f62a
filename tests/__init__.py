"""Tests stand in folders as the packages do; what several rooms need stands beside this file."""

from pathlib import Path

ROOT = Path(__file__).parent.parent  # of the repository
