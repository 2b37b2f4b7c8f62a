"""Runs experiments arm by arm, keeps every row, and stops in time."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims.lab import Found, Lab
from benchmarks.claims.scales import Scale
from benchmarks.claims.verdict import Contrast
from store.stats import group_codes, group_sums

Row = dict[str, Any]
Arm = Callable[[Lab], Found]


@dataclass(frozen=True)
class Claim:
    """An experiment, written down before it is run.

    Attributes:
        hypothesis: what would be true if the claim holds; measure: the score of a row that decides.
        arms: name -> what trains and measures it; `extra` are those that only larger scales run, `reasoned` those that
            need the shop's rules and reasons.
        contrasts: the first decides the claim, the others are told beside it.
    """

    number: int
    title: str
    hypothesis: str
    measure: str
    arms: Mapping[str, Arm]
    contrasts: tuple[Contrast, ...]
    extra: tuple[str, ...] = ()
    reasoned: tuple[str, ...] = ()

    def runs(self, scale: Scale) -> list[str]:
        """Arms of a scale, in order."""
        left_out = {*(() if scale.variants else self.extra), *(() if scale.on == "shop" else self.reasoned)}
        return [name for name in self.arms if name not in left_out]


@dataclass(frozen=True)
class Record:
    """The rows of a scale, appended one by one to a file."""

    file: Path

    def rows(self) -> list[Row]:
        """All whole rows so far."""
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text().splitlines() if line.endswith("}")]

    def add(self, row: Row) -> None:
        """Keep a row."""
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")


def run(
    claims: Sequence[Claim], seeds: Sequence[int], scale: Scale, out: Path, minutes: float = float("inf")
) -> Iterator[Row]:
    """Run what is missing, claim by claim, seed by seed; start no arm after `minutes`."""
    record, began = Record(out / f"rows-{scale.name}.jsonl"), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    known = {(row["claim"], row["seed"], row["arm"]) for row in record.rows()}
    labs = {seed: Lab(out / scale.name / f"seed-{seed}", scale, seed) for seed in seeds}
    for claim in claims:
        for seed in seeds:
            for arm in claim.runs(scale):
                if (claim.number, seed, arm) in known:
                    continue
                if time.monotonic() - began > 60 * minutes:
                    return
                row = {"claim": claim.number, "seed": seed, "arm": arm, **summed(claim.arms[arm](labs[seed]))}
                record.add(row)
                yield row


def summed(found: Found) -> Row:
    """An arm's row: its scores summed by group, in the order of the groups' names, and its figures."""
    codes, n_groups = group_codes(found.groups)
    sums = group_sums(np.stack([np.array(found.scores), np.ones(len(found.scores))], axis=1), codes, n_groups)
    told = {name: value for name, value in asdict(found).items() if name in ("figures", "curve")}
    return {"score": float(np.mean(found.scores)), "sums": sums[:, 0].tolist(), "sizes": sums[:, 1].tolist(), **told}
