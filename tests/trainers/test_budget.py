"""What a run takes is told before it starts, and refused where it cannot be had."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from store.errors import PiarError
from tests.shards_fixture import write_shards
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_model import make_tiny_model
from trainers import budget, distill, grpo, sft
from trainers.budget import Forecast, Needs, mends, needs, warning
from trainers.config import DistillSettings, EncoderSettings, GrpoSettings, SftSettings, StudentSettings
from trainers.encoder import train as train_encoder
from trainers.layout import Item
from trainers.loading import load_policy, wrap
from trainers.logs import progress
from trainers.tiny import tiny_model
from trainers.weights import add_lora

CPU = torch.device("cpu")
FEW = SftSettings(steps=4, batch_size=4, log_every=1, words_first=0)
TINY = StudentSettings(hidden=64, layers=1, vocab_size=300)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 20, held_out=4)
    return folder


def of(lm, **more):
    usual = {"tokens": 128, "rows": 1, "precision": "fp32", "recomputed": False, "device": CPU}
    return needs(lm, **usual | more)


def saved(policy, tokens):
    """Bytes that autograd keeps of a pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy(policy.pack([Item(tokens, [[4]])]), lambda hidden, head: hidden.sum())
    return sum(storage.nbytes() for at, storage in kept.items() if at not in own)


@pytest.mark.parametrize("lora", [0, 4])
def test_activations_are_about_what_autograd_keeps(lora):
    lm = tiny_model(60, hidden=128, layers=4)
    policy = wrap(lm)
    if lora:
        add_lora(lm, lora)
    ids = torch.randint(3, 60, (256,)).tolist()
    assert saved(policy.train(), ids) == pytest.approx(of(lm, tokens=256).activations, rel=0.35)


def test_gradients_and_moments_are_three_numbers_of_each_that_learns():
    lm = tiny_model(60, hidden=64, layers=2)
    whole = sum(p.numel() for p in lm.parameters())
    assert of(lm).learning == 12 * whole
    assert of(lm, world=4).learning == 3 * whole
    add_lora(lm, 4)
    assert of(lm).learning == 12 * sum(p.numel() for p in lm.parameters() if p.requires_grad) < 12 * whole


def test_what_a_setting_saves_is_what_a_run_with_it_takes():
    full, adapted = (tiny_model(60, hidden=128, layers=4) for _ in range(2))
    lower = dict(mends(of(full), full, lora=0, recomputed=False, precision="fp32"))
    add_lora(adapted, 16)
    assert lower["student.lora=16"].learning == pytest.approx(of(adapted).learning, rel=0.1)
    assert lower["student.checkpointing=true"].activations == of(full, recomputed=True).activations
    assert [words for words, _ in mends(of(full), full, lora=16, recomputed=True, precision="fp32")] == []


def test_too_little_memory_is_a_warning_or_an_error_with_settings_that_fit():
    found = Needs(held=10**9, learning=4 * 10**9, activations=10**9, logits=0)
    lower = [("student.lora=16", replace(found, learning=10**7)), ("student.checkpointing=true", found)]
    assert warning(found, lower, None) is warning(found, lower, 10**10) is None
    words = warning(found, lower, 45 * 10**8)
    assert "about 5,000 MB more, and 4,500 MB of memory are free" in words
    assert "Set student.lora=16 (2,010 MB)." in words
    with pytest.raises(PiarError, match="takes about 5,000 MB more") as refused:
        warning(found, lower, 3 * 10**9)
    assert refused.value.fix == "Set student.lora=16 (2,010 MB)."
    with pytest.raises(PiarError) as refused:
        warning(found, lower, 10**6)
    assert "smaller model" in refused.value.fix


def test_weights_that_do_not_fit_are_not_loaded(tmp_path, monkeypatch):
    folder = make_tiny_model(tmp_path / "model", width=64, layers=1)
    monkeypatch.setattr(budget, "available", lambda device: 100_000)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(PiarError, match="MB in float32; 0 MB of memory are free"):
        load_policy(str(folder))


def test_a_run_without_memory_does_not_start(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "available", lambda device: 1000)
    with pytest.raises(PiarError, match="0 MB of memory are free"):
        sft.train(shards, tmp_path / "run", student=TINY, settings=FEW)


def test_an_encoder_that_is_too_large_to_learn_says_how_it_serves_as_it_is(shards, tmp_path, monkeypatch):
    folder = make_tiny_encoder(tmp_path / "e", pooling="mean")
    settings = EncoderSettings(model=str(folder))
    weights = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    monkeypatch.setattr(budget, "available", lambda device: 11 * weights)
    with pytest.raises(PiarError, match="MB of memory are free") as refused:
        train_encoder(shards, tmp_path / "run", settings=settings)
    assert "train.encoder.epochs=0" in refused.value.fix
    assert train_encoder(shards, tmp_path / "run", settings=settings.model_copy(update={"epochs": 0})).steps == 0


