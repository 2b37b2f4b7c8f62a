"""The experiments on the paper's claims: the rule of the verdict, and each claim once through at the tiniest size."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from benchmarks.claims import __main__ as claims
from benchmarks.claims import c1_answer_first, c9_proper_reward, rate, reach
from benchmarks.claims.harness import summed
from benchmarks.claims.lab import Found, Lab, Model
from benchmarks.claims.scales import SCALES
from benchmarks.claims.verdict import Contrast, outcome, said
from tests.tiny_model import make_tiny_model
from trainers.loop import Trained


def row(arm, seed, scores, groups):
    return {"arm": arm, "seed": seed, **summed(Found(scores, groups))}


def test_a_clear_gain_holds_and_turned_round_it_fails():
    rng, groups = np.random.default_rng(0), [f"q{i // 8}" for i in range(800)]
    rows = [row(arm, seed, (rng.random(800) < p).astype(float).tolist(), groups)
            for seed in range(3) for arm, p in (("a", 0.8), ("b", 0.5))]  # fmt: skip
    found = outcome(Contrast("a", "b"), rows)
    assert found.verdict == "holds"
    assert found.low < found.mean < found.high
    assert outcome(Contrast("b", "a"), rows).verdict == "fails"


def test_no_difference_ties_and_one_seed_decides_nothing():
    groups = [f"q{i // 8}" for i in range(800)]
    same = [row(arm, seed, [float(i % 2) for i in range(800)], groups) for seed in range(3) for arm in "ab"]
    assert outcome(Contrast("a", "b"), same).verdict == "ties"
    far = [row(arm, 0, [score] * 800, groups) for arm, score in (("a", 1.0), ("b", 0.0))]
    assert outcome(Contrast("a", "b"), far).verdict == "open"
    assert outcome(Contrast("a", "c"), far) is None


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [(0.01, 0.2, 0.0, "holds"), (-0.2, -0.01, 0.0, "fails"), (-0.02, 0.02, 0.0, "ties"), (-0.1, 0.1, 0.0, "open"),
     (-0.02, 0.02, 0.03, "holds"), (-0.2, -0.04, 0.03, "fails"), (-0.04, 0.1, 0.03, "open")],
)  # fmt: skip
def test_the_rule(low, high, margin, verdict):
    assert said(low, high, margin) == verdict


def test_a_gain_is_paired_by_group_in_each_seed():
    """Seeds whose worlds differ in level, but not in the gain, do not widen the interval."""
    groups = [f"q{i}" for i in range(200)]
    rows = []
    for seed, level in enumerate((0, 1, 2)):
        base = [float(i % 4 < level) for i in range(200)]
        rows += [row("a", seed, [b + 0.1 for b in base], groups), row("b", seed, base, groups)]
    found = outcome(Contrast("a", "b"), rows)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_a_claim_runs_and_what_is_done_is_not_run_again(tmp_path, capsys):
    asked = ["6", "--scale", "tiny", "--seeds", "0", "-o", str(tmp_path)]
    claims.main(asked)
    first = (tmp_path / "rows-tiny.jsonl").read_text()
    assert first.count("\n") == len(claims.CLAIMS[6].arms)
    claims.main(asked)
    assert (tmp_path / "rows-tiny.jsonl").read_text() == first
    text = (tmp_path / "claims-tiny.md").read_text()
    assert "grade, same tokens" in text
    assert "not run" in text
    assert "<svg" in (tmp_path / "claim-6-tiny.svg").read_text()


def test_a_claim_runs_with_a_pretrained_folder_on_peoples_grades(tmp_path, capsys):
    """Rows of closed groups report; arms that need reasons are left out, and the table says whose grades these are."""
    folder = make_tiny_model(tmp_path / "some-model", width=64, layers=1)
    claims.main(["2", "9", "--scale", "tiny", "--student", str(folder), "--on", "chorus", "--seeds", "0",
                 "-o", str(tmp_path)])  # fmt: skip
    name = "tiny-some-model-chorus"
    rows = claims.Record(tmp_path / f"rows-{name}.jsonl").rows()
    assert {row["claim"] for row in rows} == {9}
    lab = Lab(tmp_path / name / "seed-0", SCALES["tiny"].of(str(folder), "chorus"), 0)
    assert not {row["group"] for row in lab.held} & {row["group"] for row in [*lab.taught, *lab.pool]}
    assert sum(rows[0]["sizes"]) == len(lab.held)
    assert "People’s grades (chorus): students from `some-model`" in (tmp_path / f"claims-{name}.md").read_text()
    assert "At most 10 arms" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        claims.main(["9", "--on", "semeval", "-o", str(tmp_path)])


def test_better_probabilities_score_higher_where_as_many_are_right(tmp_path, monkeypatch):
    """Claim 9 tells a sure student that is wrong from one that doubts, though both are right as often."""
    lab, said = Lab(tmp_path, SCALES["tiny"], 0), {}
    monkeypatch.setattr(c9_proper_reward, "_model", lambda lab, name: Model(tmp_path / name / "final"))
    monkeypatch.setattr(Lab, "held_probs", lambda self, model: said[model.path.parent.name])
    gold = lab.gold(lab.held)
    sure = np.eye(4)[(gold + np.arange(len(gold)) % 2) % 4]  # half are right
    said.update(strict=sure, Brier=0.6 * sure + 0.1)
    found = {name: arm(lab).scores for name, arm in claims.CLAIMS[9].arms.items() if name.split(",")[0] in said}
    assert np.mean(found["Brier"]) == np.mean(found["strict"])
    assert np.mean(found["strict, probabilities"]) == pytest.approx(0.5, abs=0.02)
    assert np.mean(found["Brier, probabilities"]) > np.mean(found["strict, probabilities"]) + 0.05


def test_a_stopped_run_goes_on_and_its_processor_time_adds_up(tmp_path):
    lab, calls = Lab(tmp_path, SCALES["tiny"], 0), []

    def work(out):
        calls.append(out)
        (out / "checkpoint-1").mkdir(parents=True, exist_ok=True)
        (out / "metrics.jsonl").write_text(json.dumps({"step": len(calls), "num_tokens": 7 * len(calls)}) + "\n")
        sum(i * i for i in range(2_000_000))  # some processor time
        return Trained(out / "final", len(calls), {}, stopped=len(calls) == 1)

    with pytest.raises(SystemExit, match="the same command goes on"):
        lab.made("run", work)
    first = json.loads((calls[0] / "cpu_seconds.json").read_text())
    model = lab.made("run", work)
    assert model.cpu_seconds > first > 0
    assert model.tokens == 14
    assert lab.made("run", work) == model
    assert len(calls) == 2


@pytest.mark.parametrize("rules", [" R07", ""])
def test_a_reason_is_closed_wherever_a_tokenizer_cuts(rules, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path, width=64, layers=1))
    ids = tokenizer(f"\nevidence: desk\nrules:{rules}\nverdict: 2", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids[c1_answer_first.closed_at(tokenizer, ids) :]).strip() == "2"
    assert c1_answer_first.closed_at(tokenizer, ids[:-2]) == 0


@pytest.mark.integration
@pytest.mark.parametrize("number", sorted(claims.CLAIMS))
def test_every_arm_of_every_claim_runs(number, tmp_path_factory):
    out = tmp_path_factory.getbasetemp() / "claims"
    claims.main([str(number), "--scale", "tiny", "--seeds", "0", "-o", str(out)])
    rows = [one for one in claims.Record(out / "rows-tiny.jsonl").rows() if one["claim"] == number]
    assert [one["arm"] for one in rows] == list(claims.CLAIMS[number].arms)
    assert all(0 <= one["score"] <= 1 for one in rows)


@pytest.mark.integration
def test_what_a_student_reaches_stands_beside_the_majority(tmp_path, capsys):
    model = make_tiny_model(tmp_path / "model", width=64, layers=1)
    reach.main(["--scale", "tiny", "--student", str(model), "--rates", "1e-3", "--steps", "2", "-o", str(tmp_path)])
    [found] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["rate"], found["steps"]) == (0.001, 2)
    assert 0 < found["majority"] < 1
    assert 0 <= found["accuracy"] <= 1


def test_the_rate_chosen_is_the_best_on_its_own_world(tmp_path, capsys):
    rate.main(["--scale", "tiny", "-o", str(tmp_path)])
    base, *tried, last = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert base["rate"] == 0
    assert [one["rate"] for one in tried] == list(rate.RATES)
    assert next(one for one in tried if one["rate"] == last["chosen"])["accuracy"] == max(o["accuracy"] for o in tried)
