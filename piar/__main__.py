"""`python -m piar`: the same as `piar`."""

import sys
from pathlib import Path

# Python puts the current folder first; a `store/` or `trainers/` there must not shadow ours.
home = Path(__file__).resolve().parent.parent
if Path(sys.path[0] or ".").resolve() == Path.cwd() != home:
    del sys.path[0]

from piar.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
