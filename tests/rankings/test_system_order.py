"""How far judges agree on the order of systems."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from piar.cli import main
from piar.rankings.system_order import tau
from store.errors import PiarError
from store.types import Verdict
from tests.documents import check
from tests.rankings.world import make_world


def test_tau_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = rng.integers(0, 4, 6).astype(float), rng.integers(0, 4, 6).astype(float)
        expected = kendalltau(x, y).statistic
        assert tau(np.concatenate([x, y])) == pytest.approx(expected, nan_ok=True)


def test_judges_are_compared_by_the_order_that_they_give_systems(tmp_path, capsys):
    world = make_world(tmp_path, queries=40)
    third = tmp_path / "c.run"
    turned = [line.split() for line in world.b.read_text().splitlines()]
    third.write_text("".join(f"{q} Q0 {d} 1 {-float(s)} c\n" for q, _, d, _, s, _ in turned))
    runs = replace(world.runs, queries=tmp_path / "queries.csv", more=(third,))
    with pytest.raises(PiarError, match="has a grade by teacher"):
        world.project.system_order(runs)
    judge, read = f"teacher:{world.project.config.teacher.model}", world.project.adopt_instruction().id
    truth = {(query, title): grade for query, _, title, grade in world.rows}
    world.project.store.record_verdicts(
        [
            Verdict(f"{s.id}-v", s.id, judge, read, 0, str(truth[s.fields["query"], s.fields["title"]]))
            for s in world.project.store.samples()
        ],
        "run",
    )
    found = world.project.system_order(runs)
    assert list(found.means["gold"]) == ["b", "a", "c"]
    assert found.means["gold"] == found.means["teacher"]
    assert found.agreement["gold", "teacher"].value == pytest.approx(1.0)
    asked = ["compare", str(world.a), str(world.b), str(third), "--queries", str(runs.queries)]
    assert main([*asked, "-C", str(world.project.folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check("compare", document)
    assert document["agreement"][0]["judges"] == ["gold", "teacher"]
    assert main([*asked, "-C", str(world.project.folder)]) == 0
    assert "order of 3 systems" in capsys.readouterr().out
