"""Rows drafted by a real model: what each screen lets through, and what a student gains by them.

A language model drafts rows of every grade by the four methods, and judges them, not told the grade that was wanted;
its verdicts are calibrated on some rows of train. What passes the screens joins the training split; two cheap students
are taught with and without it and compared on test, by group. Answers are kept, so that a run goes on where it was cut
off; figures go to `results/`, every draft to `drafts.csv` in the work folder, to be read.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real.results import put
from benchmarks.real.sets import SETS, dealt, project
from benchmarks.real.students import every
from piar import Project
from piar.measure.baselines import fit
from piar.project.asking import session
from store.db import Store
from store.files import write_text
from store.stats import paired_gain
from synth import SynthSettings, synthesize

TRAIN, JUDGED, EACH = (
    300,
    100,
    16,
)  # rows learnt from, of those judged for the calibration, drafts of a method and grade
STUDENTS = ("probe", "tfidf_overlap")
FEW = "sample_id in (select sample_id from samples where split = 'train' order by sample_id limit {})"


class Tried(SynthSettings):
    """Cells that never fill, so that every draft is screened."""

    each: int = EACH

    def drafts(self, wanted: int) -> int:
        """Drafts of each method."""
        return self.each


def run(out: Path, models: Path, *, sets: list[str], model: str, each: int, results: Path) -> None:
    """Draft, screen, teach and compare; write the figures of all that is there."""
    told = (f"teacher.model=hf:{models / model}", 'teacher.extra={"dtype" = "bfloat16"}')
    for name in sets:
        at = project(name, dealt(name, 0, TRAIN), out / name, encoder=str(models / "encoder"), sets=told)
        if not (at.folder / "synth.json").exists():
            grades = SETS[name].grades
            print(f"{name}: {4 * each * len(grades)} drafts, about 2 s each of one core", flush=True)
            _calibrated(at)
            _drafted(at, Tried(n=10**6, votes=1, each=each), grades)
            write_text(at.folder / "synth.json", json.dumps(figures(at, name, model)))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/synth.json"))]
    print(table(put(results / "synth.json", found, "set", "model")), flush=True)


def _calibrated(at: Project) -> None:
    """The teacher's verdicts on some rows of train, and its calibration by them, out of fold where it is reported."""
    from piar.measure.calibrate import calibrate, keep
    from piar.project.asking import teacher_name
    from store.judges import Judge

    at.label(FEW.format(JUDGED))
    with at.run("calibrate", {"judge": "teacher"}, detail=(detail := {})):
        found = calibrate(at.store, Judge(teacher_name(at), at.instruction().id), "bias")
        detail |= keep(at.store, found)


def _drafted(at: Project, settings: SynthSettings, grades: tuple[str, ...]) -> None:
    cells = " union all ".join(f"select '' as rule, '{grade}' as grade, 1000 as wanted" for grade in grades)
    with at.run("synth", settings.model_dump(mode="json")) as run_id, session(at, run_id) as teacher:
        synthesize(teacher, at.adopt_instruction(), settings, writer=teacher, targets=cells)


def figures(at: Project, name: str, model: str) -> dict[str, Any]:
    """What became of the drafts, by reason, method and grade; and what students gain."""
    drafts = at.store.frame("select method, grade, status, reason, fields from synthesis order by all")
    drafts.with_columns(fields=drafts["fields"].list.join(" | ")).write_csv(at.folder / "drafts.csv")
    counted = drafts.group_by("reason").len().sort("len", descending=True)
    kept = (pl.col("status") == "kept").sum()
    by_grade = drafts.group_by("grade").agg(n=pl.len(), kept=kept).sort("grade")
    by_method = drafts.group_by("method").agg(n=pl.len(), kept=kept).sort("method")
    return {
        "set": name,
        "model": model,
        "drafts": len(drafts),
        "reasons": {reason or "kept": n for reason, n in counted.iter_rows()},
        "by_grade": [list(row) for row in by_grade.iter_rows()],
        "by_method": [list(row) for row in by_method.iter_rows()],
        "gains": {student: _gain(at, student) for student in STUDENTS},
    }


def _gain(at: Project, student: str) -> dict[str, Any]:
    """Accuracy on test of the student taught on gold alone, and with the kept drafts under the grade wanted."""
    with_drafts = _rows(at.store, "s.split = 'train'", "coalesce(t.grade, y.grade)")
    alone = with_drafts.filter(with_drafts["origin"] == "import")
    test = _rows(at.store, "s.split = 'test' and t.grade is not null", "t.grade")
    symbols, right = at.task.symbols, []
    for rows in (alone, with_drafts):
        taught = fit(student, rows, at.task, groups=rows["group_key"], embed=at.encoder)
        said = [symbols[place] for place in taught.predict(test).argmax(axis=1)]
        right.append([float(one == gold) for one, gold in zip(said, test["gold"], strict=True)])
    gain = paired_gain(right[0], right[1], np.array(test["group_key"].to_list(), dtype=object))
    return {
        "rows": [len(alone), len(with_drafts)],
        "accuracy": [float(np.mean(right[0])), float(np.mean(right[1]))],
        "gain": [gain.mean, gain.low, gain.high],
        "groups": test["group_key"].n_unique(),
    }


def _rows(store: Store, where: str, grade: str) -> Any:
    return store.frame(
        f"select s.*, {grade} as gold from samples s left join truth t using (sample_id) left join "
        f"(select sample_id, any_value(grade) as grade from synthesis where status = 'kept' group by 1) y "
        f"using (sample_id) where {where} order by s.sample_id"
    )


def table(found: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = ["| set | drafts | what became of them | kept by grade wanted |", "|---|---|---|---|"]
    for one in found:
        reasons = ", ".join(f"{reason} {n}" for reason, n in one["reasons"].items())
        grades = ", ".join(f"{grade}: {kept} of {n}" for grade, n, kept in one["by_grade"])
        lines.append(f"| {one['set']} | {one['drafts']} | {reasons} | {grades} |")
    lines += ["", "| set | student | rows without, with | accuracy on test, % | gain (95 %) |", "|---|---|---|---|---|"]
    for one in found:
        for student, told in one["gains"].items():
            mean, low, high = ("?" if value is None else f"{100 * value:+.1f}" for value in told["gain"])
            before, after = (f"{100 * value:.1f}" for value in told["accuracy"])
            rows = ", ".join(map(str, told["rows"]))
            lines.append(f"| {one['set']} | {student} | {rows} | {before} → {after} | {mean} ({low} to {high}) |")
    return "\n".join(lines)


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--sets", help="of " + ", ".join(SETS))
    parser.add_argument("--model", default="instruct15", help="folder of PIAR_REAL_MODELS")
    parser.add_argument("--each", type=int, default=EACH, help="drafts of a method and grade")


def main(asked: Any, models: Path, results: Path) -> None:
    """Run what the options name."""
    sets = every(asked.sets, ("chorus", "semeval"))
    run(asked.out / "synth", models, sets=sets, model=asked.model, each=asked.each, results=results)
