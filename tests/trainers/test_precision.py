"""Which numbers a run computes in: forced by the switch, chosen by machine and width, kept by a resume."""

import re

import pytest
import torch

from store.errors import UsageError
from tests.shards_fixture import write_shards
from trainers import distill, precision, sft
from trainers.config import DistillSettings, SftSettings, StudentSettings
from trainers.logs import progress
from trainers.loop import Run
from trainers.scoring import Student
from trainers.tiny import tiny_model

TINY = StudentSettings(hidden=64, layers=1, vocab_size=400)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 40, held_out=8)
    return folder


@pytest.mark.parametrize(("fast", "width", "name"), [(True, 64, "fp32"), (True, 512, "bf16"), (False, 512, "fp32")])
def test_left_to_itself_it_takes_what_is_faster_for_this_model_here(monkeypatch, fast, width, name):
    monkeypatch.delenv(precision.SWITCH)
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: fast)
    chosen = precision.for_training("auto", tiny_model(300, hidden=width, layers=1), CPU)
    assert chosen.name == name
    assert chosen.why
    assert precision.for_training("fp32", tiny_model(300, hidden=width, layers=1), CPU) == ("fp32", "as set")


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_the_switch_stands_above_the_settings(monkeypatch, name):
    monkeypatch.setenv(precision.SWITCH, name)
    for asked in ("auto", "fp32", "bf16"):
        assert precision.for_training(asked, tiny_model(300, hidden=64, layers=1), CPU).name == name


def test_a_wrong_switch_is_named(monkeypatch, shards, tmp_path):
    monkeypatch.setenv(precision.SWITCH, "fp16")
    with pytest.raises(UsageError, match="PIAR_PRECISION is 'fp16'"):
        sft.train(shards, tmp_path, student=TINY)


def test_a_resume_goes_on_in_the_numbers_it_began_with(monkeypatch, shards, tmp_path):
    monkeypatch.delenv(precision.SWITCH)
    wide = StudentSettings(hidden=64 * 8, layers=1, vocab_size=400)
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: True)
    run = Run("sft", shards, tmp_path, wide, SftSettings(steps=2, batch_size=4))
    assert run.precision.name == "bf16"
    run.save()
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: False)
    assert Run("sft", shards, tmp_path, wide, SftSettings(steps=2, batch_size=4), resume=True).precision.name == "bf16"


def test_a_teachers_cache_is_learned_from_in_bf16(monkeypatch, shards, tmp_path):
    monkeypatch.setenv(precision.SWITCH, "bf16")
    taught = sft.train(shards, tmp_path / "sft", student=TINY, settings=SftSettings(steps=2, batch_size=4)).checkpoint
    settings = DistillSettings(teacher=str(taught), steps=2, batch_size=4)
    done = distill.train(shards, tmp_path / "distill", student=TINY, settings=settings)
    assert done.metrics["trace_kd"] > 0
    assert Student.load(done.checkpoint).policy.lm.dtype == torch.bfloat16
    monkeypatch.setenv(precision.SWITCH, "fp32")
    assert Student.load(done.checkpoint).policy.lm.dtype == torch.float32


def test_a_log_file_hears_of_a_long_run_now_and_then(monkeypatch, capsys):
    moment = iter([100.0, 101.0, 110.0, 112.0, 160.0])
    monkeypatch.setattr("trainers.logs.time.monotonic", lambda: next(moment))
    with progress("sft", 50, 150) as show:
        for step in (51, 60, 61, 110):
            show(step, {"loss": 0.5, "tokens_per_second": 6000.0, "memory_mb": 992.0})
    assert capsys.readouterr().err.splitlines() == [
        "sft 60 of 150 · 10 s · 2 min left · loss 0.500 · 6,000 tok/s · 992 MB",
        "sft 110 of 150 · 60 s · 40 s left · loss 0.500 · 6,000 tok/s · 992 MB",
    ]


def test_a_run_says_its_numbers_and_why(shards, tmp_path, capsys):
    done = sft.train(shards, tmp_path, student=TINY, settings=SftSettings(steps=1, batch_size=4))
    said = f"sft: 1 step in {done.precision} (PIAR_PRECISION says so)"
    assert said in capsys.readouterr().err.splitlines()


def test_the_last_measuring_is_told_too(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trainers.logs.pause", lambda elapsed: 0.0)
    monkeypatch.setattr("trainers.scoring.BATCH_TOKENS", 1)
    sft.train(shards, tmp_path, student=TINY, settings=SftSettings(steps=1, batch_size=4))
    measuring = [line for line in capsys.readouterr().err.splitlines() if line.startswith("measuring")]
    assert measuring
    assert re.fullmatch(r"measuring \w+ \d+ of 8 · \d+ s · \d+ s left", measuring[0])
