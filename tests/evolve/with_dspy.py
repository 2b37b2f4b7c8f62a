"""DSPy itself under our promotion test, with an optimizer that needs no model: run by DSPy's own environment."""

import json
import logging
import os

os.environ |= {"DSPY_CACHEDIR": os.environ.get("TMPDIR", "/tmp") + "/dspy-cache", "TQDM_DISABLE": "1"}

import dspy

from piar.evolve.adapters import GatedOptimizer, GroupTest


class Program(dspy.Module):
    """Right once it has demonstrations, or only then on what it was shown."""

    def __init__(self, useful):
        super().__init__()
        self.judge = dspy.Predict("n -> grade")
        self.useful = useful

    def forward(self, n):
        shown = {demo["n"] for demo in self.judge.demos}
        return dspy.Prediction(grade="1" if shown and (self.useful or n in shown) else "0")


def run(useful):
    rows = [dspy.Example(n=i, query=i // 4, grade="1").with_inputs("n") for i in range(120)]
    gated = GatedOptimizer(
        dspy.LabeledFewShot(k=16), lambda e, said, trace=None: e.grade == said.grade, rows[40:], "query", GroupTest()
    )
    program = gated.compile(Program(useful), trainset=rows[:40])
    return [gated.decision.promoted, bool(program.judge.demos)]


logging.disable(logging.WARNING)
print(json.dumps({"better": run(True), "useless": run(False)}))
