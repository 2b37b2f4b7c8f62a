"""Small labelled worlds for tests of the loop: a teacher that follows word rules, a reviser that counts words."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from piar.evolve.run import Models
from piar.evolve.settings import ReviserSettings
from piar.judging.session import Respondent
from piar.llm.settings import ModelSettings
from store.db import Store, now
from store.ids import content_id, sample_id
from store.journal import Journal
from store.task import Grade, Task
from store.types import Completion, Instruction, Usage

TASK = Task(
    name="toy",
    group_by="query",
    fields=("query", "title"),
    grades=(Grade(symbol="0", value=0), Grade(symbol="1", value=1), Grade(symbol="2", value=2)),
    slices={"long": "length(title) > 14"},
)
SEED = Instruction("Say how well the title fits the query.")
_RULE = re.compile(r"^- (R\d+) -> (\S+): the title has (\w+)$", re.M)


class WordTeacher:
    """Applies `the title has WORD` in order; otherwise says the default."""

    model = "words"

    def __init__(self, default="1", cost=0.0):
        self.default, self.cost, self.calls = default, cost, 0

    def generate(self, requests, on_completion=None):
        return [self._one(r, on_completion) for r in requests]

    def _one(self, request, on_completion):
        self.calls += 1
        completion = Completion(request.key, self.model, self.say(request), usage=Usage(10, 0, 2), cost_usd=self.cost)
        if on_completion:
            on_completion(completion)
        return completion

    def say(self, request):
        words = json.loads(request.messages[-1].content)["title"].split()
        for rule, grade, word in _RULE.findall(request.messages[0].content):
            if word in words:
                return f"{grade}\nrules: {rule}\nverdict: {grade}"
        return self.default


class WordReviser(WordTeacher):
    """Proposes the words that are most telling among the errors shown."""

    model = "counting-words"
    simulated = True

    def say(self, request):
        shown = json.loads(request.messages[-1].content)
        found = Counter()
        for item in shown["evidence"]:
            for word in set(item["fields"]["title"].split()):
                found[word, item["truth"]] += 1 if item["verdict"] != item["truth"] else -1
        best = [key for key, n in sorted(found.items(), key=lambda x: (-x[1], x[0])) if n > 0]
        offered = [
            {"note": f"{w} is {g}", "operations": [{"op": "add", "grade": g, "text": f"the title has {w}"}]}
            for w, g in best[: shown["candidates"]]
        ]
        return json.dumps({"candidates": offered})


def loop_models(teacher, reviser, teacher_settings=None, reviser_settings=None):
    """Two clients as `evolve` takes them."""
    return Models(
        Respondent(teacher, teacher_settings or ModelSettings()),
        Respondent(reviser, reviser_settings or ReviserSettings()),
    )


def world(folder: Path, groups=60, per_group=6, seed=0, noise=0.05, truth=None):
    """A project folder's store with labelled samples; `truth(group, words, rng)` gives the grade."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(8)]
    rows = []
    for group in range(groups):
        split = ("train", "train", "dev", "holdout", "test")[group % 5]
        for n in range(per_group):
            words = [*rng.choice(vocabulary, 2, replace=False), f"x{group}n{n}"]
            grade = (truth or planted)(group, words, rng)
            if rng.random() < noise:
                grade = str(rng.integers(3))
            rows.append((f"q{group}", " ".join(words), split, grade))
    return fill(folder, rows)


def planted(group, words, rng):
    """w0 and w1 mean 0, w2 means 2, everything else 1."""
    return "0" if {"w0", "w1"} & set(words) else "2" if "w2" in words else "1"


def fill(folder: Path, rows, raters=()):
    """A store with `rows` of (query, title, split, gold); `raters[i]` are the further grades of row i."""
    store = Store.create(folder / "piar.duckdb", TASK)
    samples, labels = [], []
    for i, (query, title, split, gold) in enumerate(rows):
        name = sample_id(query, (query, title))
        samples.append({"sample_id": name, "group_key": query, "split": split, "query": query, "title": title})
        said = [("gold", "gold", gold)] + [
            ("human", f"rater {n}", grade) for n, grade in enumerate(raters[i] if raters else ())
        ]
        labels += [
            {"label_id": content_id(name, who), "sample_id": name, "source": source, "annotator": who, "grade": grade}
            for source, who, grade in said
        ]
    same = {"run_id": "test", "created_at": now()}
    store.insert("samples", pa.Table.from_pylist([{**sample, **same, "source": "test"} for sample in samples]))
    store.insert("labels", pa.Table.from_pylist([{**label, **same} for label in labels]))
    return store, Journal(folder / "journal")
