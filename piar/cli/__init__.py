"""The command line: parse, call one public function, show."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 done, 1 failed, 2 usage, 3 regression, 130 interrupted)."""
    from piar.cli.ctrl_c import after_loading

    try:
        with after_loading():
            from piar.cli.app import run

            return run(arguments)
    except KeyboardInterrupt:  # outside a verb, which says by itself what it keeps
        print("\nInterrupted.", file=sys.stderr)
        return 130
