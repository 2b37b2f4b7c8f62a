"""SFT: the loss, the update whatever the cut, exact resume, checkpoints under faults, the sampler."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from piar.cli import main
from store.errors import PiarError
from store.manifest import Schedule, Stage, mixture_at
from tests import ROOT
from tests.shards_fixture import TASK, write_shards
from trainers import checkpoint, sft
from trainers.config import SftSettings, StudentSettings
from trainers.data import Sampler, micro_batches, read_corpus
from trainers.layout import Item, labels
from trainers.loop import Run
from trainers.model import EVERY
from trainers.scoring import Student
from trainers.tiny import tiny_tokenizer

pytestmark = pytest.mark.precision
TINY = StudentSettings(hidden=64, layers=2, vocab_size=400)
SHORT = SftSettings(steps=6, batch_size=8, log_every=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 80, held_out=20, rubric="Grade how well the title fits. R01: another kind is bad.")
    return folder


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def budget(batch, parts):
    """`pack_tokens` that cut a batch into so many parts."""
    items = [e.item for e in batch]
    return next(n for n in range(8, 10_000, 4) if len(micro_batches(items, n, EVERY)) == parts)


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.exact
def test_the_loss_is_what_ten_naive_lines_say(shards, tmp_path):
    settings = SftSettings(soft_grades=0.3, grade_weight=0.5)
    run = Run("sft", shards, tmp_path, TINY, settings)
    batch = run.draw()[:6]
    grade, trace, _ = sft.sft_step(run, batch, settings)
    run.policy.lm.set_attn_implementation("sdpa")
    naive_grade, naive_trace = [], []
    for e in batch:
        logits = run.policy.lm(input_ids=torch.tensor([[*e.prompt, *e.completion]])).logits[0].log_softmax(-1)
        steps = [logits[len(e.prompt) + i - 1, token] for i, token in enumerate(e.completion)]
        soft = sum(p * logits[len(e.prompt) - 1, g] for p, g in zip(e.probs, run.grade_ids, strict=True))
        naive_grade.append(-(0.7 * steps[0] + 0.3 * soft))
        naive_trace += [-s for s in steps[1:]]
    assert grade == pytest.approx(0.5 * torch.stack(naive_grade).mean().item(), rel=1e-5)
    assert trace == pytest.approx(0.5 * torch.stack(naive_trace).mean().item(), rel=1e-5)


def test_the_end_behind_a_lone_grade_does_not_outweigh_it(shards, tmp_path):
    """A pretrained model may end its turns otherwise: unlearning that must not drown what the grade teaches."""
    settings = SftSettings(completion="grade")
    run = Run("sft", shards, tmp_path, TINY, settings, completion="grade")
    batch = run.draw()[:6]
    _, ending, _ = sft.sft_step(run, batch, settings)
    run.policy.lm.set_attn_implementation("sdpa")
    naive = []
    for e in batch:
        logits = run.policy.lm(input_ids=torch.tensor([[*e.prompt, *e.completion]])).logits[0].log_softmax(-1)
        naive.append(-logits[len(e.prompt), e.completion[1]])
    assert [len(e.completion) for e in batch] == [2] * 6
    assert ending == pytest.approx(0.05 * torch.stack(naive).mean().item(), rel=1e-2)


@pytest.mark.exact
@pytest.mark.parametrize("step", ["words", "traces"])
def test_one_two_or_eight_parts_of_a_batch_give_the_same_update(shards, tmp_path, step):
    run, updates = Run("sft", shards, tmp_path, TINY, SHORT), []
    batch, start = run.draw(), {k: v.clone() for k, v in run.policy.state_dict().items()}
    take = {"words": lambda: sft.words_step(run, batch), "traces": lambda: sft.sft_step(run, batch, SHORT)[:2]}[step]
    for parts in (1, 2, 8):
        run.settings = SHORT.model_copy(update={"pack_tokens": budget(batch, parts)})
        assert len(run.parts(batch)) == parts
        run.policy.load_state_dict(start)
        loss, optimizer = take(), torch.optim.SGD(run.policy.parameters(), lr=1.0)
        optimizer.step()
        optimizer.zero_grad()
        moved = torch.cat([(v - start[k]).flatten() for k, v in run.policy.state_dict().items()])
        updates.append((moved, loss))
    (once, loss), *others = updates
    for moved, same_loss in others:
        assert ((moved - once).norm() / once.norm()).item() < 1e-5
        assert same_loss[0] == pytest.approx(loss[0], rel=1e-5)


def test_twenty_steps_are_ten_and_ten_bit_for_bit(shards, tmp_path, monkeypatch):
    """Stopped in each lesson (words, grades, traces), at an epoch's end (80 rows, 8 a step), in each stage."""
    settings = SftSettings(steps=20, batch_size=8, log_every=1, save_every=7)
    whole = sft.train(shards, tmp_path / "whole", student=TINY, settings=settings)
    update = Run.update

    def stopping(self, *args, **kwargs):
        update(self, *args, **kwargs)
        self.stopped = self.step in (2, 6, 10, 15)

    monkeypatch.setattr(Run, "update", stopping)
    parts = tmp_path / "parts"
    first = sft.train(shards, parts, student=TINY, settings=settings)
    assert (first.stopped, first.steps, first.checkpoint.name) == (True, 2, "checkpoint-2")
    for steps in (6, 10, 15):
        assert sft.train(shards, parts, student=TINY, settings=settings, resume=True).steps == steps
    last = sft.train(shards, parts, student=TINY, settings=settings, resume=True)
    assert same(weights(whole.checkpoint), weights(last.checkpoint))
    assert [r["loss"] for r in records(tmp_path / "whole")] == [r["loss"] for r in records(parts)]
    assert [r["step"] for r in records(parts)][:20] == list(range(1, 21))


