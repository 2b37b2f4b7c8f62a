"""GRPO, distillation and export as whole runs: they move what they should, resume exactly, and survive bad luck."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from store.calibration import Calibration
from store.decision_rule import DecisionRule
from store.errors import PiarError, UsageError
from tests import ROOT
from tests.shards_fixture import TASK, write_shards
from trainers import distill, grpo, losses, sft
from trainers.checkpoint import keep_calibration, read_card
from trainers.config import DistillSettings, GrpoSettings, SftSettings, StudentSettings
from trainers.export import export, model_card
from trainers.layout import Labels
from trainers.loop import Run
from trainers.model import completion_ids
from trainers.scoring import Student
from trainers.tiny import tiny_tokenizer
from trainers.watch import Watch, long_tail, tail_figures

pytestmark = pytest.mark.precision
TINY = StudentSettings(hidden=64, layers=1, vocab_size=400)
FEW = GrpoSettings(steps=2, batch_size=3, rollouts=4, max_tokens=24, log_every=1, anchor_size=2, watch_every=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 60, held_out=20)
    return folder


@pytest.fixture(scope="module")
def taught(shards, tmp_path_factory):
    """A student that knows the format a little."""
    settings = SftSettings(steps=60, batch_size=16, learning_rate=5e-3)
    return sft.train(shards, tmp_path_factory.mktemp("taught"), student=TINY, settings=settings).checkpoint


@pytest.fixture
def student(taught):
    return TINY.model_copy(update={"model": str(taught)})


def same(a, b):
    a, b = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


# --- GRPO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"credit": "outcome", "grade_reward": "ordinal", "kl": 0.1, "passes": 2},
     {"balance": "none", "pack_tokens": 200, "grade_reward": "rps"}],
)  # fmt: skip
def test_every_option_runs_logs_and_changes_the_student(shards, student, taught, tmp_path, options):
    done = grpo.train(shards, tmp_path, student=student, settings=FEW.model_copy(update=options))
    assert not same(done.checkpoint, taught)
    for name in ("reward", "rewards/evidence/mean", "frac_reward_zero_std", "entropy", "kl", "clip_ratio", "grad_norm",
                 "completions/mean_length", "num_tokens", "step_time", "tail/retention", "collapse_alarm"):  # fmt: skip
        assert np.isfinite(done.metrics[name]), name


def test_half_and_resume_is_the_whole_bit_for_bit(shards, student, tmp_path, monkeypatch):
    settings = FEW.model_copy(update={"steps": 4})
    whole = grpo.train(shards, tmp_path / "whole", student=student, settings=settings)
    update = Run.update

    def stopping(self, *args, **kwargs):
        update(self, *args, **kwargs)
        self.stopped = self.step == 2

    monkeypatch.setattr(Run, "update", stopping)
    grpo.train(shards, tmp_path / "parts", student=student, settings=settings)
    last = grpo.train(shards, tmp_path / "parts", student=student, settings=settings, resume=True)
    assert same(whole.checkpoint, last.checkpoint)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_rollouts_are_written_ends_the_run_before_that_step(
    shards, student, tmp_path, monkeypatch, number
):
    settings = FEW.model_copy(update={"steps": 3})
    whole = grpo.train(shards, tmp_path / "whole", student=student, settings=settings)
    generate, calls = grpo.generate, []

    def told(policy, *args, **kwargs):
        found = generate(policy, *args, **kwargs)  # what it has drawn is drawn again
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
            raise AssertionError("it went on")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(grpo, "generate", told)
        stopped = grpo.train(shards, tmp_path / "parts", student=student, settings=settings)
    assert (stopped.stopped, stopped.checkpoint.name) == (True, "checkpoint-1")
    last = grpo.train(shards, tmp_path / "parts", student=student, settings=settings, resume=True)
    assert same(whole.checkpoint, last.checkpoint)


def test_completions_are_kept_with_their_rewards(shards, student, tmp_path):
    settings = FEW.model_copy(update={"steps": 4, "log_every": 2})
    done = grpo.train(shards, tmp_path, student=student, settings=settings)
    files = sorted((tmp_path / "completions").iterdir())
    assert [path.name for path in files] == ["step-000002.parquet", "step-000004.parquet"]
    rows = pq.read_table(files[1]).to_pylist()
    assert len(rows) == settings.batch_size * settings.rollouts
    for row in rows:
        right = row["completion"].startswith(row["gold"])
        assert right  # with the exact gradient every rollout follows the gold grade
        assert row["reward_format"] in (0.0, 1.0)
    earned = [row["reward_evidence"] for row in rows if row["reward_evidence"] is not None]
    assert np.mean(earned) == pytest.approx(done.metrics["rewards/evidence/mean"])


def test_groups_that_cannot_teach_are_counted_and_harm_nothing(shards, student, taught, tmp_path, monkeypatch):
    """Every reward equal, every completion empty: no trace gradient, no NaN."""
    monkeypatch.setattr(grpo, "generate", lambda policy, prompts, *, end, copies, starts, **_: [
        [[start, end]] * copies for start in starts])  # fmt: skip
    settings = FEW.model_copy(update={"balance": "none"})
    done = grpo.train(shards, tmp_path, student=student, settings=settings)
    assert done.metrics["frac_reward_zero_std"] == 1
    assert done.metrics["frac_reward_masked"] == 0
    assert done.metrics["completions/empty"] == 12
    assert done.metrics["loss_trace"] == 0
    assert np.isfinite(done.metrics["grad_norm"])


@pytest.mark.exact
def test_the_reward_gradient_is_the_naive_one(shards, student, tmp_path):
    """A batch through the tree, against plain forwards, sums over tokens and the formula."""
    settings = FEW.model_copy(update={"balance": "none"})
    run = Run("grpo", shards, tmp_path, student, settings)
    generator = torch.Generator().manual_seed(1)
    groups = [replace(g, rewards=torch.rand(4, 5, generator=generator)) for g in grpo.roll(run, run.draw(), settings)]
    grpo.reward_step(run, groups, settings, {}, None)
    found = torch.cat([p.grad.flatten() for p in run.policy.parameters()])
    run.policy.zero_grad()
    run.policy.lm.set_attn_implementation("sdpa")
    total = 0.0
    for group in groups:
        prompt, gold = group.example.prompt, group.example.grade
        better = losses.advantages(group.rewards, torch.zeros(4, dtype=torch.long), credit="local")
        for r, completion in enumerate(group.completions):
            logp = run.policy.lm(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
            logp = logp[len(prompt) - 1 : -1]
            p = logp[0, run.grade_ids].softmax(-1)
            total = total - (p[gold] - (1 - p[gold])) / 4
            rows = Labels(
                torch.tensor(completion), torch.zeros(len(completion), dtype=torch.long), torch.arange(len(completion))
            )
            where = grpo.segments(rows, run.tokenizer, 5)
            for s in range(5):
                tokens = [t for t in range(1, len(completion)) if where[t] == s]
                if tokens:
                    mean = sum(logp[t, completion[t]] for t in tokens) / len(tokens)
                    total = total - settings.trace_weight / 5 * better[r, s] * mean / 4
    (total / 3).backward()
    naive = torch.cat([p.grad.flatten() for p in run.policy.parameters()])
    assert ((found - naive).norm() / naive.norm()).item() < 1e-4


@pytest.mark.exact
@pytest.mark.parametrize("trainer", ["grpo", "distill"])
def test_the_update_does_not_depend_on_how_a_batch_is_cut(shards, student, tmp_path, trainer):
    if trainer == "grpo":
        run = Run("grpo", shards, tmp_path, student, FEW)
        groups = grpo.roll(run, run.draw(), FEW)
        taken = lambda settings: grpo.reward_step(run, groups, settings, {}, None)["loss"]  # noqa: E731
    else:
        run = Run("distill", shards, tmp_path, student, DistillSettings(batch_size=3))
        batch = run.draw()
        taken = lambda settings: distill.distill_step(run, batch, {}, DistillSettings())["loss"]  # noqa: E731
    found = []
    for tokens in (100_000, 100, 8):  # one part, some, one for each prompt
        run.settings = run.settings.model_copy(update={"pack_tokens": tokens})
        loss = taken(run.settings)
        found.append((loss, torch.cat([p.grad.flatten() for p in run.policy.parameters()])))
        run.policy.zero_grad()
    (loss, gradient), *others = found
    for other, cut in others:
        assert other == pytest.approx(loss, rel=1e-5)
        assert ((cut - gradient).norm() / gradient.norm()).item() < 1e-5


def test_tokens_belong_to_the_segment_of_their_line():
    tokenizer = tiny_tokenizer(["evidence: kind: rules: verdict:"] * 20, TASK.symbols, 400)
    text = '2\nevidence: "a b"\nkind: yes\nrules: R1\nverdict: 2'
    [ids] = completion_ids(tokenizer, [text])
    rows = Labels(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.long), torch.arange(len(ids)))
    where = grpo.segments(rows, tokenizer, 5)
    said = {
        s: tokenizer.decode([i for i, w in zip(ids[1:], where[1:].tolist(), strict=True) if w == s]) for s in range(5)
    }
    assert said == {0: 'evidence: "a b"', 1: "kind: yes", 2: "rules: R1", 3: "verdict: 2", 4: "\n\n\n\n<|im_end|>"}


def test_a_row_that_pads_a_models_table_belongs_to_the_line_that_it_stands_in():
    tokenizer = tiny_tokenizer(["evidence: kind: rules: verdict:"] * 20, TASK.symbols, 400)
    [ids] = completion_ids(tokenizer, ["2\nevidence: x"])
    grpo.segments(Labels(*(torch.tensor([0]) for _ in range(3))), tokenizer, 5)  # its line breaks are known by now
    ids = [*ids[:-1], len(tokenizer) + 5]
    rows = Labels(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.long), torch.arange(len(ids)))
    assert grpo.segments(rows, tokenizer, 5).tolist()[-2:] == [0, 0]


def test_the_anchor_loss_is_the_one_that_sft_is_told(shards, student, tmp_path):
    run = Run("grpo", shards, tmp_path, student, FEW)
    rows, found = grpo.anchors(run, FEW, 0), []
    for weight in (0.5, 1.0, 0.7):  # where the grade weighs less, `TOKEN_SHARE` of so short a trace decides
        found.append(grpo.anchor_step(run, rows, SftSettings(grade_weight=weight), 0.1)[0])
    assert found[2] == pytest.approx(0.6 * found[0] + 0.4 * found[1], rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=0.01)


def test_the_anchor_draws_rare_rules_as_often_as_common_ones(shards, student, tmp_path):
    run = Run("grpo", shards, tmp_path, student, FEW)
    settings = FEW.model_copy(update={"anchor_size": 30})
    drawn = Counter(e.row["rules"][0] for step in range(20) for e in grpo.anchors(run, settings, step))
    assert set(drawn) == {"R01", "R02", "R03"}
    assert max(drawn.values()) < 1.35 * min(drawn.values())


def test_a_student_from_nothing_and_sharded_weights_are_refused(shards, student, tmp_path):
    with pytest.raises(UsageError, match="that SFT has taught"):
        grpo.train(shards, tmp_path, student=TINY, settings=FEW)
    with pytest.raises(UsageError, match="whole weights"):
        grpo.train(shards, tmp_path, student=student.model_copy(update={"shard": True}), settings=FEW)


@pytest.mark.parametrize("name", ["ordinal", "rps"])
def test_a_reward_by_distance_needs_grades_with_an_order(student, tmp_path, name):
    unordered = TASK.model_copy(update={"ordered": False})
    write_shards(tmp_path / "shards", 20, held_out=10, task=unordered)
    with pytest.raises(UsageError, match="no order") as caught:
        grpo.train(
            tmp_path / "shards",
            tmp_path / "run",
            student=student,
            settings=FEW.model_copy(update={"grade_reward": name}),
        )
    assert "grade_reward to exact or brier" in caught.value.fix
    assert not (tmp_path / "run").exists()


# --- collapse ------------------------------------------------------------------------------------


def test_collapse_is_noticed_while_the_reward_rises(shards):
    from trainers.data import read_corpus

    corpus = read_corpus(shards, tiny_tokenizer(["a"], TASK.symbols, 300), max_length=9999)
    tail = long_tail(corpus.train)
    assert len(tail) == 15
    watch = Watch(tail, TASK)
    gold = np.array([e.grade for e in tail])
    healthy = np.full((15, 3), 0.2)
    healthy[np.arange(15), gold] = 0.6
    assert watch.measure(healthy, 0.5, ["R01", "R02"])["collapse_alarm"] == 0
    again = Watch(tail, TASK)
    vars(again).update(json.loads(json.dumps(watch.state_dict())))
    collapsed = np.tile([0.998, 0.001, 0.001], (15, 1))
    if (gold == 0).all():
        collapsed = collapsed[:, ::-1]
    found = again.measure(collapsed, 0.7, ["R01"])
    assert found["collapse_alarm"] == 1
    assert found["tail/retention"] < 0.7
    # The message names what fell from what to what, once: rows without a rule have grades that are rare.
    first = again.news(found)
    assert first["tail/entropy"] == "entropy of the grade 0.95 → 0.02"
    assert not again.news(found)
    assert ("rules" if tail[0].row.get("rules") else "grades") in first["tail/rule_recall"]
    lower = again.measure(collapsed, 0.3, [])
    assert lower["collapse_alarm"] == 0  # the reward fell too: not this alarm
    assert not again.news(lower)
    assert again.news(found) == first


@pytest.mark.parametrize(("reward", "mend"), [("exact", "brier"), ("ordinal", "rps"), ("brier", None)])
def test_a_warning_of_lost_entropy_names_the_proper_reward(shards, monkeypatch, caplog, reward, mend):
    from trainers.data import read_corpus

    tail = long_tail(read_corpus(shards, tiny_tokenizer(["a"], TASK.symbols, 300), max_length=9999).train)
    says = [np.full((15, 3), 1 / 3), np.tile([0.998, 0.001, 0.001], (15, 1))]
    monkeypatch.setattr(grpo, "grade_probs", lambda run, examples: torch.from_numpy(says.pop(0)))
    watch = Watch(tail, TASK)
    for step in (1, 2):
        grpo.look(SimpleNamespace(step=step), watch, [], 0.5, GrpoSettings(grade_reward=reward))
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith("step 2: the reward holds, yet on the rarest rows: ")
    assert "entropy of the grade 1.10 → 0.02" in warning
    assert (f"--set train.grpo.grade_reward={mend}" in warning) if mend else ("--set" not in warning)


def test_tail_figures_are_what_they_say():
    gold = np.array([0, 0, 1])
    probs = np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    found = tail_figures(probs, gold, ("a", "b"))
    assert found["tail/recall/a"] == 0.5
    assert found["tail/recall/b"] == 1
    assert found["tail/entropy"] == pytest.approx(-np.mean((probs * np.log(probs)).sum(1)))
    data = np.array([[0.99, 0.01], [0.99, 0.01], [0.01, 0.99]])
    assert found["tail/kl_data_policy"] == pytest.approx(np.mean((data * np.log(data / probs)).sum(1)))


# --- distillation and export ---------------------------------------------------------------------


def test_a_teacher_model_is_asked_once_and_the_student_comes_nearer(shards, taught, tmp_path, monkeypatch):
    settings = DistillSettings(teacher=str(taught), steps=25, batch_size=16, learning_rate=5e-3, log_every=1, beta=0.5,
                               gold_weight=0.0)  # fmt: skip
    done = distill.train(shards, tmp_path, student=TINY, settings=settings)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert done.metrics["trace_kd"] < 0.7 * first["trace_kd"]
    assert (
        AutoTokenizer.from_pretrained(done.checkpoint).get_vocab() == AutoTokenizer.from_pretrained(taught).get_vocab()
    )
    (tmp_path / "final").rename(tmp_path / "other")
    monkeypatch.setattr(distill, "ask", lambda *a: pytest.fail("the cache holds every answer"))
    distill.train(shards, tmp_path, student=TINY, settings=settings, resume=True)
    (tmp_path / "final").rename(tmp_path / "another")
    os.utime(taught / "model.safetensors", (0, 0))  # a teacher that was trained again
    with pytest.raises(pytest.fail.Exception):
        distill.train(shards, tmp_path, student=TINY, settings=settings, resume=True)


@pytest.mark.parametrize("on_policy", [0.0, 0.6])
def test_half_a_distillation_and_resume_is_the_whole_bit_for_bit(shards, taught, tmp_path, monkeypatch, on_policy):
    student = TINY.model_copy(update={"model": "tiny"})
    settings = DistillSettings(steps=6, batch_size=4, teacher=str(taught), log_every=1, on_policy=on_policy)
    whole = distill.train(shards, tmp_path / "whole", student=student, settings=settings)
    update = Run.update

    def stopping(self, *args, **kwargs):
        update(self, *args, **kwargs)
        self.stopped = self.step in (2, 5)

    monkeypatch.setattr(Run, "update", stopping)
    distill.train(shards, tmp_path / "parts", student=student, settings=settings)
    distill.train(shards, tmp_path / "parts", student=student, settings=settings, resume=True)
    last = distill.train(shards, tmp_path / "parts", student=student, settings=settings, resume=True)
    assert same(whole.checkpoint, last.checkpoint)


def test_the_student_of_itself_has_no_divergence(shards, taught, tmp_path):
    settings = DistillSettings(teacher=str(taught), steps=1, batch_size=8, gold_weight=0.0, top_k=8)
    done = distill.train(shards, tmp_path, student=TINY.model_copy(update={"model": str(taught)}), settings=settings)
    assert abs(done.metrics["trace_kd"]) < 1e-3  # cached as float16
    assert abs(done.metrics["grade_kd"]) < 1e-5


def test_without_teacher_the_shards_probabilities_teach_and_on_policy_is_refused(shards, tmp_path):
    done = distill.train(shards, tmp_path / "a", student=TINY, settings=DistillSettings(steps=2, batch_size=8))
    assert done.metrics["grade_kd"] > 0
    with pytest.raises(UsageError, match="on_policy needs a teacher"):
        distill.train(shards, tmp_path / "b", settings=DistillSettings(on_policy=0.5))


def test_on_policy_steps_run(shards, taught, tmp_path):
    settings = DistillSettings(teacher=str(taught), steps=2, batch_size=4, on_policy=0.5, max_tokens=12)
    assert np.isfinite(distill.train(shards, tmp_path, student=TINY, settings=settings).metrics["trace_kd"])


def widened(folder, target, *, rows=64, **config):
    """The student with more rows in its tables than its tokenizer has tokens, each likelier than any token."""
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    lm.resize_token_embeddings(len(tokenizer) + rows)
    with torch.no_grad():
        lm.get_input_embeddings().weight[len(tokenizer) :] *= 9
    for name, value in config.items():
        setattr(lm.config, name, value)
    lm.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return str(target)


def test_rows_that_pad_a_vocabulary_are_no_tokens(shards, student, taught, tmp_path):
    """Models of one family, such as Qwen2.5 of 0.5 B and 7 B, pad their tables to sizes of their own."""
    wide = widened(taught, tmp_path / "wide")
    settings = DistillSettings(teacher=wide, steps=2, batch_size=4, on_policy=0.5, max_tokens=12)
    done = distill.train(shards, tmp_path / "narrow from wide", student=student, settings=settings)
    assert np.isfinite(done.metrics["trace_kd"])
    padded = student.model_copy(update={"model": wide})
    grpo.train(shards, tmp_path / "wide", student=padded, settings=FEW.model_copy(update={"balance": "none"}))


def test_a_teacher_of_a_shorter_context_is_refused_with_the_length_that_does(shards, student, taught, tmp_path):
    short = widened(taught, tmp_path / "short", rows=0, max_position_embeddings=20)
    settings = DistillSettings(teacher=short, steps=1, batch_size=4)
    with pytest.raises(PiarError, match="reads 20 tokens") as refused:
        distill.train(shards, tmp_path / "out", student=student, settings=settings)
    assert "max_length=20" in refused.value.fix


def test_what_a_teacher_said_of_other_tokens_is_not_read_again(shards, taught, tmp_path):
    settings = DistillSettings(teacher=str(taught), steps=1, batch_size=4)
    distill.train(shards, tmp_path / "out", student=TINY, settings=settings)
    (tmp_path / "out" / "final").rename(tmp_path / "first")
    other = widened(taught, tmp_path / "other", rows=0)
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}\n")
    distill.train(shards, tmp_path / "out", student=TINY.model_copy(update={"model": other}), settings=settings)
    assert len(list((tmp_path / "out").glob("teacher-cache-*"))) == 2


def test_a_teacher_with_another_vocabulary_is_refused(shards, taught, tmp_path):
    settings = SftSettings(steps=1, batch_size=4)
    other = sft.train(
        shards, tmp_path / "other", student=TINY.model_copy(update={"vocab_size": 300}), settings=settings
    )
    student = TINY.model_copy(update={"model": str(other.checkpoint)})
    with pytest.raises(PiarError, match="do not share a vocabulary"):
        distill.train(shards, tmp_path / "out", student=student, settings=DistillSettings(teacher=str(taught), steps=1))


@pytest.mark.exact
def test_the_classifier_gives_the_students_probabilities(taught, tmp_path, capsys):
    assert export(taught, tmp_path / "classifier", licence="Apache-2.0").largest_difference < 1e-5
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    judge = Student.load(taught)
    fields = {"query": "red lamp", "title": "blue lamp number 4"}
    [ids] = judge.prompts([fields])
    probs = classifier(input_ids=torch.tensor([ids])).logits[0].softmax(-1)
    assert probs.tolist() == pytest.approx(judge.score([fields])[0].raw, abs=1e-5)
    assert classifier.config.id2label == {0: "0", 1: "1", 2: "2"}
    card = (tmp_path / "classifier" / "README.md").read_text()
    assert "simulated data" in card
    assert judge.card.rows["dev"] == 20
    value, low, high = (judge.card.metrics[f"dev/accuracy{end}"] for end in ("", "_low", "_high"))
    assert f"| dev/accuracy | {value:.4f} | {low:.4f} – {high:.4f} |" in card
    assert "MISSING" not in "".join(capsys.readouterr())
    for said in ("Licence: Apache-2.0.", "dev ", "Splits are by `query`", "Ceiling", "unknown: the project"):
        assert said in card
    with pytest.raises(PiarError, match="exists"):
        export(taught, tmp_path / "classifier")


def test_what_cannot_be_written_is_not_called_a_full_disk(taught, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PiarError, match="Could not write into") as refused:
        export(taught, tmp_path / "file" / "deep" / "classifier")
    assert refused.value.fix.startswith("Name a folder that can be written")


def test_a_calibrated_students_card_says_what_its_weights_do_not_do(taught, tmp_path):
    own = shutil.copytree(taught, tmp_path / "final")
    keep_calibration(own, Calibration(strategy="bias", temperature=1.5, bias=(0.25, 0.0, -2.0), rows=90, groups=12))
    assert export(own, tmp_path / "classifier").largest_difference < 1e-5
    card = " ".join((tmp_path / "classifier" / "README.md").read_text().split())
    assert "fitted on 90 rows in 12 groups" in card
    assert "divided by 1.5, plus +0.25, +0, -2, normalised" in card
    ruled = model_card(read_card(taught).model_copy(update={"rule": DecisionRule(name="expected", metric="qwk")}))
    assert "Decision rule: piar gives not the likeliest grade but the level nearest to the mean" in ruled
    assert "Calibration" not in model_card(read_card(taught).model_copy(update={"calibration": None}))


# --- several processes ---------------------------------------------------------------------------

WORKER = """
import os, signal, sys
from pathlib import Path
from trainers import distill, sft
from trainers.checkpoint import keep_calibration, read_card
from trainers.config import DistillSettings, SftSettings, StudentSettings
from trainers.loop import Run
shards, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
student = StudentSettings(hidden=64, layers=2, vocab_size=400, shard=mode == "shard")
more = dict(steps=4, batch_size=7, log_every=1)
stops = {"signal": "1", "grow": None}
if mode in stops and os.environ.get("RANK") == stops[mode] and not out.exists():
    def update(self, *args, whole=Run.update, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        whole(self, *args, **kwargs)
    Run.update = update
if mode == "distill":
    distill.train(shards, out, student=student, settings=DistillSettings(**more), resume=True)
else:
    sft.train(shards, out, student=student, settings=SftSettings(**more), resume=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["shard", "distill", "signal", "grow"])
def test_two_processes_have_the_losses_of_one(shards, tmp_path, mode):
    """Also when one of them is told to stop (both end after the same step), or when they go on where one stopped."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [sys.executable, str(script), str(shards)]
    subprocess.run([*alone, str(one), mode if mode in ("shard", "distill") else "repeat"], check=True, env=environment)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    together = [*torchrun, str(shards)]
    if mode in ("signal", "grow"):
        subprocess.run([*(together if mode == "signal" else alone), str(two), mode], check=True, env=environment)
        assert [path.name for path in two.glob("*-*")] == ["checkpoint-1"]
    subprocess.run([*together, str(two), mode], check=True, env=environment)
    a, b = ([json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (one, two))
    for x, y in zip(a[:4], b[:4], strict=True):
        assert (x["loss"], x["grad_norm"]) == pytest.approx((y["loss"], y["grad_norm"]), rel=1e-4)
    a, b = (AutoModelForCausalLM.from_pretrained(f / "final").state_dict() for f in (one, two))
    assert all(torch.allclose(a[name], b[name], atol=2e-4) for name in a)
