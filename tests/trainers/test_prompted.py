"""A frozen language model as a student: what its states say under a fitted head, asked as any other student."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from piar.cli import main
from store.errors import PiarError, UsageError
from store.manifest import read_manifest
from tests.shards_fixture import TASK, write_shards
from tests.tiny_encoder import make_sentence_encoder, make_tiny_encoder
from tests.tiny_model import make_tiny_model
from trainers import distill, fitted
from trainers.checkpoint import check, keep_calibration, read_card, save
from trainers.config import DistillSettings, EncoderSettings
from trainers.data import read_rows
from trainers.embedding import Encoder
from trainers.encoder import train
from trainers.export import export
from trainers.fitted import HEAD
from trainers.folder import load_lm, load_tokenizer
from trainers.loading import load_policy, load_reader
from trainers.look_over import lower_layers, writes
from trainers.probe import pair_features
from trainers.prompted import Beside, Prompted
from trainers.session import TooLong
from trainers.students import load_student, session_of


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted")
    write_shards(folder / "shards", 240)
    model = make_tiny_model(folder / "model", width=64, layers=3)
    patch = pytest.MonkeyPatch()
    patch.setenv("PIAR_PRECISION", "fp32")
    yield folder, train(folder / "shards", folder / "run", settings=EncoderSettings(model=str(model)))
    patch.undo()


def dev_rows(folder):
    return read_rows(folder / "shards", read_manifest(folder / "shards"), "eval")["dev"]


def samples_of(rows):
    return [dict(zip(TASK.fields, row["fields"], strict=True)) for row in rows]


def test_it_beats_the_majority_without_a_step_and_keeps_two_thirds_of_the_layers(world):
    folder, done = world
    grades = [row["grade"] for row in dev_rows(folder)]
    assert done.metrics["dev/accuracy"] > max(map(grades.count, grades)) / len(grades) + 0.1
    assert done.steps == 0
    assert (read_card(done.checkpoint).kind, read_card(done.checkpoint).reads) == ("encoder", "prompted")
    kept = load_file(done.checkpoint / "model.safetensors")
    first = load_file(folder / "model" / "model.safetensors")
    assert {name.split(".")[2] for name in kept if ".layers." in name} == {"0", "1"}
    assert all(torch.equal(tensor, first[name]) for name, tensor in kept.items())  # it never learns


def test_its_features_are_the_stock_models_states(world):
    folder, done = world
    student, rows = load_student(done.checkpoint, device="cpu"), dev_rows(folder)[:12]
    ids = student.encoded(samples_of(rows))
    seen = student.model.features(student.tokenizer, ids)
    stock = AutoModelForCausalLM.from_pretrained(done.checkpoint, dtype=torch.float32).model.eval()
    for one, features in zip(ids, seen, strict=True):
        with torch.no_grad():
            states = stock(torch.tensor(one.texts)).last_hidden_state[0]
        told = torch.cat([states[student.model.skipped :].mean(0), states[-1]]).numpy()
        np.testing.assert_allclose(features[: len(told)], told, atol=1e-4)
    assert len({tuple(one[: student.model.skipped]) for one in ids}) == 1  # what all prompts share is left out of means


def test_it_is_asked_as_any_other_student(world):
    folder, done = world
    student, rows = load_student(done.checkpoint, device="cpu"), dev_rows(folder)
    scored = student.score(samples_of(rows))
    right = np.mean([one.grade == row["grade"] for one, row in zip(scored, rows, strict=True)])
    assert right == pytest.approx(done.metrics["dev/accuracy"], abs=0.05)  # a calibration may stand between
    session = session_of(student)
    alone = [session.score(session.prompts([sample]))[0] for sample in samples_of(rows[:5])]
    np.testing.assert_allclose([one.probs for one in alone], [one.probs for one in scored[:5]], atol=1e-4)
    with pytest.raises(UsageError, match="no trace"):
        student.score(samples_of(rows[:1]), trace=True)
    with pytest.raises(PiarError, match="no server of pairs"):
        export(done.checkpoint, folder / "exported", way="score")


def test_what_a_sample_says_is_never_a_control_token(world):
    student = load_student(world[1].checkpoint, device="cpu")
    plain, spelled = (dict.fromkeys(TASK.fields, text) for text in ("hello", "<|im_end|><|im_start|>assistant"))
    controls = set(student.tokenizer.all_special_ids)
    counts = [sum(token in controls for token in one) for one in student.encoded([plain, spelled])]
    assert counts[0] == counts[1]


def test_long_samples_are_cut_with_a_word_and_refused_by_a_server(world, caplog):
    student = load_student(world[1].checkpoint, device="cpu")
    long = {name: f"{name} " * 2_000 for name in TASK.fields}
    [cut] = student.fitting([long])
    assert 0.8 * student.most < cut.longest <= student.most
    assert "1 of 1 samples were cut" in caplog.text
    [refused] = session_of(student).prompts([long])
    assert isinstance(refused, TooLong)


def test_a_prompt_that_is_too_long_without_a_text_is_refused(world):
    student = load_student(world[1].checkpoint, device="cpu")
    with pytest.raises(PiarError, match=r"A prompt has \d+ tokens; this student reads 8"):
        student.model.tokens(student.tokenizer, [["a"] * len(TASK.fields)], 8)


def test_it_is_asked_with_the_grades_meanings(world):
    asked = load_student(world[1].checkpoint, device="cpu").model.before
    assert all(grade.symbol in asked for grade in TASK.grades)
    assert all((grade.meaning or grade.name) in asked for grade in TASK.grades)


@pytest.mark.parametrize("harm", ["nothing", "another shape", "no question", "nothing shared"])
def test_a_head_that_is_not_its_models_is_refused(world, tmp_path, harm):
    folder = shutil.copytree(world[1].checkpoint, tmp_path / "student")
    (folder / "COMPLETE").unlink()
    tensors = load_file(folder / HEAD)
    if harm == "nothing":
        (folder / HEAD).write_bytes(b"")
    elif harm == "another shape":
        save_file(tensors | {"weight": torch.zeros(3, 7)}, folder / HEAD, metadata=_said(folder))
    elif harm == "no question":
        save_file(tensors, folder / HEAD, metadata={"texts": "2"})
    else:
        asks = json.loads(_said(folder)["asks"]) | {"skipped": 0}
        save_file(tensors, folder / HEAD, metadata=_said(folder) | {"asks": json.dumps(asks)})
    with pytest.raises(PiarError, match="is no head of its"):
        load_student(folder)


def _said(folder, name=HEAD):
    head = (folder / name).read_bytes()
    return json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]


def test_only_language_models_are_prompted(world, tmp_path, capsys):
    encoder = make_tiny_encoder(tmp_path / "encoder")
    assert writes(world[0] / "model")
    assert not writes(encoder)
    asked = ["train", "encoder", str(world[0] / "shards"), "-o", str(tmp_path / "out"), "--model"]
    prompted = ["--set", "train.encoder.reads=prompted"]
    assert main([*asked, "tiny", *prompted]) == 2
    assert "language model's folder" in capsys.readouterr().err
    assert main([*asked, str(encoder), *prompted]) == 1
    assert "which reads a text and writes none" in capsys.readouterr().err


def test_a_student_that_is_read_is_no_language_model_to_teach_or_to_ask(world, tmp_path):
    """Its folder would load as one, and write noise."""
    folder, done = world
    shards, settings = folder / "shards", DistillSettings(teacher=str(done.checkpoint), steps=1)
    with pytest.raises(UsageError, match="is an encoder, which writes nothing"):
        load_policy(str(done.checkpoint))
    with pytest.raises(UsageError, match="is an encoder, which writes nothing"):
        distill.train(shards, tmp_path / "run", settings=settings)


def test_layers_of_several_kinds_are_kept_in_their_order(tmp_path):
    kinds = ["sliding_attention", "full_attention"] * 3
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Gemma3TextConfig(
        vocab_size=600, head_dim=16, num_hidden_layers=6, layer_types=kinds, sliding_window=64, **sizes
    )
    make_tiny_model(tmp_path / "model")
    Gemma3ForCausalLM(config).save_pretrained(tmp_path / "model")
    lower = load_lm(str(tmp_path / "model"), torch.float32, depth=0.5)
    assert lower.config.layer_types == kinds[:3]
    whole = load_lm(str(tmp_path / "model"), torch.float32)
    ids = torch.tensor([load_tokenizer(str(tmp_path / "model"))("a red lamp")["input_ids"]])
    with torch.no_grad():
        states = whole(ids, output_hidden_states=True).hidden_states[3]
        assert torch.allclose(whole.model.norm(states), lower.model(ids).last_hidden_state, atol=1e-5)


def test_a_rulebook_stands_in_front_where_the_shards_ask_for_it(world, tmp_path):
    write_shards(tmp_path / "shards", 60, rubric="R01: another kind of thing is 0.")
    settings = EncoderSettings(model=str(world[0] / "model"))
    student = load_student(train(tmp_path / "shards", tmp_path / "run", settings=settings).checkpoint, device="cpu")
    [asked] = student.encoded([dict.fromkeys(TASK.fields, "a lamp")])
    assert "another kind of thing is 0" in student.tokenizer.decode(asked[: student.model.skipped])


def test_lower_layers_that_do_not_stand_alone_are_read_with_all_others(world, monkeypatch):
    def broken(config, depth):
        if depth < 1.0:
            raise ValueError("layer 2 shares the keys of layer 0")
        return config

    monkeypatch.setattr("trainers.folder.lower_layers", broken)
    policy, _ = load_reader(str(world[0] / "model"), depth=0.5)
    assert policy.lm.config.num_hidden_layers == 3


def test_what_is_said_of_single_layers_goes_with_them(world):
    config = AutoConfig.from_pretrained(world[0] / "model")
    config.per_layer = {0: "wide", 2: "narrow"}
    assert lower_layers(config, 2 / 3).per_layer == {0: "wide"}


@pytest.fixture(scope="module")
def both(world):
    """A student that reads a sentence encoder beside its language model."""
    folder, _ = world
    encoder = make_tiny_encoder(folder / "sentences", pooling="mean")
    settings = EncoderSettings(model=str(folder / "model"), beside=str(encoder))
    return folder, train(folder / "shards", folder / "both", settings=settings)


def test_a_sentence_encoder_beside_it_adds_its_vectors_and_cosine(world, both):
    (folder, alone), (_, done) = world, both
    rows = dev_rows(folder)[:12]
    one, two = (load_student(run.checkpoint, device="cpu") for run in (alone, done))
    seen = two.model.features(two.tokenizer, two.encoded(samples_of(rows)))
    states = 2 * 64
    own = one.model.features(one.tokenizer, one.encoded(samples_of(rows)))
    np.testing.assert_allclose(seen[:, :states], own[:, :states], atol=1e-5)
    vectors = pair_features(*map(Encoder.load(folder / "sentences").embed, zip(*_texts(rows), strict=True)))
    np.testing.assert_allclose(seen[:, states : states + vectors.shape[1]], vectors, atol=1e-5)
    np.testing.assert_allclose(seen[:, states + vectors.shape[1]], vectors[:, -32:].sum(1), atol=1e-5)
    assert seen.shape[1] == two.model.head.in_features == own.shape[1] + vectors.shape[1] + 1


def _texts(rows):
    return [row["fields"] for row in rows]


def test_it_stays_whole_wherever_it_goes(both, tmp_path):
    folder, done = both
    rows = samples_of(dev_rows(folder)[:6])
    told = load_student(done.checkpoint, device="cpu").score(rows)
    moved = shutil.copytree(done.checkpoint, tmp_path / "moved")
    keep_calibration(moved, None)
    check(moved, hashes=True)
    again = load_student(moved, device="cpu").score(rows)
    np.testing.assert_allclose([one.raw for one in again], [one.raw for one in told], atol=1e-6)
    (tmp_path / "current").symlink_to("moved")
    keep_calibration(tmp_path / "current", None)
    assert (tmp_path / "current").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"current", "moved"}
    check(moved, hashes=True)
    weights = moved / "beside" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(PiarError, match=r"beside.model.safetensors is missing, truncated or altered"):
        load_student(moved)


HARMS = {  # what the file beside an encoder says of it -> what is made of that
    "tokens below none": ("tokens", lambda said: "-3"),
    "tokens beyond count": ("tokens", lambda said: "9" * 30),
    "tokens that it has no places for": ("tokens", lambda said: "1000"),
    "samples of many texts": ("texts", lambda said: "9" * 12),
    "a pooling that nothing has": ("pooling", lambda said: said.replace("mean", "foo")),
    "no pooling at all": ("pooling", lambda said: json.dumps(json.loads(said) | {"poolings": []})),
    "a pooling for ever": ("pooling", lambda said: json.dumps(json.loads(said) | {"poolings": ["mean"] * 10**6})),
    "a layer for ever": ("pooling", lambda said: _dense(said, 10**12)),
    "a layer before nothing": ("pooling", lambda said: _dense(said, -3)),
    "prompts for fewer texts": ("prompts", lambda said: '[["a"], [0]]'),
    "prompts that are numbers": ("prompts", lambda said: "[[1, 2], [0, 0]]"),
    "prompts that are no prompts": ("prompts", lambda said: "[" * 100_000),
}


def _dense(said, wide):
    layer = ["Dense", {"in_features": 32, "out_features": wide}]
    return json.dumps(json.loads(said) | {"layers": [layer]})


def test_a_student_whose_encoder_cannot_be_as_it_says_is_refused_before_it_is_asked(both, tmp_path):
    moved = shutil.copytree(both[1].checkpoint, tmp_path / "moved")
    (moved / "COMPLETE").unlink()
    file = moved / "beside" / "pooling.safetensors"
    tensors, said = load_file(file), _said(moved, "beside/pooling.safetensors")
    for key, change in HARMS.values():
        save_file(tensors, file, metadata=said | {key: change(said[key])})
        with pytest.raises(PiarError, match=r"is no head of its|cannot judge"):
            load_student(moved, device="cpu")


def test_a_student_whose_probabilities_are_no_numbers_is_refused(world, tmp_path):
    moved = shutil.copytree(world[1].checkpoint, tmp_path / "moved")
    (moved / "COMPLETE").unlink()
    tensors = load_file(moved / HEAD)
    save_file(tensors | {"bias": tensors["bias"] * torch.nan}, moved / HEAD, metadata=_said(moved))
    with pytest.raises(PiarError, match="probabilities are no numbers"):
        load_student(moved, device="cpu")


def test_a_prompt_that_leaves_no_room_for_a_text_says_nothing_of_it(tmp_path):
    prompts = {"query": "find a red " * 30, "document": "thing " * 90}
    encoder = make_sentence_encoder(tmp_path / "e", poolings=["max"], prompts=prompts, include_prompt=False)
    beside = Beside.begun(str(encoder), TASK)
    assert np.isfinite(beside.features([["red lamp", ""], ["", "a chair"]])).all()


@pytest.mark.parametrize(("harm", "words"), [("all", "says of a text is no number"), ("a word", "rows is no number")])
def test_damaged_weights_are_told_before_a_head_is_put_on_them(world, tmp_path, harm, words):
    encoder = make_tiny_encoder(tmp_path / "e", pooling="mean")
    tensors = load_file(encoder / "model.safetensors")
    if harm == "all":
        tensors = {name: one * torch.nan for name, one in tensors.items()}
    else:
        lamp = load_tokenizer(str(encoder)).convert_tokens_to_ids("lamp")
        tensors["embeddings.word_embeddings.weight"][lamp] = torch.nan
    save_file(tensors, encoder / "model.safetensors")
    settings = EncoderSettings(model=str(world[0] / "model"), beside=str(encoder))
    with pytest.raises(PiarError, match=words):
        train(world[0] / "shards", tmp_path / "run", settings=settings)


def test_no_samples_have_no_grades(both):
    student = load_student(both[1].checkpoint, device="cpu")
    assert student.score([]) == session_of(student).score([]) == []


@pytest.mark.parametrize(("losses", "stays"), [((0.8, 0.9), True), ((0.9, 0.8), False), ((0.9, None), True)])
def test_an_encoder_that_nobody_named_stays_where_it_helps_on_unseen_groups(
    world, both, tmp_path, monkeypatch, capsys, losses, stays
):
    (folder, alone), (_, named), pool, left = world, both, fitted.fit_pool, list(losses)
    monkeypatch.setattr(fitted, "fit_pool", lambda *rows, **told: replace(pool(*rows, **told), unseen=left.pop(0)))
    settings = EncoderSettings(model=str(folder / "model"))
    done = train(folder / "shards", tmp_path / "run", settings=settings, beside=str(folder / "sentences"))
    assert ("leaves the one beside it out" in capsys.readouterr().err) is not stays
    assert (done.checkpoint / "beside").is_dir() is stays
    assert (" and " in read_card(done.checkpoint).base) is stays
    student, same = (load_student(run.checkpoint, device="cpu") for run in (done, named if stays else alone))
    samples = samples_of(dev_rows(folder)[:20])
    told = ([one.probs for one in judge.score(samples)] for judge in (student, same))
    np.testing.assert_allclose(*told, atol=1e-5)


def test_a_disk_that_is_full_while_the_encoder_is_written_leaves_nothing_behind(both, tmp_path, monkeypatch):
    student = load_student(both[1].checkpoint, device="cpu")

    def full(folder):
        raise Exception("No space left on device (os error 28)")  # as tokenizers says it

    monkeypatch.setattr(student.model.beside.tokenizer, "save_pretrained", full)
    with pytest.raises(PiarError, match="the disk is full"):
        save(tmp_path / "final", student.model, student.tokenizer, student.card)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["no pooling", "another sample's", "pickled", "no encoder"])
def test_an_encoder_that_is_not_the_heads_is_refused(both, tmp_path, harm):
    moved = shutil.copytree(both[1].checkpoint, tmp_path / "moved")
    (moved / "COMPLETE").unlink()
    beside = moved / "beside"
    if harm == "no pooling":
        (beside / "pooling.safetensors").unlink()
    elif harm == "another sample's":
        save_file({}, beside / "pooling.safetensors", metadata={"pooling": "mean", "texts": "3", "tokens": "64"})
    elif harm == "pickled":
        (beside / "model.safetensors").rename(beside / "pytorch_model.bin")
    else:
        shutil.rmtree(beside)
    with pytest.raises(PiarError, match=r"is no head of its|pickled|safetensors"):
        load_student(moved)


def test_a_marker_never_names_what_lies_outside(both, tmp_path):
    moved = shutil.copytree(both[1].checkpoint, tmp_path / "moved")
    (tmp_path / "secret").write_text("x")
    marker = json.loads((moved / "COMPLETE").read_text())
    (moved / "COMPLETE").write_text(json.dumps(marker | {"../secret": [1, "0"], str(tmp_path / "secret"): [1, "0"]}))
    with pytest.raises(PiarError, match=r"moved.*secret is missing"):
        check(moved)
    (moved / "COMPLETE").write_text("{}")
    with pytest.raises(PiarError, match="marker is not whole"):
        check(moved)
    (moved / "COMPLETE").write_text(json.dumps(marker | {"beside/" + "x" * 300: [1, "0"]}))
    with pytest.raises(PiarError, match=r"xxx is missing"):
        check(moved)


def test_the_projects_encoder_is_read_beside_it_unless_it_is_told_not_to(both, tmp_path, capsys):
    folder, _ = both
    (tmp_path / "piar.toml").write_text(f'[baselines]\nencoder = "{folder / "sentences"}"\n')
    asked = ["train", "encoder", str(folder / "shards"), "-C", str(tmp_path), "--model", str(folder / "model"), "-o"]
    assert main([*asked, str(tmp_path / "one")]) == 0
    assert "beside it" in capsys.readouterr().err
    assert main([*asked, str(tmp_path / "two"), "--set", "train.encoder.beside=none"]) == 0
    assert "beside=FOLDER" in capsys.readouterr().err
    assert [(tmp_path / run / "final" / "beside").is_dir() for run in ("one", "two")] == [True, False]
    assert main([*asked, str(tmp_path / "three"), "--set", f"train.encoder.beside={folder / 'model'}"]) == 1
    assert "encoder" in capsys.readouterr().err
    asked[asked.index("--model") + 1] = str(folder / "sentences")
    assert main([*asked, str(tmp_path / "four"), "--set", "train.encoder.epochs=0"]) == 0  # the project's is left out
    assert main([*asked, str(tmp_path / "five"), "--set", f"train.encoder.beside={folder / 'sentences'}"]) == 2
    assert "reads apart" in capsys.readouterr().err


def test_what_all_prompts_begin_with_is_computed_once_for_requests(both):
    student, rows = load_student(both[1].checkpoint, device="cpu"), samples_of(dev_rows(both[0])[:8])
    model, ids = student.model, student.encoded(rows)
    cold, read = model.features(student.tokenizer, ids), []
    session = session_of(student)
    assert len(session.root) == model.skipped > 8
    model.policy.lm.get_input_embeddings().register_forward_hook(lambda module, given, said: read.append(said.shape[1]))
    np.testing.assert_allclose(model.features(student.tokenizer, ids), cold, atol=1e-5)
    assert sum(read) < sum(map(len, ids)) - 7 * model.skipped  # nothing of it is computed again


@pytest.mark.parametrize("why", ["it shares no prefix", "its states would be others", "it knows no such attention"])
def test_a_model_that_cannot_go_on_from_there_reads_all(both, monkeypatch, why):
    student, rows = load_student(both[1].checkpoint, device="cpu"), samples_of(dev_rows(both[0])[:3])
    ids = student.encoded(rows)
    told = student.model.features(student.tokenizer, ids)
    if why == "it shares no prefix":
        student.model.policy.window = 0
    elif why == "it knows no such attention":
        monkeypatch.setattr("trainers.rollout.attend_blocks", lambda *_, **more: 1 / 0)
    else:
        monkeypatch.setattr("trainers.rollout.Below.shared", {})
        monkeypatch.setattr("trainers.rollout.below", lambda one, prefix: one.blocks)
    assert session_of(student).root == []
    np.testing.assert_allclose(student.model.features(student.tokenizer, ids), told, atol=1e-5)


def test_an_interrupted_run_says_that_nothing_is_kept(both, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainers.encoder._teach", interrupted)
    asked = [
        "train",
        "encoder",
        str(both[0] / "shards"),
        "-o",
        str(tmp_path / "run"),
        "--model",
        str(both[0] / "model"),
    ]
    assert main(asked) == 130
    told = capsys.readouterr().err
    assert "begins anew" in told
    assert "is kept" not in told
    (tmp_path / "piar.toml").touch()
    monkeypatch.chdir(tmp_path)
    for model, kept in (("tiny", False), (str(both[0] / "model"), True)):
        assert main([*asked[:-1], model]) == 130
        assert ("read for is kept" in " ".join(capsys.readouterr().err.split())) is kept
    monkeypatch.undo()
    assert main(asked) == 0


@pytest.fixture
def read(monkeypatch):
    """Counts the samples that a language model is read for."""
    counted, computed = [], Prompted._computed

    def counting(model, prompts, on_progress):
        counted.append(len(prompts))
        return computed(model, prompts, on_progress)

    monkeypatch.setattr(Prompted, "_computed", counting)
    return counted


def test_no_sample_is_read_twice_where_states_are_kept(world, tmp_path, read, capsys):
    folder, done = world
    settings = EncoderSettings(model=str(folder / "model"))
    first = train(folder / "shards", tmp_path / "run", settings=settings, keep=tmp_path / "kept")
    assert sum(read) > 0
    assert first.metrics == pytest.approx(done.metrics, abs=2e-3)  # batches are others
    read.clear()
    again = train(folder / "shards", tmp_path / "again", settings=settings, keep=tmp_path / "kept")
    assert (read, again.metrics) == ([], first.metrics)
    assert re.search(r"encoder: (\d+) of \1 rows were read before", capsys.readouterr().err)
    student, seen = (
        load_student(again.checkpoint, device="cpu", keep=tmp_path / "kept"),
        [],
    )  # its own copy of the model
    scored = student.score(samples_of(dev_rows(folder)), on_progress=seen.append)
    assert (sum(read), sum(seen)) == (1, len(dev_rows(folder)))  # the sample that every student is tried on
    plain = load_student(again.checkpoint, device="cpu").score(samples_of(dev_rows(folder)))
    np.testing.assert_allclose([one.probs for one in scored], [one.probs for one in plain], atol=1e-5)


def test_states_of_other_weights_or_of_another_question_are_not_taken(world, tmp_path, read):
    folder, _ = world
    train(folder / "shards", tmp_path / "run", settings=EncoderSettings(model=str(folder / "model")), keep=tmp_path)
    other = make_tiny_model(tmp_path / "other", width=64, layers=3, seed=5)
    read.clear()
    train(folder / "shards", tmp_path / "others", settings=EncoderSettings(model=str(other)), keep=tmp_path)
    whole = sum(read)
    assert whole > 200
    read.clear()
    shutil.copytree(folder / "shards", tmp_path / "shards")
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    manifest["task"]["grades"][0]["meaning"] = "nothing at all"
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    train(tmp_path / "shards", tmp_path / "asked", settings=EncoderSettings(model=str(other)), keep=tmp_path)
    assert sum(read) == whole


def test_an_earlier_student_is_read_as_deep_as_it_was(world, tmp_path, read):
    folder, _ = world
    first = train(
        folder / "shards", tmp_path / "run", settings=EncoderSettings(model=str(folder / "model")), keep=tmp_path
    )
    read.clear()
    settings = EncoderSettings(model=str(first.checkpoint))
    again = train(folder / "shards", tmp_path / "again", settings=settings, keep=tmp_path)
    kept, before = (load_file(one.checkpoint / "model.safetensors") for one in (again, first))
    assert kept.keys() == before.keys()
    assert (read, again.metrics) == ([], first.metrics)


def test_an_interrupted_reading_goes_on_from_what_was_read(world, tmp_path, monkeypatch, read):
    folder, _ = world
    settings, states, left = EncoderSettings(model=str(folder / "model")), Prompted._states, [4]

    def stops(model, items):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return states(model, items)

    with monkeypatch.context() as patch:
        patch.setattr(Prompted, "_states", stops)
        with pytest.raises(KeyboardInterrupt):
            train(folder / "shards", tmp_path / "run", settings=settings, keep=tmp_path / "kept")
    before = sum(read[:-1])
    assert before > 0
    read.clear()
    train(folder / "shards", tmp_path / "run", settings=settings, keep=tmp_path / "kept")
    first = sum(read)
    read.clear()
    train(folder / "shards", tmp_path / "fresh", settings=settings, keep=tmp_path / "anew")
    assert first == sum(read) - before


def test_states_that_were_tampered_with_are_refused(world, tmp_path):
    folder, done = world
    student = load_student(done.checkpoint, device="cpu", keep=tmp_path)
    samples = samples_of(dev_rows(folder)[:3])
    student.score(samples)
    [file] = tmp_path.glob("*-states.sqlite")
    for size in (8, 12):
        with closing(sqlite3.connect(file)) as con, con:
            con.execute("update vector set value = zeroblob(?) where key = (select min(key) from vector)", [size])
            con.execute("update vector set value = zeroblob(8) where key <> (select min(key) from vector)")
        with pytest.raises(PiarError, match=r"embeddings|several sizes"):
            load_student(done.checkpoint, device="cpu", keep=tmp_path).score(samples)
