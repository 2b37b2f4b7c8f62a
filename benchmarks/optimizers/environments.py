"""An environment of its own for each peer, with piar beside it, made once under `.envs/`.

`PIAR_GEPA_PYTHON` and `PIAR_DSPY_PYTHON` name the Pythons of environments that are there already.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVS = ROOT / ".envs"
PACKAGES = {"gepa": "gepa==0.1.4", "dspy": "dspy[optuna]==3.4.1"}


def peer_python(name: str) -> str:
    """The Python of an environment with this peer, made now if it is not there (a minute)."""
    if named := os.environ.get(f"PIAR_{name.upper()}_PYTHON"):
        return named
    folder = ENVS / name
    python, done = folder / "bin" / "python", folder / ".done-with-piar"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PACKAGES[name], "-e", str(ROOT)], check=True)
        done.touch()
    return str(python)