def test_a_run_tells_its_memory_and_time_before_and_after(shards, tmp_path, capsys):
    sft.train(shards, tmp_path / "run", student=TINY, settings=FEW.model_copy(update={"words_first": 1.0}))
    said = capsys.readouterr().err
    assert re.search(r"sft: up to [\d,]+ MB \(weights and libraries [\d,]+, gradients and optimizer \d, ", said)
    assert re.search(r"sft: about \S+ s for 4 steps of shared words, by the second one \([\d.]+ s\)", said)
    assert re.search(r"4 steps took \S+ s with measuring \(\S+ s foreseen\); peak [\d,]+ MB \([\d,]+ for", said)


def test_rollouts_count_as_many_tokens_as_there_will_be(shards, tmp_path, monkeypatch):
    first = sft.train(shards, tmp_path / "first", student=TINY, settings=FEW).checkpoint
    student, asked = TINY.model_copy(update={"model": str(first)}), []
    monkeypatch.setattr(budget, "needs", lambda lm, **how: asked.append(how["tokens"]) or Needs(0, 0, 0, 0))
    few = GrpoSettings(steps=1, batch_size=2, rollouts=2, max_tokens=8, mu=0.0)
    grpo.train(shards, tmp_path / "few", student=student, settings=few)
    longest = asked[0] - 2 * 2 * 8
    assert 0 < longest < 2 * 200
    many = few.model_copy(update={"pack_tokens": asked[0] - 1})
    grpo.train(shards, tmp_path / "many", student=student, settings=many)
    assert asked[1] == asked[0] - 1


@pytest.mark.parametrize("kind", ["distill", "grpo"])
def test_a_second_model_in_memory_is_foreseen(shards, tmp_path, monkeypatch, capsys, kind):
    first = sft.train(shards, tmp_path / "first", student=TINY, settings=FEW).checkpoint
    loaded = []
    real = load_policy
    for module in ("distill", "weights"):
        load = lambda *args, **more: loaded.append(1) or real(*args, **more)  # noqa: E731
        monkeypatch.setattr(f"trainers.{module}.load_policy", load)
    monkeypatch.setattr(budget, "held", lambda device: len(loaded) * 10**9)
    student = TINY.model_copy(update={"model": str(first)})
    if kind == "distill":
        distill.train(
            shards,
            tmp_path / kind,
            student=student,
            settings=DistillSettings(steps=1, batch_size=2, teacher=str(first)),
        )
    else:
        settings = GrpoSettings(steps=1, batch_size=2, rollouts=2, max_tokens=4, kl=0.1)
        grpo.train(shards, tmp_path / kind, student=student, settings=settings)
    assert f"{kind}: up to 2,0" in capsys.readouterr().err


def test_time_is_foreseen_by_the_second_step_alone():
    forecast = Forecast(Needs(0, 0, 0, 0), 10)
    assert forecast.after_step(60.0) is None
    assert "for 10 steps, by the second one (2.00 s)" in str(forecast.after_step(2.0))
    assert forecast.seconds == pytest.approx(16, abs=1)
    assert forecast.after_step(9.0) is None


def test_what_is_taught_later_is_foreseen_when_it_begins(shards, tmp_path, capsys):
    settings = FEW.model_copy(update={"steps": 16, "words_first": 0.25, "grade_first": 0.25})
    sft.train(shards, tmp_path / "run", student=TINY, settings=settings)
    foreseen = re.findall(r"for (\d+) steps of (.+), by the second one", capsys.readouterr().err)
    assert foreseen == [("4", "shared words"), ("4", "the grade alone"), ("8", "grade and trace")]


def test_the_time_left_goes_by_the_steps_of_late(monkeypatch, capsys):
    now = iter([0.0, *(float(second) for second in range(1, 9)), *(float(10 * ten) for ten in range(2, 11))])
    monkeypatch.setattr("trainers.logs.time.monotonic", lambda: next(now))
    with progress("sft", 0, 18) as show:
        for step in range(1, 18):  # eight steps of a second, then nine of ten seconds
            show(step, {})
    assert "sft 17 of 18 · 2 min · 10 s left" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("limit", "free"), [("max\n", 8192), ("5000\n", 1300)])
def test_a_containers_limit_counts(monkeypatch, limit, free):
    files = {
        "/proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 8 kB\n", "/sys/fs/cgroup/memory.max": limit,
        "/sys/fs/cgroup/memory.current": "4000\n", "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 300\n",
    }  # fmt: skip
    monkeypatch.setattr(budget.Path, "read_text", lambda self, encoding=None: files[str(self)])
    assert budget.available(CPU) == free
