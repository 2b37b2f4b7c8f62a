"""Students, mining, teachers, searches, drafts of rows, audits and latency on real data; figures go to `results/`.

    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real students [--arms encoder] [--sets chorus] …
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real mining
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real picked
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real neighbours
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real synth
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real audits [--models instruct05] …
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=2 python -m benchmarks.real latency
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real evolve [--models instruct05] [--arms rules,gepa]
    PIAR_REAL_MODELS=DIR python -m benchmarks.real whole          # for a machine with a GPU: ten minutes

DIR holds plain folders: `encoder`, `base270`, `instruct05`, `instruct15`. Runs go on where they were cut off.
"""

import argparse
import os
from pathlib import Path

from benchmarks.real import audits, evolving, latency, mining, neighbours, picked, students, synth, whole

RESULTS = Path(__file__).parent / "results"
KINDS = {
    "students": students,
    "mining": mining,
    "picked": picked,
    "neighbours": neighbours,
    "synth": synth,
    "audits": audits,
    "latency": latency,
    "evolve": evolving,
    "whole": whole,
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("real"), help="work folder")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, module in KINDS.items():
        module.options(kinds.add_parser(name))
    asked = parser.parse_args()
    if not os.environ.get("PIAR_REAL_MODELS"):
        raise SystemExit("Set PIAR_REAL_MODELS to the folder that holds the models.")
    KINDS[asked.kind].main(asked, Path(os.environ["PIAR_REAL_MODELS"]), RESULTS)


if __name__ == "__main__":
    main()
