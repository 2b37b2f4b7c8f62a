"""What the students of a scale know after SFT, by rate and steps, on a world or split that no claim uses.

    OMP_NUM_THREADS=1 python -m benchmarks.claims.reach --student DIR [--on SET] [--rates R …] [--steps N …] [-o DIR]

A student no better than the majority grade, printed beside it, decides no claim about accuracy. Finished runs are not
run again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.claims.lab import Lab
from benchmarks.claims.rate import SEED
from benchmarks.claims.scales import SCALES
from benchmarks.real.sets import SETS


def main(arguments: list[str] | None = None) -> None:
    """Print the majority's accuracy, then each student's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("claims"))
    parser.add_argument("--scale", choices=SCALES, default="pretrained")
    parser.add_argument("--student", type=Path, metavar="DIR", required=True, help="a causal language model's folder")
    parser.add_argument("--on", choices=("shop", *SETS), default="shop")
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-4, 1e-3])
    parser.add_argument("--steps", nargs="+", type=int, default=[16])
    asked = parser.parse_args(arguments)
    scale = SCALES[asked.scale].of(str(asked.student), asked.on)
    for steps in asked.steps:
        for rate in asked.rates:
            chosen = replace(scale, rate=rate, sft=steps)
            lab = Lab(asked.out / f"reach-{scale.name}" / f"{rate:g}-{steps}", chosen, SEED)
            majority = float(np.bincount(lab.gold(lab.held)).max() / len(lab.held))
            told = {"rate": rate, "steps": steps, "majority": majority, **lab.graded(lab.base()).figures}
            print(json.dumps({name: round(value, 4) for name, value in told.items()}), flush=True)


if __name__ == "__main__":
    main()
