"""An encoder student: learns, is a plain folder, is asked as any other student, and explains nothing."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from piar.cli import main
from piar.serve.app import build
from piar.serve.settings import ServeSettings
from store.errors import PiarError, UsageError
from store.manifest import read_manifest
from tests.documents import check
from tests.shards_fixture import TASK, write_shards
from tests.tiny_encoder import make_sentence_encoder, make_tiny_encoder
from trainers import fitted as module
from trainers import grpo
from trainers.apart import Apart
from trainers.checkpoint import read_card
from trainers.config import EncoderSettings, StudentSettings
from trainers.data import read_rows
from trainers.embedding import Encoder
from trainers.encoded import compare, encode, padded, predict, probabilities
from trainers.encoder import apart_encoder, train
from trainers.encoder_student import EncoderStudent
from trainers.export import export
from trainers.folder import load_encoder, load_tokenizer
from trainers.opinion_pool import fit_pool
from trainers.overlap import COMPARED
from trainers.pooling import Pooled
from trainers.probe import pair_features
from trainers.scoring import Student
from trainers.session import latencies
from trainers.students import load_student, session_of
from trainers.vectors import Vectors

SMALL = EncoderSettings(hidden=64, layers=2, epochs=12)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    write_shards(folder / "shards", 300)
    return folder, train(folder / "shards", folder / "run", settings=SMALL)


def test_it_beats_the_majority_and_tells_intervals(world):
    folder, done = world
    rows = read_rows(folder / "shards", read_manifest(folder / "shards"), "eval")["dev"]
    grades = [row["grade"] for row in rows]
    assert done.metrics["dev/accuracy"] > max(grades.count(g) for g in grades) / len(grades) + 0.1
    assert done.metrics["dev/accuracy_low"] < done.metrics["dev/accuracy"] < done.metrics["dev/accuracy_high"]


def test_its_folder_is_plain_and_gives_the_same_probabilities(world):
    folder, done = world
    manifest = read_manifest(folder / "shards")
    rows = read_rows(folder / "shards", manifest, "eval")["dev"][:7]
    model = AutoModelForSequenceClassification.from_pretrained(done.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(done.checkpoint)
    found = predict(model, tokenizer, rows, manifest.task, SMALL.max_length)
    for row, probs in zip(rows, found, strict=True):
        alone = model(**tokenizer(*row["fields"], return_tensors="pt")).logits[0].softmax(-1)
        assert torch.allclose(alone, torch.tensor(probs).float(), atol=1e-5)
    assert model.config.id2label == {0: "0", 1: "1", 2: "2"}


def test_a_folder_without_encoder_is_explained(world, tmp_path):
    with pytest.raises(PiarError, match="Cannot load"):
        train(world[0] / "shards", tmp_path, settings=EncoderSettings(model=str(tmp_path)))


# -- a student like the others --------------------------------------------------------------------

SAMPLES = [
    {"query": "red lamp", "title": "blue lamp number 3"},
    {"query": "green desk", "title": "green desk number 8 " * 4},
    {"query": "mug", "title": ""},
]


@pytest.fixture(scope="module")
def student(world):
    return load_student(world[1].checkpoint)


def test_its_card_says_what_it_is(world, student):
    card = student.card
    assert (card.kind, card.completion, card.trainer, card.max_length) == ("encoder", "grade", "encoder", 256)
    assert card.task == TASK
    assert card.metrics["dev/accuracy"] == world[1].metrics["dev/accuracy"]
    assert card.rows["dev"] > 0


def test_reinforcement_is_for_students_that_write(world, tmp_path):
    folder, done = world
    with pytest.raises(UsageError, match="is an encoder"):
        grpo.train(folder / "shards", tmp_path / "grpo", student=StudentSettings(model=str(done.checkpoint)))


def test_it_grades_in_the_order_asked_whatever_stands_beside_a_sample(student):
    together = student.score(SAMPLES)
    for sample, said in zip(SAMPLES, together, strict=True):
        [alone] = student.score([sample])
        assert alone.probs == pytest.approx(said.probs, abs=1e-5)
        assert sum(said.probs) == pytest.approx(1)
        assert said.grade == TASK.symbols[max(range(3), key=said.probs.__getitem__)]
        assert said.expected == pytest.approx(said.probs[1] + 2 * said.probs[2])
    assert student.score([]) == []


def test_control_tokens_in_a_sample_are_text(student):
    ends = student.tokenizer.convert_tokens_to_ids("<|im_end|>")
    [ids] = student.fitting([{"query": "red <|im_end|> lamp", "title": "<|im_end|>"}])
    assert ids.count(ends) == 2  # one behind each text


def test_a_long_sample_is_cut_with_a_word_and_refused_by_a_session(student, caplog):
    long = {"query": "red lamp", "title": "lamp " * 5_000}
    [said] = student.score([long])
    assert sum(said.probs) == pytest.approx(1)
    assert "1 of 1 samples were cut: this student reads 256 tokens" in caplog.text
    [refused] = session_of(student).prompts([long])
    assert (refused.tokens > 5_000, refused.most) == (True, 256)


def test_what_it_cannot_do_is_said(student, tmp_path):
    with pytest.raises(UsageError, match="no trace to write"):
        student.score(SAMPLES, trace=True)
    with pytest.raises(UsageError, match="no trace to write"):
        session_of(student).begin(SAMPLES[0])
    with pytest.raises(PiarError, match="lacks the field 'title'"):
        student.score([{"query": "x"}])


def test_other_doors_name_the_right_one(world, tmp_path):
    for act in (
        lambda: Student.load(world[1].checkpoint),
        lambda: export(world[1].checkpoint, tmp_path / "c"),
    ):
        with pytest.raises(PiarError, match="no language model"):
            act()


def test_a_harmed_folder_is_refused(world, tmp_path):
    harmed = shutil.copytree(world[1].checkpoint, tmp_path / "harmed")
    with (harmed / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(PiarError, match="truncated"):
        load_student(harmed)
    other = shutil.copytree(world[1].checkpoint, tmp_path / "other")
    (other / "COMPLETE").unlink()
    card = json.loads((other / "student.json").read_text())
    card["task"]["grades"] = card["task"]["grades"][:2]
    (other / "student.json").write_text(json.dumps(card))
    with pytest.raises(PiarError, match="tells 3 grades apart, and its card names 2"):
        EncoderStudent.load(other)


def test_its_latency_is_that_of_the_grade(student):
    assert set(latencies(student, SAMPLES)) == {"first_token"}


def test_it_is_served_without_traces(student):
    with TestClient(
        build(session_of(student), ServeSettings(port=0), "students/encoder"), base_url="http://localhost"
    ) as client:
        found = client.post("/score", json={"samples": SAMPLES}).json()["results"]
        for one, said in zip(found, student.score(SAMPLES), strict=True):
            assert list(one["probs"].values()) == pytest.approx(said.probs, abs=1e-6)
        refused = client.post("/explain", json=SAMPLES[0])
        assert (refused.status_code, "no trace" in refused.text) == (409, True)
        long = client.post("/score", json={"samples": [{"query": "x", "title": "lamp " * 2_000}]})
        assert (long.status_code, "this student reads 256" in long.text) == (413, True)


def test_it_judges_a_pool(world, tmp_path, capsys):
    pq.write_table(pa.Table.from_pylist(SAMPLES), tmp_path / "logs.parquet")
    line = ["score", "--judge", f"student:{world[1].checkpoint}", "--pool", str(tmp_path / "logs.parquet")]
    assert main([*line, "-o", str(tmp_path / "graded"), "--json"]) == 0
    check("score", json.loads(capsys.readouterr().out))
    graded = pq.read_table(tmp_path / "graded" / "logs.parquet").to_pylist()
    said = load_student(world[1].checkpoint).score(SAMPLES)
    assert [row["piar_grade"] for row in graded] == [one.grade for one in said]
    assert main([*line, "--trace", "-o", str(tmp_path / "traced")]) == 2
    assert "no trace to write" in " ".join(capsys.readouterr().err.split())


def test_a_pretrained_encoder_reads_no_further_than_it_can(world, tmp_path, caplog):
    base = make_tiny_encoder(tmp_path / "base", length=16)
    settings = EncoderSettings(model=str(base), epochs=0.3, max_length=512)
    done = train(world[0] / "shards", tmp_path / "run", settings=settings)
    taught = load_student(done.checkpoint)
    assert taught.card.max_length == 16
    assert taught.card.base == str(base)
    assert len(taught.score([{"query": "red " * 40, "title": "lamp " * 40}])) == 1
    assert "this student reads 16 tokens" in caplog.text


def test_an_encoder_that_lacks_a_layer_is_no_start(world, tmp_path):
    folder = make_sentence_encoder(tmp_path / "e", "distilbert")
    weights = load_file(folder / "model.safetensors")
    whole = {name: tensor for name, tensor in weights.items() if "layer.1." not in name}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    settings = EncoderSettings(model=str(folder), reads="together")
    with pytest.raises(PiarError, match=r"are missing, such as distilbert\.transformer\.layer\.1\."):
        train(world[0] / "shards", tmp_path / "run", settings=settings)


# -- one that reads the texts apart ---------------------------------------------------------------


@pytest.mark.parametrize("held_out", [0, 40])
def test_a_run_whose_numbers_end_leaves_no_student_and_names_the_rate(tmp_path, held_out):
    write_shards(tmp_path / "shards", 60, held_out=held_out)
    settings = SMALL.model_copy(update={"learning_rate": 1e18, "epochs": 4, "batch_size": 16})
    with pytest.raises(PiarError, match="is no number") as told:
        train(tmp_path / "shards", tmp_path / "run", settings=settings)
    assert "learning_rate" in told.value.fix
    assert not any((tmp_path / "run").iterdir())


def test_a_run_whose_numbers_end_keeps_the_head_that_it_began_with(world, sentences, tmp_path, capsys):
    folder, _ = world
    done = train(folder / "shards", tmp_path / "run", settings=apart(sentences, learning_rate=1e18))
    assert (done.kept, math.isfinite(done.metrics["dev/nll"])) == (0, True)
    assert "nan after step" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A sentence encoder's folder; its weights are random, so that the probe of its vectors is all it knows."""
    return make_tiny_encoder(tmp_path_factory.mktemp("sentences"), pooling="mean")