def test_lora_trains_few_weights_resumes_exactly_and_leaves_a_plain_folder(shards, tmp_path, monkeypatch):
    base = sft.train(shards, tmp_path / "base", student=TINY, settings=SHORT).checkpoint
    student = StudentSettings(model=str(base), lora=4, checkpointing=True)
    whole = sft.train(shards, tmp_path / "whole", student=student, settings=SHORT)
    update = Run.update

    def stopping(self, *args, **kwargs):
        update(self, *args, **kwargs)
        self.stopped = self.step == 3

    monkeypatch.setattr(Run, "update", stopping)
    sft.train(shards, tmp_path / "parts", student=student, settings=SHORT)
    last = sft.train(shards, tmp_path / "parts", student=student, settings=SHORT, resume=True)
    assert same(weights(whole.checkpoint), weights(last.checkpoint))
    assert set(weights(base)) == set(weights(last.checkpoint))
    assert not same(weights(base), weights(last.checkpoint))
    run = Run("sft", shards, tmp_path / "other", student, SHORT)
    assert sum(p.numel() for p in run.policy.parameters() if p.requires_grad) < 0.2 * sum(
        p.numel() for p in run.policy.parameters()
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [({"settings": {"learning_rate": 0.5}}, "learning_rate = .*, now 0.5"),
     ({"student": {"hidden": 128}}, "student.hidden = .*, now 128"),
     ({"shards": 81}, "shards changed")],
)  # fmt: skip
def test_a_resume_with_something_else_is_refused(tmp_path, change, says):
    shards, out = tmp_path / "shards", tmp_path / "out"
    write_shards(shards, 40)
    settings = SHORT.model_copy(update={"steps": 3, "save_every": 2})
    sft.train(shards, out, student=TINY, settings=settings)
    for resume in (False, True):
        with pytest.raises(PiarError, match="holds a finished run"):
            sft.train(shards, out, student=TINY, settings=settings, resume=resume)
    shutil.rmtree(out / "final")
    with pytest.raises(PiarError, match="already holds a run"):
        sft.train(shards, out, student=TINY, settings=settings)
    if "shards" in change:
        write_shards(shards, change["shards"])
    with pytest.raises(PiarError, match=says):
        sft.train(shards, out, student=TINY.model_copy(update=change.get("student", {})), resume=True,
                  settings=settings.model_copy(update=change.get("settings", {})))  # fmt: skip


def test_an_altered_shard_is_refused(tmp_path):
    write_shards(tmp_path, 40)
    path = tmp_path / "train" / "mid-00000.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PiarError, match="altered or truncated"):
        sft.train(tmp_path, tmp_path / "out", student=TINY, settings=SHORT)


