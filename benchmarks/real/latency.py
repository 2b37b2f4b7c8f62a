"""What a request costs a student that asks a language model, if what all prompts begin with is kept and if it is not.

One row at a time, by turns, so that both meet the same machine; the head has learnt nothing, which changes no time.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real.sets import SETS, dealt
from store.files import write_text
from store.task import Grade, Task
from trainers.encoded import encode, probabilities
from trainers.prompted import Prompted
from trainers.rollout import Root

WARMING = 4  # rows of each way that are not timed


def measure(name: str, model: Path, encoder: Path, rows: int) -> dict[str, Any]:
    """Milliseconds of a row (median and quartiles), and how many of a prompt's tokens are shared."""
    one = SETS[name]
    named = zip(one.grades, one.names or one.grades, strict=True)
    grades = tuple(Grade(symbol=symbol, value=i, name=said) for i, (symbol, said) in enumerate(named))
    task = Task(name=name, group_by=one.group, fields=one.fields, grades=grades)
    labels = {"id2label": dict(enumerate(one.grades)), "label2id": {symbol: i for i, symbol in enumerate(one.grades)}}
    asked, tokenizer = Prompted.begun(str(model), task, labels, beside=str(encoder))
    texts = [list(row) for row in dealt(name, 0, 100).select(one.fields).head(rows + WARMING).iter_rows()]
    shared = asked.eval().warm(tokenizer)
    ways = {"kept": asked.root, "anew": Root(asked.policy)}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for i, row in enumerate(texts):
        for way, asked.root in [*ways.items()][:: (-1) ** i]:  # what a length costs when it is new, each pays by turns
            began = time.perf_counter()
            probabilities(asked, tokenizer, encode(asked, tokenizer, [row], task))
            taken[way].append(1000 * (time.perf_counter() - began))
    found = {way: np.array(seconds[WARMING:]) for way, seconds in taken.items()}
    tokens = [len(ids) for ids in encode(asked, tokenizer, texts[WARMING:], task)]
    ms = {way: [round(float(at), 1) for at in np.quantile(each, [0.5, 0.25, 0.75])] for way, each in found.items()}
    times = round(float(np.median(found["anew"] / found["kept"])), 2)
    return {
        "set": name,
        "rows": rows,
        "tokens": float(np.mean(tokens)),
        "shared": len(shared),
        "ms": ms,
        "times": times,
    }


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--set", default="chorus", choices=list(SETS))
    parser.add_argument("--model", default="instruct15", help="a folder of PIAR_REAL_MODELS")
    parser.add_argument("--rows", type=int, default=40)


def main(asked: Any, models: Path, results: Path) -> None:
    """Measure, print and keep."""
    found = {"model": asked.model} | measure(asked.set, models / asked.model, models / "encoder", asked.rows)
    write_text(results / "latency.json", json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