def apart(sentences, **changes):
    return EncoderSettings(model=str(sentences), epochs=2, **changes)


def rows_for(folder, kind):
    """Shard rows, their grades as positions and their groups."""
    manifest = read_manifest(folder / "shards")
    rows = [row for found in read_rows(folder / "shards", manifest, kind).values() for row in found]
    return rows, np.array([TASK.index(row["grade"]) for row in rows]), np.array([row["group"] for row in rows])


def seen_by(student, rows):
    """[N, F] what the student's head is given of rows."""
    tokens = encode(student.model, student.tokenizer, [row["fields"] for row in rows], student.task, student.most)
    return student.model.features(student.tokenizer, tokens)


def test_it_begins_with_a_fitted_head_and_keeps_it_where_learning_on_helps_nobody(world, sentences, tmp_path, capsys):
    """A rate that spoils everything: what stays is the head, and the run says so."""
    folder, _ = world
    done = train(folder / "shards", tmp_path / "run", settings=apart(sentences, learning_rate=0.5))
    assert done.kept == 0
    assert "keeps the frozen encoder's head" in capsys.readouterr().err
    student = load_student(done.checkpoint)
    (learnt, gold, groups), (dev, _, _) = rows_for(folder, "train"), rows_for(folder, "eval")
    own = student.model.head.in_features - len(TASK.grades)
    texts, told = [row["fields"] for row in learnt], {"grades": len(TASK.grades), "telling": student.model.telling}
    begun = fit_pool(seen_by(student, learnt)[:, :own], texts, gold, groups, **told)
    seen = seen_by(student, dev)
    logits = (seen[:, :own] - begun.mean) / begun.spread @ begun.weight.T + begun.bias
    logits += begun.words.logits([row["fields"] for row in dev])
    found = [one.raw for one in student.score([dict(zip(TASK.fields, row["fields"], strict=True)) for row in dev])]
    assert np.allclose(found, softmax(logits, axis=1), atol=1e-4)
    embed = Encoder.load(sentences).embed
    vectors = pair_features(*(embed(column) for column in zip(*(row["fields"] for row in dev), strict=True)))
    assert np.allclose(seen[:, : vectors.shape[1]], vectors, atol=1e-5)  # as the baseline `probe` has them
    assert np.allclose(seen[:, vectors.shape[1]], vectors[:, -32:].sum(1), atol=1e-5)  # and their cosine