def test_rows_that_are_too_long_are_counted_and_all_of_them_are_an_error(shards, tmp_path):
    tokenizer = tiny_tokenizer(["a lamp"], TASK.symbols, 300)
    middle = int(
        np.median([len(e.prompt) + len(e.completion) for e in read_corpus(shards, tokenizer, max_length=9999).train])
    )
    found = read_corpus(shards, tokenizer, max_length=middle)
    assert len(found.train) + len(found.evaluation["dev"]) + found.left_out[f"longer than {middle} tokens"] == 100
    assert 10 < len(found.train) < 75
    with pytest.raises(PiarError, match="No training row can be used: 80 longer than 8 tokens"):
        sft.train(shards, tmp_path / "b", student=TINY, settings=SHORT.model_copy(update={"max_length": 8}))


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_harms(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "sft_loss", lambda out, *a, **k: (out.logp.sum() * torch.nan, out.logp.sum()))
    with pytest.raises(PiarError, match="gradient of step 1 is nan"):
        sft.train(shards, tmp_path, student=TINY, settings=SHORT.model_copy(update={"words_first": 0.0}))


def test_a_full_disk_leaves_earlier_checkpoints_whole(shards, tmp_path, monkeypatch):
    settings = SHORT.model_copy(update={"save_every": 2})
    real = torch.save

    def full(state, path):
        if state["step"] == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(PiarError, match="the disk is full"):
        sft.train(shards, tmp_path, student=TINY, settings=settings)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["checkpoint-2"]
    monkeypatch.undo()
    assert sft.train(shards, tmp_path, student=TINY, settings=settings, resume=True).steps == 6


