"""The report names the encoder where a language model is not told better, with both figures."""

import json

import pytest

from piar.project.facade import Project
from piar.report.after_the_instruction import students
from piar.report.page import report
from store.db import Store
from store.prepare import ImportMapping
from store.types import Verdict

COLUMNS = ImportMapping(fields={"query": "query", "title": "title"}, gold="grade", group="query", split="split")
MODEL, ENCODER = "student:students/sft/final", "student:students/encoder/final"


def project(folder, right: dict[str, float], *, groups: int = 30) -> Store:
    """A test split on which each judge is right so often."""
    lines = ["query,title,grade,split", "a,b,0,train", "a,c,1,train"]
    lines += [f"q{i % groups},t {i},{i % 2},test" for i in range(10 * groups)]
    (folder / "rows.csv").write_text("\n".join(lines))
    store = Project.init(folder / "p", from_=folder / "rows.csv", mapping=COLUMNS).store
    rows = store.frame(
        "select s.sample_id, t.grade from samples s join truth t using (sample_id) where s.split = 'test' order by 1"
    ).rows()
    for number, (judge, share) in enumerate(right.items()):
        said = [g if (7 * i + 3 * number) % 10 < 10 * share else str(1 - int(g)) for i, (_, g) in enumerate(rows)]
        store.record_verdicts(
            [Verdict(f"{judge}{key}", key, judge, "", 0, g) for (key, _), g in zip(rows, said, strict=True)], "r"
        )
    for judge, kind, size in ((MODEL, "language model", 4_000_000), (ENCODER, "encoder", 1_500_000)):
        inside = folder / "p" / judge.removeprefix("student:")
        inside.mkdir(parents=True)
        (inside / "student.json").write_text(json.dumps({"kind": kind}))
        (inside / "model.safetensors").write_bytes(b"0" * size)
    return store


def test_an_encoder_that_is_not_told_worse_is_named_with_both_figures(tmp_path):
    store = project(tmp_path, {MODEL: 0.8, ENCODER: 0.8})
    advice = students(store)["advice"]
    assert advice.startswith(f"{ENCODER}, an encoder, is as good, as far as these rows tell: ")
    assert f" of {MODEL} on test" in advice
    assert "1 MB of weights against 4" in advice
    assert advice in report(store, tmp_path / "r.html").path.read_text()


def test_a_probe_on_a_frozen_one_is_named_too_and_better_is_called_better(tmp_path):
    advice = students(project(tmp_path, {MODEL: 0.6, "baseline:probe": 0.9}))["advice"]
    assert advice.startswith("baseline:probe, an encoder, is better: ")
    assert "MB" not in advice


@pytest.mark.parametrize(
    ("right", "groups"), [({MODEL: 0.9, ENCODER: 0.6}, 30), ({MODEL: 0.8}, 30), ({MODEL: 0.8, ENCODER: 0.8}, 3)]
)
def test_worse_alone_or_untold_ones_are_not(tmp_path, right, groups):
    assert students(project(tmp_path, right, groups=groups))["advice"] is None
