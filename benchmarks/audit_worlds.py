"""Whether `piar audit` finds a planted bias, and leaves judges without one alone: simulated judges, nothing is asked.

Run: `python -m benchmarks.audit_worlds [JUDGES]` (100; about a minute). Each judge has its own rows (groups of one to
eight), grades and noise, which sits in a fifth of its rows. A biased one moves its grade by one under one probe: on a
tenth of the rows, more often in some groups than in others. Rows are planned beforehand, as the verb plans them.
"""

import sys
from collections.abc import Sequence

import numpy as np

from piar.measure.audit import Audit, audit
from piar.measure.audit_plan import NOISE, in_drawing_order, plan, rows_for, tests_of
from piar.measure.audited_judges import Grades, Parts
from piar.measure.probes import PROBES, Question
from store.judges import Judge
from store.task import Grade, Task
from store.types import Example, Instruction, Sample

BIAS = 0.10  # of the rows
NOISES = (0.0, 0.02, 0.05, 0.15)  # share of answers that change when asked twice
BORDERLINE = 0.2  # of the rows carry the noise
EFFECTS = [probe.name for probe in PROBES.values() if probe.expects == "same"]
SEED = Instruction("Judge it.", examples=(Example({"query": "a", "title": "b"}, "0"), Example({"query": "c"}, "1")))


class SimulatedJudge:
    """A judge of given noise and bias.

    Args:
        biased: the probe under which it is biased; None for a clean one.
    """

    judge = Judge("simulated")

    def __init__(self, samples: Sequence[Sample], task: Task, noise: float, biased: str | None, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.symbols, self.biased = task.symbols, biased
        self.first = {s.id: int(self.draw.integers(len(self.symbols))) for s in samples}
        self.slips = {s.id: noise / 2 / BORDERLINE * (self.draw.random() < BORDERLINE) for s in samples}
        self.pull = {group: self.draw.beta(BIAS * 9, (1 - BIAS) * 9) for group in {s.group for s in samples}}

    def shown(self, questions: Sequence[Question]) -> list[tuple[object, ...]]:
        """Everything counts."""
        return [(*q.sample.fields.items(), q.task.symbols, q.instruction.id) for q in questions]

    def grades(self, parts: Parts) -> dict[str, Grades]:
        """Its grade of each, with its noise, and its bias where this is the probe."""
        return {
            kind: [self._grade(q.sample, biased=kind == self.biased) for q in asked] for kind, asked in parts.items()
        }

    def _grade(self, sample: Sample, *, biased: bool) -> str:
        grade, top = self.first[sample.id], len(self.symbols) - 1
        if self.draw.random() < self.slips[sample.id]:
            grade = (grade + int(self.draw.integers(1, top + 1))) % (top + 1)
        if biased and self.draw.random() < self.pull[sample.group]:
            grade += 1 if grade < top else -1
        return self.symbols[grade]


def world(seed: int, noise: float, biased: str | None) -> Audit:
    """One judge, audited."""
    draw = np.random.default_rng(seed)
    grades = tuple(Grade(symbol=str(value), value=value) for value in range(int(draw.integers(2, 6))))
    task = Task(name="simulated", group_by="query", fields=("query", "title"), grades=grades)
    sizes = draw.integers(1, 9, 600)
    samples = [
        Sample(f"{seed}-{group}-{row}", f"g{group}", {"query": f"query {group}", "title": f"a title with {row} words."})
        for group, size in enumerate(sizes)
        for row in range(size)
    ]
    probes, drawn = tuple(PROBES.values()), in_drawing_order(samples)
    tests, expected = tests_of(probes, task), max(NOISE, noise)
    drawn = drawn[: rows_for(drawn, expected, tests, BIAS)]
    judge = SimulatedJudge(drawn, task, noise, biased, seed)
    questions = [Question(sample, task, SEED) for sample in drawn]
    return audit(judge, questions, probes, plan(drawn, expected, tests, BIAS), control=False, seed=seed)


def main(judges: int) -> None:
    """A line for each noise: clean judges with something found, biased ones with their probe found."""
    print("noise | rows | clean judges with anything found | biased judges, probe found | and another probe")
    totals = np.zeros(4, dtype=int)
    for noise in NOISES:
        clean = [world(seed, noise, None) for seed in range(0, judges, len(NOISES))]
        biased = [(EFFECTS[seed % len(EFFECTS)], seed) for seed in range(1, judges, len(NOISES))]
        found = [(name, {p.name for p in world(10_000 + seed, noise, name).found}) for name, seed in biased]
        counts = [
            sum(bool(one.found) for one in clean),
            sum(name in names for name, names in found),
            sum(bool(names - {name}) for name, names in found),
        ]
        totals += [*counts, len(found)]
        rows = np.mean([one.plan.rows for one in clean])
        print(f"{noise:.2f} | {rows:.0f} | {counts[0]} of {len(clean)} | {counts[1]} of {len(found)} | {counts[2]}")
    print(f"all | | {totals[0]} of {judges} | {totals[1]} of {totals[3]} | {totals[2]}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 100)
