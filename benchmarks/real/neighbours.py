"""A real teacher beside labelled samples: none, the nearest, as many of each grade, and the same few for every row.

The rows lie in groups that train does not have, at most so many of each. Probabilities are reported as the model has
them and calibrated (temperature and a bias for each grade, out of fold by group). Verdicts stay in the work folder's
projects, so that a run goes on where it was cut off; figures go to `results/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real.results import put
from benchmarks.real.sets import SETS, dealt, project
from benchmarks.real.students import every
from piar import Project
from piar.judging.labeller import Labeller
from piar.judging.neighbours import Neighbours
from piar.judging.requests import Assignment
from piar.judging.settings import LabelSettings
from piar.project.asking import respondent
from store.calibration import cross_fitted
from store.ids import seed_of
from store.probability_scores import nll_of, normalised
from store.stats import paired_gain, share_by_group
from store.types import Sample

K = 4
TOKENS = {"none": 40, "fixed": 190, "nearest": 190, "balanced": 190, "encoder": 190}  # of a row's own, about
RATE = 300e9  # bfloat16 operations a second of one core, in batches
WEIGHTS = {"instruct05": 0.36e9, "instruct15": 1.31e9}


class Fixed(Neighbours):
    """The same labelled samples for every row, drawn at random; those of a row's own group are left out."""

    def find(self, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
        """Places in `labelled`; groups of the rows and of train differ here."""
        drawn = np.random.default_rng(seed_of(0, "fixed")).choice(len(self.labelled), self.k, replace=False)
        return [tuple(drawn.tolist()) for _ in samples]


class Balanced(Neighbours):
    """The nearest labelled sample of each grade, in turn from the nearest, until there are enough."""

    def find(self, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
        """Places in `labelled`, the nearest first."""
        wanted, self.k = self.k, min(len(self.labelled), 400)
        found = super().find(samples)
        self.k = wanted
        return [self._in_turn(places) for places in found]

    def _in_turn(self, places: Sequence[int]) -> tuple[int, ...]:
        seen: dict[str, int] = {}
        turns = []
        for rank, place in enumerate(places):
            grade = self.labelled[place].grade
            turns.append((seen.get(grade, 0), rank, place))
            seen[grade] = seen.get(grade, 0) + 1
        chosen = sorted(turns)[: self.k]
        return tuple(place for _, place in sorted((rank, place) for _, rank, place in chosen))


def _of(kind: type[Neighbours], name: str, at: Project, *, vectors: Any = "words") -> Neighbours:
    found = kind(
        at.store,
        LabelSettings(neighbours=K, vectors=vectors),
        embed=at.encoder if vectors == "encoder" else None,
    )
    found.mark = f"+{K}-{name}"
    return found


ARMS: dict[str, Callable[[Project], Neighbours | None]] = {
    "none": lambda at: None,
    "fixed": lambda at: _of(Fixed, "fixed", at),
    "nearest": lambda at: _of(Neighbours, "nearest", at),
    "balanced": lambda at: _of(Balanced, "balanced", at),
    "encoder": lambda at: _of(Neighbours, "encoder", at, vectors="encoder"),
}


def run(
    out: Path, models: Path, *, sets: list[str], arms: list[str], model: str, rows: int, each: int, results: Path
) -> None:
    """Judge what was asked for and is not judged yet; write the figures of all that is there."""
    told = (f"teacher.model=hf:{models / model}", 'teacher.extra={"dtype" = "bfloat16"}', "label.chunk=64")
    for name in sets:
        at = project(name, dealt(name, 0), out / name, encoder=str(models / "encoder"), sets=told)
        samples = _spread(at.store.samples(where="split in ('dev', 'test')"), rows, each)
        seconds = {arm: 2 * WEIGHTS[model] * TOKENS[arm] * len(samples) / RATE for arm in arms}
        print(
            f"{name}: {len(samples)} rows; about", ", ".join(f"{a} {s:,.0f} s" for a, s in seconds.items()), flush=True
        )
        found = {}
        for arm in arms:
            asked = replace(respondent(at, client=_client(at)), neighbours=ARMS[arm](at))
            with (
                at.run("label", {"arm": arm}) as run_id,
                at.journal() as journal,
                Labeller(asked.session(at.store, journal, run_id)) as labeller,
            ):
                labeller.judge([Assignment(at.adopt_instruction(), samples)])
            found[arm] = _judged(at, asked.judge, samples)
        write(name, model, found, results)


_CLIENTS: dict[str, Any] = {}


def _client(at: Project) -> Any:
    """One model for all sets: it takes gigabytes."""
    name = at.config.teacher.model
    if name not in _CLIENTS:
        _CLIENTS[name] = at.client("teacher")
    return _CLIENTS[name]


def _spread(samples: Sequence[Sample], rows: int, each: int) -> list[Sample]:
    """At most `each` rows of a group and `rows` in all, the same ones every time."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    chosen = [sample for found in groups.values() for sample in found[:each]]
    order = np.random.default_rng(0).permutation(len(chosen))
    return [chosen[place] for place in order[:rows]]


def _judged(at: Project, judge: str, samples: Sequence[Sample]) -> pl.DataFrame:
    """group, gold, grade and probabilities of each row, in one order."""
    said = at.store.frame(
        "select s.sample_id::varchar as id, s.group_key as grp, t.grade as gold, v.grade, v.probs from samples s "
        "join truth t using (sample_id) join verdict v using (sample_id) where v.judge = ? order by s.sample_id",
        [judge],
    )
    return said.filter(pl.col("id").is_in([sample.id for sample in samples]))


def write(name: str, model: str, found: dict[str, pl.DataFrame], results: Path) -> None:
    """Add the figures of a set to the result file, and print its table."""
    base, new = figures(name, found["none"]), []
    for arm, frame in found.items():
        told = figures(name, frame)
        gains = {
            key: _gain(base["each"][key], told["each"][key], frame["grp"]) for key in ("right", "nll", "calibrated")
        }
        shown = {key: value for key, value in told.items() if key != "each"}
        new.append({"set": name, "model": model, "arm": arm, **shown, "gain": gains if arm != "none" else None})
    print(table(put(results / "neighbours.json", new, "set", "model", "arm")), flush=True)


def figures(name: str, frame: pl.DataFrame) -> dict[str, Any]:
    """Accuracy, AUC of the highest grade, NLL raw and calibrated, and the share of the grade said most."""
    from sklearn.metrics import roc_auc_score

    grades = list(SETS[name].grades)
    gold = np.array([grades.index(grade) for grade in frame["gold"]])
    raw = normalised(np.array(frame["probs"].to_list(), dtype=np.float64))
    groups = frame["grp"].to_list()
    after = cross_fitted("bias", groups, gold, raw)
    right, right_after = (probs.argmax(axis=1) == gold for probs in (raw, after))
    share = share_by_group(right, np.ones(len(right)), np.array(groups, dtype=object))
    top = gold == len(grades) - 1
    return {
        "rows": len(frame),
        "groups": len(set(groups)),
        "majority": float(np.bincount(gold).max() / len(gold)),
        "accuracy": [share.value, share.low, share.high],
        "calibrated_accuracy": float(right_after.mean()),
        "auc": float(roc_auc_score(top, raw[:, -1])),
        "nll": float(nll_of(raw, gold).mean()),
        "calibrated_nll": float(nll_of(after, gold).mean()),
        "most": float(np.bincount(raw.argmax(axis=1)).max() / len(gold)),
        "each": {
            "right": right.astype(float).tolist(),
            "calibrated": right_after.astype(float).tolist(),
            "nll": nll_of(after, gold).tolist(),
        },
    }


def _gain(before: list[float], after: list[float], groups: Any) -> list[float | None]:
    gain = paired_gain(before, after, np.array(groups.to_list(), dtype=object))
    return [gain.mean, gain.low, gain.high]


def table(kept: list[dict[str, Any]]) -> str:
    """The figures in Markdown; gains are over no neighbours, by group."""
    lines = [
        "| set | shown | rows, groups | accuracy, % | gain | calibrated | gain | AUC | NLL | calibrated | gain "
        "| one grade |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in kept:
        gains = [_bracketed(one["gain"][k], scale) if one["gain"] else "" for k, scale in _SCALES.items()]
        lines.append(
            f"| {one['set']} | {one['arm']} | {one['rows']}, {one['groups']} | {100 * one['accuracy'][0]:.1f} "
            f"| {gains[0]} | {100 * one['calibrated_accuracy']:.1f} | {gains[1]} | {one['auc']:.2f} | {one['nll']:.2f} "
            f"| {one['calibrated_nll']:.2f} | {gains[2]} | {100 * one['most']:.0f} % |"
        )
    return "\n".join(lines)


_SCALES = {"right": 100, "calibrated": 100, "nll": 1}


def _bracketed(gain: list[float | None], scale: int) -> str:
    form = "{:+.1f}" if scale == 100 else "{:+.2f}"
    mean, low, high = ("?" if value is None else form.format(scale * value) for value in gain)
    return f"{mean} ({low} to {high})"


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--sets", help="of " + ", ".join(SETS))
    parser.add_argument("--arms", help="of " + ", ".join(ARMS))
    parser.add_argument("--model", default="instruct15", help="folder of PIAR_REAL_MODELS")
    parser.add_argument("--rows", type=int, default=270, help="of a set, at most")
    parser.add_argument("--each", type=int, default=6, help="rows of a group, at most")


def main(asked: Any, models: Path, results: Path) -> None:
    """Run what the options name."""
    run(
        asked.out / "neighbours",
        models,
        sets=every(asked.sets, ("chorus", "semeval")),
        arms=list(dict.fromkeys(["none", *every(asked.arms, ARMS)])),
        model=asked.model,
        rows=asked.rows,
        each=asked.each,
        results=results,
    )
