"""The paper's claims on the *simulated* shop, or with a pretrained student on it or people's grades; resumable.

    OMP_NUM_THREADS=1 python -m benchmarks.claims [CLAIM …] [-o DIR] [--scale small] [--seeds 0 1 2] [--minutes N]
    OMP_NUM_THREADS=1 python -m benchmarks.claims 9 --student DIR/base270 --on semeval

Each claim's file says, written before it was run, its hypothesis, arms, measure and what decides; `verdict.py` is the
rule. Every arm's row is appended to DIR/rows-SCALE.jsonl; what is there is not run again, and a run that was cut short
is resumed. Two processes may share DIR when they have different seeds. At the end DIR/claims-SCALE.md and one figure a
claim. Scales: `small` takes some minutes a claim and seed, `later` two to three times that (its student is taught for
longer), `full` a few hours in all on two cores (a process a seed), `gpu` trains the shape of a 0.6B model. With
`--student` all students start from that folder, by adapters (scale `pretrained`, some minutes an arm); `--on` a set of
`benchmarks.real.sets` has people's grades and no reasons, so that arms which need some are left out there.
"""

import argparse
import json
from pathlib import Path

from benchmarks.claims import (
    c1_answer_first,
    c2_balance,
    c3_credit,
    c4_order,
    c5_distill,
    c6_grade_only,
    c7_piar,
    c8_mining,
    c9_proper_reward,
)
from benchmarks.claims.harness import Record, run
from benchmarks.claims.scales import SCALES
from benchmarks.claims.table import figure, table
from benchmarks.real.sets import SETS

MODULES = (
    c1_answer_first,
    c2_balance,
    c3_credit,
    c4_order,
    c5_distill,
    c6_grade_only,
    c7_piar,
    c8_mining,
    c9_proper_reward,
)
CLAIMS = {module.CLAIM.number: module.CLAIM for module in MODULES}


def main(arguments: list[str] | None = None) -> None:
    """Run, then write the table and the figures of all rows so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", type=int, default=[], metavar="CLAIM", help="1 to 9; all when none")
    parser.add_argument("-o", "--out", type=Path, default=Path("claims"))
    parser.add_argument("--scale", choices=SCALES, help="small; pretrained with --student")
    parser.add_argument("--student", type=Path, metavar="DIR", help="a causal language model's folder to start from")
    parser.add_argument("--on", choices=("shop", *SETS), default="shop", help="what is learnt; others need --student")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no arm after so many")
    asked = parser.parse_args(arguments)
    if not set(asked.claims) <= set(CLAIMS):
        parser.error(f"claims are numbered {min(CLAIMS)} to {max(CLAIMS)}")
    scale = SCALES[asked.scale or ("pretrained" if asked.student else "small")]
    if asked.student:
        scale = scale.of(str(asked.student), asked.on)
    elif asked.on != "shop":
        parser.error("a student from nothing learns nothing from a few hundred real rows: pass --student")
    arms = sum(len(CLAIMS[n].runs(scale)) for n in asked.claims or CLAIMS) * len(asked.seeds)
    print(f"At most {arms} arms, each {scale.sft} to {scale.sft + scale.rl} steps of {scale.batch} rows", flush=True)
    for row in run([CLAIMS[n] for n in asked.claims or CLAIMS], asked.seeds, scale, asked.out, asked.minutes):
        told = {"claim": row["claim"], "seed": row["seed"], "arm": row["arm"], "score": round(row["score"], 4)}
        print(json.dumps({**told, **{name: round(value, 4) for name, value in row["figures"].items()}}), flush=True)
    rows = Record(asked.out / f"rows-{scale.name}.jsonl").rows()
    text = table(list(CLAIMS.values()), rows, scale)
    (asked.out / f"claims-{scale.name}.md").write_text(text, encoding="utf-8")
    for claim in CLAIMS.values():
        note = " (simulated)" if scale.on == "shop" else f" ({scale.on})"
        drawn = figure(claim, [row for row in rows if row["claim"] == claim.number], note)
        if drawn:
            (asked.out / f"claim-{claim.number}-{scale.name}.svg").write_text(drawn, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