@pytest.mark.parametrize("most", [50_000, 1_000_000])
def test_weights_or_state_that_the_file_system_refuses_leave_nothing_behind(shards, tmp_path, most):
    """As real as a full disk: every file may grow to `most` bytes, then the system refuses."""
    run = Run("sft", shards, tmp_path, TINY, SHORT)
    run.extra = {"more": torch.zeros(10**6)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(PiarError, match=r"Could not write into .*Nothing that was whole is harmed"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_logged_once_where_it_was_measured(shards, tmp_path):
    settings = SHORT.model_copy(update={"log_every": 2, "eval_every": 3, "words_first": 0.4, "grade_first": 0.0})
    done = sft.train(shards, tmp_path, student=TINY, settings=settings)
    found = records(tmp_path)
    assert [r["step"] for r in found] == [2, 3, 4, 6]
    assert [r["step"] for r in found if "dev/accuracy" in r] == [3, 6]
    assert [r["step"] for r in found if "words_loss" in r] == [2, 3]
    assert [r["step"] for r in found if "trace_loss" in r] == [4, 6]
    assert done.metrics["dev/accuracy"] == pytest.approx(found[-1]["dev/accuracy"], abs=1e-6)
    assert done.calibration.rows == checkpoint.read_card(done.checkpoint).rows["dev"]
    assert checkpoint.read_card(done.checkpoint).calibration == done.calibration.kept


def test_tensorboard_shows_every_logged_step(shards, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = SHORT.model_copy(update={"tensorboard": True, "words_first": 0.0})
    sft.train(shards, tmp_path, student=TINY, settings=settings)
    [path] = (tmp_path / "tensorboard").iterdir()
    shown = event_accumulator.EventAccumulator(str(path))
    shown.Reload()
    losses = {record["step"]: record["loss"] for record in records(tmp_path)}
    assert {event.step: event.value for event in shown.Scalars("loss")} == pytest.approx(losses, rel=1e-4)


def test_a_missing_tensorboard_is_said_before_anything_is_trained(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PiarError, match="TensorBoard is not installed"):
        sft.train(shards, tmp_path, student=TINY, settings=SHORT.model_copy(update={"tensorboard": True}))


def test_sigterm_saves_after_the_step_under_way(shards, tmp_path, monkeypatch):
    update = Run.update

    def killed(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        update(self, *args, **kwargs)

    monkeypatch.setattr(Run, "update", killed)
    done = sft.train(shards, tmp_path, student=TINY, settings=SHORT)
    assert (done.stopped, done.steps, done.checkpoint.name) == (True, 1, "checkpoint-1")
    checkpoint.check(done.checkpoint, hashes=True)


def test_what_was_learnt_outlives_a_signal_while_it_is_measured(shards, tmp_path, monkeypatch):
    whole = sft.train(shards, tmp_path / "whole", student=TINY, settings=SHORT)
    evaluate = Run.evaluate

    def killed(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "evaluate", killed)
        first = sft.train(shards, tmp_path / "parts", student=TINY, settings=SHORT)
    assert (first.stopped, first.steps) == (True, whole.steps)
    monkeypatch.setattr(Run, "update", lambda *_, **__: pytest.fail("a step is made again"))
    done = sft.train(shards, tmp_path / "parts", student=TINY, settings=SHORT, resume=True)
    assert (done.stopped, done.checkpoint.name) == (False, "final")
    assert done.metrics == {name: value for name, value in whole.metrics.items() if "/" in name}
    weights = [load_file(run.checkpoint / "model.safetensors") for run in (whole, done)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.integration
def test_sigterm_saves_and_exits_cleanly(shards, tmp_path):
    """A real process under `piar train sft`, in a folder whose own trainers/ would break it."""
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "__init__.py").write_text("raise RuntimeError('the wrong trainers')")
    sets = [f"--set={s}" for s in ("student.hidden=64", "student.layers=1", "student.vocab_size=400",
                                   "train.sft.steps=100000", "train.sft.log_every=1")]  # fmt: skip
    command = [sys.executable, "-m", "piar", "train", "sft", str(shards), "-o", "run", "--json", *sets]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        log = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while not log.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        answer = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 130
    checkpoint.check(Path(tmp_path / answer["checkpoint"]), hashes=True)
    assert answer["steps"] == records(tmp_path / "run")[-1]["step"]


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from safetensors.torch import load_file
from tests.shards_fixture import TASK
from trainers import checkpoint
from trainers.tiny import tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # the children are forks
tokenizer, lm = tiny_tokenizer(["a lamp"] * 9, TASK.symbols, 300), tiny_model(300, hidden=64, layers=1)
card, out, draw = checkpoint.StudentCard(task=TASK), Path(sys.argv[1]), random.Random(0)

def write(step):
    with torch.no_grad():
        for p in lm.parameters():
            p.fill_(step)
    checkpoint.save(out / f"checkpoint-{step % 3}", lm, tokenizer, card, {"step": step})

begun = time.monotonic()
write(0)
once = time.monotonic() - begun
for instant in range(20):
    child = os.fork()
    if child == 0:
        for step in range(1, 10_000):
            write(step)
    time.sleep(draw.uniform(0, 3 * once))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = checkpoint.latest(out)
    step = checkpoint.load_state(found)["step"]
    assert all((w == step).all() for w in load_file(found / "model.safetensors").values())
    for path in out.glob("checkpoint-*"):
        checkpoint.check(path, hashes=True)
print("20 kills")
"""


@pytest.mark.integration
def test_kill_at_any_instant_leaves_no_checkpoint_that_loads_wrong(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "20 kills\n"), done.stderr


def test_a_checkpoint_without_marker_is_passed_over(shards, tmp_path):
    sft.train(shards, tmp_path, student=TINY, settings=SHORT.model_copy(update={"save_every": 2}))
    assert checkpoint.latest(tmp_path).name == "checkpoint-4"
    (tmp_path / "checkpoint-4" / "COMPLETE").unlink()
    assert checkpoint.latest(tmp_path).name == "checkpoint-2"
    path = tmp_path / "checkpoint-2" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert checkpoint.latest(tmp_path) is None


# --- the sampler --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(shards):
    return read_corpus(shards, tiny_tokenizer(["a lamp"], TASK.symbols, 300), max_length=4096)


def with_schedule(corpus, schedule):
    manifest = corpus.manifest.model_copy(update={"schedule": schedule})
    return type(corpus)(**{**corpus.__dict__, "manifest": manifest})


@pytest.mark.parametrize("kind", ["stages", "gaussian", "natural"])
def test_draws_follow_the_schedule(corpus, kind):
    stages = (
        Stage(name="a", mixture={"mid": 0.8, "easy": 0.2}, share=0.6),
        Stage(name="b", mixture={"hard": 1.0}, share=0.4),
    )
    chosen = with_schedule(corpus, Schedule(kind=kind, stages=stages))
    total = 4000
    drawn = Sampler(chosen, total, seed=1).draw(total)
    sizes = {b: len(rows) for b, rows in chosen.buckets.items()}
    for low in range(0, total, 1000):
        counts = Counter(e.row["bucket"] for e in drawn[low : low + 1000])
        wanted = Counter()
        for draw in range(low, low + 1000):
            wanted.update(mixture_at(chosen.manifest.schedule, draw / total, sizes))
        assert all(abs(counts[b] - wanted[b]) < 35 for b in sizes), (low, counts, wanted)


def test_a_resume_without_a_run_begins_one_and_says_so(shards, tmp_path, capsys):
    settings = SftSettings(steps=2, batch_size=4, words_first=0)
    sft.train(shards, tmp_path / "typo", student=TINY, settings=settings, resume=True)
    assert "typo holds no whole checkpoint to go on from, so this run begins" in capsys.readouterr().err


def test_no_row_comes_twice_before_all_came_once_and_a_position_resumes(corpus):
    natural = with_schedule(corpus, Schedule(kind="natural"))
    n = len(corpus.train)
    drawn = Sampler(natural, 3 * n, seed=0).draw(3 * n)
    for bucket in corpus.buckets:
        ids = [e.row["sample_id"] + str(id(e)) for e in drawn if e.row["bucket"] == bucket]
        size = len(corpus.buckets[bucket])
        assert all(len(set(ids[i : i + size])) == size for i in range(0, len(ids) - size + 1, size))
    first, second = (Sampler(natural, 3 * n, seed=0) for _ in range(2))
    first.draw(50)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [id(e) for e in first.draw(70)] == [id(e) for e in second.draw(70)] == [id(e) for e in drawn[50:120]]
    with pytest.raises(PiarError, match="another order"):
        Sampler(natural, 3 * n, seed=1).load_state_dict(first.state_dict())


def test_shuffled_is_the_same_multiset_in_another_order(corpus):
    ordered, shuffled = (Sampler(corpus, 300, seed=0, order=o).draw(300) for o in ("curriculum", "shuffled"))
    assert Counter(map(id, ordered)) == Counter(map(id, shuffled))
    assert list(map(id, ordered)) != list(map(id, shuffled))


def test_micro_batches_hold_every_item_once_within_the_budget():
    rng = np.random.default_rng(0)
    items = [Item(list(range(50)) + rng.integers(0, 90, 5).tolist(), [[1] * int(n)]) for n in rng.integers(1, 30, 40)]
    groups = micro_batches(items, 200, EVERY)
    assert sorted(i for g in groups for i in g) == list(range(40))
    from trainers.layout import pack

    assert all(len(pack([items[i] for i in g]).tokens) <= 200 for g in groups)
    assert len(micro_batches(items, 200, 0)) > len(groups)
    rows = labels([pack([items[0]]), pack([items[1]])], torch.device("cpu"))
    assert rows.owner.unique().tolist() == [0, 1]


def test_it_learns_the_format_from_nothing(shards, tmp_path):
    settings = SftSettings(steps=40, batch_size=16, log_every=1, learning_rate=4e-3,
                           words_first=0, grade_first=0)  # fmt: skip
    done = sft.train(shards, tmp_path / "out", student=TINY, settings=settings)
    assert done.metrics["trace_loss"] < 0.35 * records(tmp_path / "out")[0]["trace_loss"]
    student = Student.load(done.checkpoint)
    scored = student.score([{"query": "red lamp", "title": "red lamp number 3"}])
    assert sum(scored[0].probs) == pytest.approx(1)
    assert student.card.simulated


def test_a_wrong_setting_is_named(capsys, tmp_path):
    assert main(["train", "sft", "nowhere", "-C", str(tmp_path), "--set", "train.sft.grade_weigth=1"]) == 2
    assert "train.sft.grade_weigth: unknown key" in capsys.readouterr().err
    assert main(["train", "sft", "nowhere", "-C", str(tmp_path)]) == 1
    assert "piar curriculum export" in capsys.readouterr().err
