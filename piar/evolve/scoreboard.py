"""What the teacher says of each sample under each candidate: asked once, kept as codes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from piar.evolve.purse import BudgetSpent
from piar.evolve.truth import Truth
from piar.judging.labeller import Batch, Labeller
from store.stats import Floats
from store.types import Instruction, Sample, Verdict

_UNKNOWN, _FAILED = -2, -1


class Scoreboard:
    """Every grade this run has seen, by instruction and sample; asks for what is missing.

    Args:
        labeller: judges what is not known.
        samples: all samples that may be judged, of every split.
        truths: sample id -> truth.
    """

    def __init__(self, labeller: Labeller, samples: Sequence[Sample], truths: Mapping[str, Truth]) -> None:
        self.labeller = labeller
        self.symbols = labeller.store.task.symbols
        self._row = {s.id: i for i, s in enumerate(samples)}
        self._codes = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._grades: dict[str, NDArray[np.int8]] = {}
        soft = [[truths[s.id].score(g) for g in (*self.symbols, None)] for s in samples]
        self._scores = np.array(soft).reshape(len(samples), len(self.symbols) + 1)
        self._truth = np.array([self._codes[truths[s.id].grade] for s in samples], dtype=np.int64)

    def verdicts(self, instruction: Instruction, samples: Sequence[Sample]) -> list[Verdict]:
        """Full verdicts, with traces, in the order asked.

        Raises:
            BudgetSpent: not all could be asked.
        """
        return self._ask([Batch(instruction, samples)])

    def judge(self, instructions: Sequence[Instruction], samples: Sequence[Sample]) -> None:
        """Make sure that all grades are known; what is missing is asked in one go.

        Raises:
            BudgetSpent: not all could be asked.
        """
        open_rows = [(instruction, self.missing(instruction, samples)) for instruction in instructions]
        batches = [Batch(instruction, rows) for instruction, rows in open_rows if rows]
        if batches:
            self._ask(batches)

    def missing(self, instruction: Instruction, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that this run has not judged under the instruction."""
        known = self._grades_of(instruction.id)
        return [s for s in samples if known[self._row[s.id]] == _UNKNOWN]

    def grades(self, instruction: Instruction, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """(N,) grade positions, -1 where the answer failed."""
        found = self._grades_of(instruction.id)[self.rows(samples)]
        if np.any(found == _UNKNOWN):
            raise KeyError("not all of these samples have been judged")
        return found.astype(np.int64)

    def scores(self, instruction: Instruction, samples: Sequence[Sample]) -> Floats:
        """(N,) score of each verdict: 1 where right, or the share of people who agree."""
        found: Floats = self._scores[self.rows(samples), self.grades(instruction, samples)]
        return found

    def best(self, candidates: Sequence[Instruction], samples: Sequence[Sample]) -> Instruction:
        """Best mean score; of equals the one with fewer rules, then the earlier."""
        return max(candidates, key=lambda i: (float(self.scores(i, samples).mean()), -len(i.rules)))

    def truth(self, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """(N,) positions of the true grades."""
        return self._truth[self.rows(samples)]

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """(N,) row of each sample in the board."""
        return np.fromiter((self._row[s.id] for s in samples), dtype=np.int64, count=len(samples))

    def _ask(self, batches: Sequence[Batch]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        self.labeller.judge(batches, verdicts.append)
        for v in verdicts:
            if v.failure != "budget":
                self._grades_of(v.instruction)[self._row[v.sample_id]] = self._codes.get(v.grade or "", _FAILED)
        if any(v.failure == "budget" for v in verdicts):
            raise BudgetSpent
        return verdicts

    def _grades_of(self, instruction_id: str) -> NDArray[np.int8]:
        return self._grades.setdefault(instruction_id, np.full(len(self._row), _UNKNOWN, dtype=np.int8))
