"""Students, mining, teachers, searches, drafts of rows and audits on real data; figures go to `results/` beside this.

    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real students [--arms encoder] [--sets chorus] …
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real mining
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real neighbours
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real synth
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real audits [--models instruct05] …
    PIAR_REAL_MODELS=DIR OMP_NUM_THREADS=1 python -m benchmarks.real evolve [--models instruct05] [--arms rules,gepa]

DIR holds plain folders: `encoder`, `base270`, `instruct05`, `instruct15`. Runs go on where they were cut off.
"""

import argparse
import os
from pathlib import Path

from benchmarks.real import audits, evolving, mining, neighbours, students, synth

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("real"), help="work folder")
    kinds = parser.add_subparsers(dest="kind", required=True)
    students.options(kinds.add_parser("students"))
    mining.options(kinds.add_parser("mining"))
    neighbours.options(kinds.add_parser("neighbours"))
    synth.options(kinds.add_parser("synth"))
    audits.options(kinds.add_parser("audits"))
    evolving.options(kinds.add_parser("evolve"))
    asked = parser.parse_args()
    if not os.environ.get("PIAR_REAL_MODELS"):
        raise SystemExit("Set PIAR_REAL_MODELS to the folder that holds the models.")
    runs = {
        "students": students.main,
        "mining": mining.main,
        "neighbours": neighbours.main,
        "synth": synth.main,
        "audits": audits.main,
        "evolve": evolving.main,
    }
    runs[asked.kind](asked, Path(os.environ["PIAR_REAL_MODELS"]), RESULTS)


if __name__ == "__main__":
    main()
