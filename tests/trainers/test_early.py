"""Early stopping: the best weights by dev are kept, also over a stop and a resume; never by another split."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from piar.cli import main
from store.errors import UsageError
from tests.documents import check
from tests.shards_fixture import write_shards
from trainers import checkpoint, sft
from trainers.config import SftSettings, StudentSettings
from trainers.loop import Run
from trainers.scoring import Student

TINY = StudentSettings(hidden=64, layers=1, vocab_size=300)
SETTINGS = SftSettings(
    steps=8, batch_size=4, log_every=1, eval_every=1, save_every=1, keep=9, patience=2, words_first=0
)
LOSSES = {1: 1.0, 2: 0.5, 3: math.nan, 4: 0.7}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 40, held_out=8)
    return folder


@pytest.fixture
def told(monkeypatch):
    """What each step's look at dev finds."""
    losses = dict(LOSSES)
    monkeypatch.setattr(Run, "evaluate", lambda self: {"dev/nll": losses.get(self.step, 2.0)})
    return losses


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("lora", [0, 4])
def test_the_best_weights_are_kept_and_two_looks_without_better_ones_end_the_run(shards, tmp_path, told, capsys, lora):
    done = sft.train(shards, tmp_path / "run", student=TINY.model_copy(update={"lora": lora}), settings=SETTINGS)
    assert (done.steps, done.kept, done.stopped) == (4, 2, False)
    assert same(weights(done.checkpoint), weights(tmp_path / "run" / "checkpoint-2"))
    assert not same(weights(done.checkpoint), weights(tmp_path / "run" / "checkpoint-4"))
    said = capsys.readouterr().err
    assert (
        "ends at step 4 of 8, since 2 looks at dev found nothing better; keeps step 2, whose loss on dev was 0.500"
        in said
    )
    assert not (tmp_path / "run" / "best.pt").exists()


def test_a_run_that_becomes_better_to_the_end_keeps_its_end(shards, tmp_path, told):
    told.update({step: 1 / step for step in range(1, 9)})
    done = sft.train(shards, tmp_path / "run", student=TINY, settings=SETTINGS)
    assert (done.steps, done.kept) == (8, 8)


@pytest.mark.parametrize("until", [1, 2, 3])
def test_a_resumed_run_knows_its_best_step(shards, tmp_path, told, monkeypatch, until):
    whole = sft.train(shards, tmp_path / "whole", student=TINY, settings=SETTINGS)
    update = Run.update

    def stopping(self, *args, **kwargs):
        update(self, *args, **kwargs)
        self.stopped = self.step == until

    monkeypatch.setattr(Run, "update", stopping)
    assert sft.train(shards, tmp_path / "parts", student=TINY, settings=SETTINGS).steps == until
    done = sft.train(shards, tmp_path / "parts", student=TINY, settings=SETTINGS, resume=True)
    assert (done.steps, done.kept) == (whole.steps, whole.kept)
    assert same(weights(done.checkpoint), weights(whole.checkpoint))


def test_a_run_looks_ten_times_where_nothing_is_set(shards, tmp_path):
    settings = SETTINGS.model_copy(update={"eval_every": 0, "steps": 20, "patience": 20, "save_every": 0})
    done = sft.train(shards, tmp_path / "run", student=TINY, settings=settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["dev/nll"] for line in lines if "dev/nll" in line}
    assert list(losses) == list(range(2, 21, 2))
    card = Student.load(done.checkpoint).card
    assert card.metrics["dev/nll"] == pytest.approx(min(losses.values()), abs=1e-4)
    assert card.metrics["dev/nll_low"] < card.metrics["dev/nll"] < card.metrics["dev/nll_high"]


def test_a_run_begun_before_patience_was_a_setting_goes_on(shards, tmp_path, monkeypatch):
    settings = SETTINGS.model_copy(update={"patience": 0, "steps": 3})
    update, load = Run.update, checkpoint.load_state

    def stopping(self, *args, **kwargs):
        update(self, *args, **kwargs)
        self.stopped = self.step == 1

    def older(folder):
        state = load(folder)
        del state["settings"]["patience"], state["best"]
        return state

    monkeypatch.setattr(Run, "update", stopping)
    monkeypatch.setattr(checkpoint, "load_state", older)
    sft.train(shards, tmp_path / "run", student=TINY, settings=settings)
    assert sft.train(shards, tmp_path / "run", student=TINY, settings=settings, resume=True).steps == 3


def test_only_dev_decides(tmp_path):
    write_shards(tmp_path / "shards", 20, held_out=0)
    with pytest.raises(UsageError, match="needs rows of dev"):
        sft.train(tmp_path / "shards", tmp_path / "run", student=TINY, settings=SETTINGS)


def test_the_command_line_says_which_step_was_kept(shards, tmp_path, told, capsys):
    line = ["train", "sft", str(shards), "-o", str(tmp_path / "run"), "--json"]
    for setting in ("patience=2", "eval_every=1", "steps=8", "batch_size=4", "words_first=0"):
        line += ["--set", f"train.sft.{setting}"]
    for setting in ("hidden=64", "layers=1", "vocab_size=300"):
        line += ["--set", f"student.{setting}"]
    assert main(line) == 0
    document = json.loads(capsys.readouterr().out)
    check("train sft", document)
    assert (document["steps"], document["kept"]) == (4, 2)