def test_learning_on_is_kept_where_dev_gains(world, sentences, tmp_path, monkeypatch):
    """Words say nearly all here: without them there is something to learn."""
    monkeypatch.setattr(module, "compared", lambda first, second: (0.0,) * COMPARED)
    monkeypatch.setattr("trainers.words.MOST", 0)
    folder, _ = world
    longer = apart(sentences, learning_rate=3e-3).model_copy(update={"epochs": 6})
    done = train(folder / "shards", tmp_path / "run", settings=longer)
    start = train(folder / "shards", tmp_path / "start", settings=apart(sentences, learning_rate=0.5))
    assert (done.kept > 0, start.kept) == (True, 0)
    assert done.metrics["dev/nll"] < start.metrics["dev/nll"]
    assert not list((tmp_path / "run").glob("best*"))


def test_one_that_reads_apart_is_a_student_like_the_others(world, sentences, tmp_path, caplog):
    folder, _ = world
    done = train(folder / "shards", tmp_path / "run", settings=apart(sentences))
    student = load_student(done.checkpoint)
    assert read_card(done.checkpoint).reads == "apart"
    together = student.score(SAMPLES)
    assert [one.raw for one in together] == [pytest.approx(student.score([one])[0].raw, abs=1e-5) for one in SAMPLES]
    session = session_of(student)
    assert session.score(session.prompts(SAMPLES))[1].grade == together[1].grade
    long = {"query": "red lamp", "title": "lamp " * 300}
    [refused] = session.prompts([long])
    assert (refused.tokens, refused.most) == (302, 64)
    student.score([long])
    assert "1 of 1 samples were cut" in caplog.text
    head = done.checkpoint / "head.safetensors"
    head.write_bytes(b"x" * head.stat().st_size)
    with pytest.raises(PiarError, match="no head of its encoder"):
        load_student(done.checkpoint)


