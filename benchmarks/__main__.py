"""`python -m benchmarks [NAME…]`: run all benchmarks, or those named, each as `python -m benchmarks.NAME` would.

`python -m benchmarks.optimizers`, `teachers` and `trainers` need environments of their own and are apart.
"""

import runpy
import sys

NAMES = (
    "store",
    "look",
    "coverage",
    "rankings",
    "teacher",
    "mining",
    "mining_quality",
    "scale",
    "label",
    "null_worlds",
    "gain_worlds",
    "shop_recovery",
    "synth",
    "review",
    "serve",
    "review_queue",
)


def main() -> int:
    """Run what the command line names; 2 for an unknown name."""
    wanted = sys.argv[1:] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"No benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    for name in wanted:
        sys.argv[1:] = []
        print(f"== {name}")
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
