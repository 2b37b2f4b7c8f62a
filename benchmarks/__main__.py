"""`python -m benchmarks [NAME…]`: run all benchmarks, or those named."""

import importlib
import sys

NAMES = ("store",)


def main() -> int:
    """Run what the command line names; 2 for an unknown name."""
    wanted = sys.argv[1:] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"No benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    for name in wanted:
        importlib.import_module(f"benchmarks.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
