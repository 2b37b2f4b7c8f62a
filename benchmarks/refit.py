"""Labels that test do not teach. Two ways to let them, on real labels: what do they gain, and what do they promote?

For each of the four real sets and each seed of the splits: `piar evolve` with the offline models (*tested*); where it
proposes, one more draft from train, dev and holdout together, which nobody tests, with as many edits, in proportion to
rows (*refit*); and the procedure "one draft from labels", tested by cross-fitting over all of these groups, and drafted
from all of them (*cross-fitted*). All are judged on the untouched test split. The same in simulated worlds: the arms
"ours, refit after the test" and "cross-fitted draft" of `benchmarks.optimizers`.

Run: `python -m benchmarks.refit [SEEDS] [OUT]`; it resumes where `OUT` ends. At most 4,000 rows a set, in whole groups.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.judging import judge
from benchmarks.real.sets import SETS, rows_of
from benchmarks.worlds import rows_of as resumed
from piar.evolve.promotion import shown
from piar.evolve.revision import read_answer
from piar.evolve.truth import load_truth
from piar.instructions.operations import apply
from piar.instructions.revision_schema import EvidenceItem, GradeShown, RevisionBudget, RevisionRequest, RuleShown
from piar.llm.base import Message, Request
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from store.importers import ImportMapping
from store.journal import Journal
from store.stats import Gain, paired_gain
from store.types import Instruction, Sample, Split, Verdict

ROWS, FOLDS, LEVEL = 4_000, 6, 0.03


def one(number: int) -> dict[str, Any]:
    """One set under one seed; the set is the number modulo four."""
    name, seed = list(SETS)[number % len(SETS)], number // len(SETS)
    real = SETS[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _whole_groups(rows_of(name)[0], real.group, seed).write_csv(folder / "rows.csv")
        fields = {field: field for field in real.fields}
        mapping = ImportMapping(fields=fields, gold="gold", group=real.group, grades=real.grades)
        project = Project.init(folder / "p", from_=folder / "rows.csv", mapping=mapping, seed=seed)
        report = project.evolve()
        told = {"world": number, "set": name, "seed": seed, "ending": report.ending}
        seed_text = project.store.instruction(report.seed_instruction)
        proposal = None if report.proposal is None else project.store.instruction(report.proposal)
        with closing(Journal(folder / "asked")) as journal:
            return told | Trial(project, seed_text, journal).told(proposal)


def _whole_groups(frame: pl.DataFrame, group: str, seed: int) -> pl.DataFrame:
    groups = np.random.default_rng(seed).permutation(np.array(frame[group].unique().sort().to_list(), dtype=object))
    sizes = dict(frame.group_by(group).len().iter_rows())
    kept = groups[np.cumsum([sizes[g] for g in groups]) <= ROWS]
    return frame.filter(pl.col(group).is_in(kept.tolist()))


class Trial:
    """One project's labelled rows, and what drafts from them are worth on its test split."""

    def __init__(self, project: Project, before: Instruction, journal: Journal) -> None:
        self.project, self.before, self.journal = project, before, journal
        self.truths = load_truth(project.store)
        self.train, self.test = self._rows("train"), self._rows("test")
        self.seen = [*self.train, *self._rows("dev"), *self._rows("holdout")]
        self.evidence = dict(zip((s.id for s in self.seen), self._evidence(), strict=True))

    def told(self, proposal: Instruction | None) -> dict[str, Any]:
        """Accuracies on test, and what each way gains there over the seed, or over the proposal for the refit."""
        gain, drafted = self._cross_fitted()
        shares = {"seed": self.before, "cross-fitted": drafted}
        found = {"cross-fitted promotes": shown(gain, LEVEL), "cross-fitted gain": _ends(gain)}
        if proposal is not None:
            edits = sum(self.before.rule(r.id) != r for r in proposal.rules)
            edits += sum(proposal.rule(r.id) is None for r in self.before.rules)
            refit = self._draft(self.seen, ceil(edits * len(self.seen) / len(self.train)))
            shares |= {"tested": proposal, "refit": refit}
            found["refit over tested"] = _ends(self._gain(proposal, refit, self.test))
        return {f"{n} %": round(100 * float(np.mean(self._right(i, self.test))), 1) for n, i in shares.items()} | found

    def _cross_fitted(self) -> tuple[Gain, Instruction]:
        groups = sorted({s.group for s in self.seen})
        fold = {
            g: i % FOLDS for i, g in enumerate(np.random.default_rng(0).permutation(np.array(groups, dtype=object)))
        }
        before, after, held = list[bool](), list[bool](), list[Sample]()
        for k in range(FOLDS):
            rows = [s for s in self.seen if fold[s.group] == k]
            draft = self._draft([s for s in self.seen if fold[s.group] != k])
            before += self._right(self.before, rows)
            after += self._right(draft, rows)
            held += rows
        return paired_gain(before, after, [s.group for s in held]), self._draft(self.seen)

    def _gain(self, before: Instruction, after: Instruction, rows: Sequence[Sample]) -> Gain:
        return paired_gain(self._right(before, rows), self._right(after, rows), [s.group for s in rows])

    def _right(self, instruction: Instruction, rows: Sequence[Sample]) -> list[bool]:
        said = self._said(instruction, rows)
        return [v.grade == self.truths[s.id].grade for s, v in zip(rows, said, strict=True)]

    def _said(self, instruction: Instruction, rows: Sequence[Sample]) -> list[Verdict]:
        found: list[Verdict] = []
        store, client = self.project.store, RulebookClient()
        judge(store, client, instruction, rows, journal=self.journal, on_verdict=found.append)
        return found

    def _evidence(self) -> list[EvidenceItem]:
        return [
            EvidenceItem(
                fields=s.fields, truth=self.truths[s.id].grade, verdict=v.grade, group=s.group,
                rules=v.trace.rules if v.trace else (), kind="right" if self.truths[s.id].grade == v.grade else "error",
            )
            for s, v in zip(self.seen, self._said(self.before, self.seen), strict=True)
        ]  # fmt: skip

    def _draft(self, rows: Sequence[Sample], edits: int = 8) -> Instruction:
        task = self.project.task
        request = RevisionRequest(
            grades=tuple(GradeShown(symbol=g.symbol, value=g.value) for g in task.grades),
            rules=tuple(RuleShown(id=r.id, text=r.text, grade=r.grade) for r in self.before.rules),
            evidence=tuple(self.evidence[s.id] for s in rows),
            budget=RevisionBudget(max_operations=edits),
        )
        answer = RulebookClient().generate([Request("draft", (Message("user", request.text()),))])[0]
        found = read_answer(answer)[0]
        return apply(self.before, found[0].operations, task) if found else self.before

    def _rows(self, split: Split) -> list[Sample]:
        return [s for s in self.project.store.samples(split) if s.id in self.truths]


def _ends(gain: Gain) -> list[float | None]:
    return [None if e is None else round(100 * e, 1) for e in (gain.mean, gain.low, gain.high)]


if __name__ == "__main__":
    seeds, out = int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2] if len(sys.argv) > 2 else "refit.jsonl"
    print(json.dumps(resumed(one, len(SETS) * seeds, 0, out), indent=1))