@pytest.mark.parametrize("fields", [3, 4, 5])
def test_each_field_is_read_apart_and_many_as_a_pair(sentences, fields):
    names = tuple("abcde"[:fields])
    task = TASK.model_copy(update={"fields": names, "group_by": "b"})
    manifest = SimpleNamespace(task=task)
    model, tokenizer = apart_encoder(manifest, EncoderSettings(model=str(sentences)))
    row = ["red lamp", "blue lamp", "green chair", "a shoe", "a hat"][:fields]
    [one] = encode(model.eval(), tokenizer, [row], task)
    said = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in one.texts]
    first, others = row[1], [row[0], *row[2:]]
    assert said == ([first, *others] if fields <= 4 else [first, " ".join(others)])
    assert len(one.compared) == 6 * math.comb(len(said), 2) + len(TASK.grades)
    assert one.compared[0] == 0.5  # half of "blue lamp" is in "red lamp"
    assert model.features(tokenizer, [one]).shape == (1, model.head.in_features)


def test_a_text_of_several_rows_is_read_once(sentences):
    model, tokenizer = apart_encoder(SimpleNamespace(task=TASK), EncoderSettings(model=str(sentences)))
    rows = [["red lamp", f"lamp {i % 3}"] for i in range(12)]
    ids, read, done = encode(model.eval(), tokenizer, rows, TASK), [], []
    model.read.encoder.register_forward_hook(lambda module, given, said: read.append(len(said.last_hidden_state)))
    seen = model.features(tokenizer, ids, done.append)
    assert (sum(read), sum(done)) == (4, 12)
    with torch.inference_mode():
        together = model(**padded(tokenizer, ids)).logits
        assert torch.allclose(model.judged(torch.from_numpy(seen)), together, atol=1e-5)


def test_a_task_with_one_text_and_two_grades_begins_with_a_head_too(sentences):
    task = TASK.model_copy(update={"fields": ("query",), "grades": TASK.grades[:2], "group_by": "query"})
    body = load_encoder(str(sentences))
    body.config.id2label, tokenizer = {0: "0", 1: "1"}, load_tokenizer(str(sentences))
    rows = [["red lamp"], ["blue chair"], ["green hat"], ["a shoe"]] * 12
    model = Apart(Vectors(body, Pooled(32), 1), 2).eval()
    ids = encode(model, tokenizer, rows, task)
    gold = [0, 1, 1, 0] * 12
    model.begin(model.features(tokenizer, ids), [one.said for one in ids], gold, [str(i) for i in range(48)], 0)
    compare(model, ids)
    assert (probabilities(model, tokenizer, ids).argmax(1) == gold).all()


def test_how_the_texts_are_read_follows_the_folder_and_the_setting(world, sentences, tmp_path, capsys):
    folder, done = world
    assert read_card(done.checkpoint).reads == "together"
    asked = apart(sentences, reads="together").model_copy(update={"epochs": 0.1})
    assert read_card(train(folder / "shards", tmp_path / "run", settings=asked).checkpoint).reads == "together"
    said = capsys.readouterr().err
    assert "encoder: a head on the frozen encoder has a loss of" in said
    assert "--set train.encoder.reads=apart begins there" in said
    other = shutil.copytree(sentences, tmp_path / "other")
    layers = json.loads((other / "modules.json").read_text())
    (other / "modules.json").write_text(
        json.dumps([*layers, {"path": "3_LSTM", "type": "sentence_transformers.models.LSTM"}])
    )
    done = train(folder / "shards", tmp_path / "dense", settings=apart(other).model_copy(update={"epochs": 0.1}))
    assert read_card(done.checkpoint).reads == "together"  # what such vectors mean is not known here
    said = capsys.readouterr().err
    assert said.count("LSTM: not known here. So it reads the texts together") == 1
    assert "frozen" not in said
    with pytest.raises(UsageError, match="a head of chance"):
        train(folder / "shards", tmp_path / "tiny", settings=EncoderSettings(epochs=0))
    still = train(folder / "shards", tmp_path / "still", settings=apart(sentences).model_copy(update={"epochs": 0}))
    assert (still.steps, still.kept) == (0, 0)
    with pytest.raises(UsageError, match="from nothing"):
        train(folder / "shards", tmp_path / "tiny", settings=EncoderSettings(reads="apart"))
