"""Chooses GRPO's rate in a scale, on a *simulated* world that no claim uses.

    OMP_NUM_THREADS=1 python -m benchmarks.claims.rate [-o DIR] [--scale later]

The rule, fixed before it ran: of `RATES`, the one with which *GRPO alone* (no anchor) grades most held-out rows right.
It is tuned for the arm that claim 2 says loses. Finished runs are not run again.
"""

import argparse
import json
from pathlib import Path

from benchmarks.claims.lab import Lab
from benchmarks.claims.scales import SCALES

RATES = (5e-4, 1e-4)
SEED = 500  # of the world; the claims' worlds are numbered from 0, those of their projects from 1,000


def main(arguments: list[str] | None = None) -> None:
    """Print what each rate reaches, and the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("claims"))
    parser.add_argument("--scale", choices=SCALES, default="later")
    asked = parser.parse_args(arguments)
    scale = SCALES[asked.scale]
    lab = Lab(asked.out / scale.name / f"seed-{SEED}", scale, SEED)
    print(json.dumps({"rate": 0, **lab.graded(lab.base()).figures}), flush=True)
    reached = {}
    for rate in RATES:
        found = lab.graded(lab.grpo(balance="none", learning_rate=rate))
        reached[rate] = found.figures["accuracy"]
        print(json.dumps({"rate": rate, **found.figures}), flush=True)
    print(json.dumps({"chosen": max(RATES, key=reached.__getitem__)}))


if __name__ == "__main__":
    main()
