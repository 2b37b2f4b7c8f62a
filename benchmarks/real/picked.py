"""Labels of the rows that a student doubts, beside as many labels of random rows: which teach it more?

A sentence encoder's student (no pass, the head alone) learns `START` random rows of a set's training groups. Then
`MORE` rows are added, once those between whose two likeliest grades it decides by the least margin (no label is looked
at), once random ones; it learns anew from all. Accuracy is on the test split, over `DRAWS` starts a split; the gain is
paired, by group over all of them.
"""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from benchmarks.real.results import put
from benchmarks.real.sets import SETS, dealt
from benchmarks.real.students import SPLITS, every
from store.files import write_text
from store.stats import paired_gain
from store.task import Grade, Task
from trainers.apart import Apart
from trainers.config import EncoderSettings
from trainers.encoded import encode
from trainers.encoder import apart_encoder

START, MORE, DRAWS = 200, 200, 3
LENGTH = 160  # tokens of a text at most
ARMS = ("start", "random", "least margin")


class Known:
    """A split's rows as the student's head sees them."""

    def __init__(self, model: Apart, tokenizer: Any, name: str, split: int, part: str, task: Task) -> None:
        one, rows = SETS[name], dealt(name, split).filter(split=part)
        ids = encode(model, tokenizer, [list(row) for row in rows.select(one.fields).iter_rows()], task, LENGTH)
        self.texts, self.groups = [row.said for row in ids], rows[one.group].to_list()
        self.seen = model.features(tokenizer, ids)
        self.gold = np.array([one.grades.index(grade) for grade in rows["gold"]])

    def __len__(self) -> int:
        return len(self.gold)


def probabilities(model: Apart, rows: Known) -> NDArray[np.float64]:
    """[N, K] by the head that was fitted last."""
    seen = rows.seen.copy()
    if model.words:
        seen[:, -model.worded :] = model.words.logits(rows.texts)
    with torch.inference_mode():
        return np.asarray(softmax(model.judged(torch.from_numpy(seen)).double().numpy(), axis=1))


def one(name: str, split: int, folder: Path) -> dict[str, Any]:
    """Right and wrong on test of each arm, draw after draw."""
    about, began = SETS[name], time.monotonic()
    grades = tuple(Grade(symbol=symbol, value=float(i), meaning=symbol) for i, symbol in enumerate(about.grades))
    task = Task(name=name, group_by=about.group, fields=about.fields, grades=grades)
    model, tokenizer = apart_encoder(SimpleNamespace(task=task), EncoderSettings(model=str(folder)))
    train, test = (Known(model.eval(), tokenizer, name, split, part, task) for part in ("train", "test"))
    right: dict[str, list[int]] = {arm: [] for arm in ARMS}

    def taught(chosen: NDArray[np.int64], arm: str, seed: int) -> None:
        texts, groups = [train.texts[i] for i in chosen], [train.groups[i] for i in chosen]
        model.begin(train.seen[chosen], texts, train.gold[chosen].tolist(), groups, seed)
        right[arm] += (probabilities(model, test).argmax(1) == test.gold).astype(int).tolist()

    for draw in range(DRAWS):
        order = np.random.default_rng([split, draw]).permutation(len(train))
        start, others = order[:START], order[START:]
        taught(start, "start", draw)
        two = np.sort(probabilities(model, train)[others], axis=1)[:, -2:]
        doubted = others[np.argsort(two[:, 1] - two[:, 0], kind="stable")[:MORE]]
        taught(np.concatenate([start, others[:MORE]]), "random", draw)
        taught(np.concatenate([start, doubted]), "least margin", draw)
    seconds = round(time.monotonic() - began, 1)
    return {"set": name, "split": split, "right": right, "groups": test.groups * DRAWS, "seconds": seconds}


def summed(found: list[dict[str, Any]]) -> dict[str, Any]:
    """A set's figures over its splits."""
    right = {arm: [hit for part in found for hit in part["right"][arm]] for arm in ARMS}
    groups = np.array([group for part in found for group in part["groups"]], dtype=object)
    gain = paired_gain(right["random"], right["least margin"], groups)
    told = {arm: round(float(np.mean(hits)), 4) for arm, hits in right.items()}
    return {"set": found[0]["set"], "splits": len(found), **told, "gain": [gain.mean, gain.low, gain.high]}


def table(sets: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        f"| set | {START} rows | {MORE} more, random | least margin | least margin − random, points (95 %) |",
        "|---|---|---|---|---|",
    ]
    for told in sets:
        accuracies = " | ".join(f"{100 * told[arm]:.1f}" for arm in ARMS)
        mean, low, high = (100 * end if end is not None else float("nan") for end in told["gain"])
        lines.append(f"| {told['set']} | {accuracies} | {mean:+.1f} ({low:+.1f} to {high:+.1f}) |")
    return "\n".join(lines)


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--sets", help="of " + ", ".join(SETS))
    parser.add_argument("--splits", help="of 0, 1, 2")


def main(asked: Any, models: Path, results: Path) -> None:
    """Run what the options name and is not there yet; write the figures of all that is there."""
    out = asked.out / "picked"
    out.mkdir(parents=True, exist_ok=True)
    for name in every(asked.sets, SETS):
        for split in every(asked.splits, SPLITS):
            path = out / f"{name}-{split}.json"
            if not path.exists():
                print(f"{name} {split}: half a minute to three of one core", flush=True)
                write_text(path, json.dumps(one(name, split, models / "encoder")))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    sets = [summed(part) for name in SETS if (part := [one for one in found if one["set"] == name])]
    print(table(put(results / "picked.json", sets, "set")), flush=True)
