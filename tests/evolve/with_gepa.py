"""gepa itself under our promotion test, with a reflection that needs no model: run by gepa's own environment."""

import json

from gepa.core.adapter import EvaluationBatch

from piar.evolve.adapters import gated_gepa


class Adapter:
    """A text with the word `rule` is right on all rows (or, useless, on the rows that gepa sees), else on none."""

    propose_new_texts = None

    def __init__(self, useful):
        self.useful = useful

    def evaluate(self, batch, candidate, capture_traces=False):
        right = ["rule" in candidate["text"] and (self.useful or row["query"] < 40) for row in batch]
        return EvaluationBatch(right, [float(r) for r in right], list(batch) if capture_traces else None)

    def make_reflective_dataset(self, candidate, batch, components):
        return {name: [{"Inputs": "", "Generated Outputs": "", "Feedback": ""}] for name in components}


class Silent:
    def log(self, message):
        pass


def run(useful):
    rows = [{"query": i // 4, "n": i} for i in range(240)]
    candidate, decision, result = gated_gepa(
        seed_candidate={"text": "Grade."}, adapter=Adapter(useful), trainset=rows[:80], valset=rows[80:160],
        holdout=rows[160:], group="query", reflection_lm=lambda prompt: "```\nGrade by the rule.\n```",
        max_metric_calls=500, logger=Silent(), seed=0,
    )  # fmt: skip
    assert "rule" in result.best_candidate["text"], "gepa itself prefers the new text"
    return [decision.promoted, "rule" in candidate["text"]]


print(json.dumps({"better": run(True), "useless": run(False)}))
