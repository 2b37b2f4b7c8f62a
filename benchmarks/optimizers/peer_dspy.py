"""DSPy's optimizers on the simulated endpoint, run by their own environment's Python: `python peer_dspy.py JOB.json`.

`JOB.json` holds a list of jobs; one JSON line is printed for each. Prompts are zero-shot: no demonstrations.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Literal

os.environ |= {"DSPY_CACHEDIR": os.environ.get("TMPDIR", "/tmp") + "/dspy-cache", "TQDM_DISABLE": "1"}

import dspy


class Judge(dspy.Signature):
    query: str = dspy.InputField()
    title: str = dspy.InputField()
    grade: Literal["0", "1", "2"] = dspy.OutputField()


def right(gold, said, trace=None, *args, **kwargs):
    return float(said is not None and gold.grade == said.grade)


def told(gold, said, trace=None, pred_name=None, pred_trace=None):
    return dspy.Prediction(score=right(gold, said), feedback=f"The right grade is {gold.grade}.")


def examples(rows):
    return [
        dspy.Example(query=r["query"], title=r["title"], grade=r["gold"]).with_inputs("query", "title") for r in rows
    ]


def mipro(job, student, teacher, reviser, view=10):
    made = dspy.MIPROv2(
        metric=right, prompt_model=reviser, task_model=teacher, max_bootstrapped_demos=0, max_labeled_demos=0,
        auto="light", num_threads=1, seed=job["seed"] + 1,
    )  # fmt: skip
    return made.compile(
        student, trainset=examples(job["train"]), valset=examples(job["val"]), view_data_batch_size=view
    )


def simba(job, student, teacher, reviser, **settings):
    made = dspy.SIMBA(metric=right, max_demos=0, prompt_model=reviser, num_threads=1, **settings)
    return made.compile(student, trainset=examples(job["train"] + job["val"]), seed=job["seed"])


def dspy_gepa(job, student, teacher, reviser, **settings):
    made = dspy.GEPA(
        metric=told, max_metric_calls=job["budget"], reflection_lm=reviser, num_threads=1, seed=job["seed"], **settings
    )
    return made.compile(student, trainset=examples(job["train"]), valset=examples(job["val"]))


OPTIMIZERS = {"mipro": mipro, "simba": simba, "dspy_gepa": dspy_gepa}


def main():
    logging.disable(logging.WARNING)
    job = json.loads(Path(sys.argv[1]).read_text())
    options = {"api_base": job["url"] + "/v1", "api_key": "none", "cache": False}
    teacher = dspy.LM("openai/teacher", temperature=0.0, **options)
    reviser = dspy.LM("openai/rulebook-reviser", temperature=1.0, max_tokens=100_000, **options)
    dspy.configure(lm=teacher)
    student = dspy.Predict(Judge.with_instructions(job["text"]))
    best = OPTIMIZERS[job["optimizer"]](job, student, teacher, reviser, **job["settings"])
    print("\n" + json.dumps({"text": best.signature.instructions, "steps": []}))


if __name__ == "__main__":
    main()
