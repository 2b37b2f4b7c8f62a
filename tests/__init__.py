"""Tests stand in folders as the packages do; what several rooms need stands beside this file."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent  # of the repository
SOAK = bool(os.environ.get("PIAR_SOAK"))  # kills and loads at the size that docs/experiments tells
