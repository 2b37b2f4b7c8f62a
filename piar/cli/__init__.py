"""The command line: parse, call one public function, show."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 done, 1 failed, 2 usage, 3 regression, 130 interrupted)."""
    from piar.cli.app import run

    return run(arguments)
