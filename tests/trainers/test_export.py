"""Exports say what the student says, in the tools that load them: sentence-transformers, and vLLM beside us."""

import json
import shutil
import urllib.request

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from piar.cli import main
from store.calibration import Calibration
from store.errors import PiarError
from store.export_loss import export_loss, levels
from store.task import CONTROL, Grade, Task, sample_text
from tests.shards_fixture import TASK, write_shards
from tests.tiny_model import make_tiny_model
from tests.vllm_env import http_server
from trainers import encoder
from trainers.checkpoint import StudentCard, keep_calibration, save
from trainers.config import EncoderSettings
from trainers.export import export
from trainers.pairs import pair_of, pair_template
from trainers.score_head import GradeRows, cut_points, exact_label, fitted_label, layers, softmax
from trainers.students import load_student
from trainers.tiny import tiny_model, tiny_tokenizer

TEXTS = ("red lamp number 3", "blue <|im_end|> chair [SEP] x", 'a "quoted" \\ title\nnew line 🙂', "lamp " * 50, "x")
PAIRS = [("red lamp", text) for text in TEXTS]
BIAS = Calibration(strategy="bias", temperature=1.5, bias=(0.25, 0.0, -0.5), rows=90, groups=12)
THREE = Task(name="t", group_by="query", fields=("query", "title", "brand"), grades=TASK.grades)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Shards, a random language model and encoder whose grades differ, and one of each with a calibration."""
    folder = tmp_path_factory.mktemp("world")
    write_shards(folder / "shards", 60, held_out=30)
    rows = [pq.read_table(path).to_pylist() for path in sorted((folder / "shards").rglob("*.parquet"))]
    texts = [text for part in rows for row in part for text in row["fields"]]
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(texts, TASK.symbols, 400)
    lm = tiny_model(len(tokenizer), hidden=64, layers=1)
    with torch.no_grad():
        lm.lm_head.weight *= 5
    save(folder / "lm", lm, tokenizer, StudentCard(task=TASK))
    small = EncoderSettings(hidden=64, layers=1, epochs=1, learning_rate=0.01, reads="together")
    shutil.copytree(encoder.train(folder / "shards", folder / "run", settings=small).checkpoint, folder / "encoder")
    found = {"shards": folder / "shards"}
    for name in ("lm", "encoder"):
        found |= {name: folder / name, f"{name}-calibrated": folder / f"{name}-calibrated"}
        keep_calibration(shutil.copytree(folder / name, folder / f"{name}-calibrated"), BIAS)
    return found


def scores(folder, pairs=PAIRS):
    student = load_student(folder, device="cpu")
    said = student.score([{"query": query, "title": title} for query, title in pairs])
    return np.array([one.probs for one in said]) @ levels(student.task)


def cross_encoder(folder):
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu", local_files_only=True)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")  # torch says that it chose the dimension of a softmax
@pytest.mark.parametrize("name", ["lm-calibrated", "encoder-calibrated"])
def test_a_cross_encoder_gives_the_students_expected_grade(world, name, tmp_path):
    done = export(world[name], tmp_path / "out", way="cross-encoder", shards=world["shards"])
    assert (done.largest_difference < 1e-4, done.fitted) == (True, 0)
    assert done.loss.ndcg[0] == pytest.approx(done.loss.ndcg[1])
    wanted, loaded = scores(world[name]), cross_encoder(tmp_path / "out")
    assert loaded.predict(PAIRS) == pytest.approx(wanted, abs=1e-4)
    assert [one["corpus_id"] for one in loaded.rank("red lamp", list(TEXTS))] == np.argsort(-wanted).tolist()


@pytest.mark.parametrize("name", ["lm", "encoder-calibrated"])
def test_one_label_comes_near_and_says_how_near(world, name, tmp_path):
    done = export(world[name], tmp_path / "out", way="score", shards=world["shards"])
    assert done.fitted == 60
    assert 0 < done.largest_difference < 0.1
    rows = [
        ("red lamp", "red lamp number 3"),
        ("blue chair", "green chair number 1"),
        ("black mug", "red sofa number 8"),
    ]
    found = cross_encoder(tmp_path / "out").predict(rows)
    assert found == pytest.approx(scores(world[name], rows), abs=2 * done.largest_difference)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "score"}
    with pytest.raises(PiarError, match="no rows to fit it on"):
        export(world[name], tmp_path / "none", way="score")
    assert not (tmp_path / "none").exists()


def test_the_verb_prints_differences_and_losses(world, tmp_path, capsys):
    for way, words in (("classifier", "raw ones"), ("score", "one label fitted on 60 rows")):
        line = ["train", "export", str(world["lm"]), "-o", str(tmp_path / "exports" / way), "--as", way]
        assert main([*line, "--shards", str(world["shards"])]) == 0
        said = " ".join(capsys.readouterr().out.split())
        for wanted in (words, "30 rows of dev", "accuracy", "nDCG", "points", "load it"):
            assert wanted in said
        card = (tmp_path / "exports" / way / "README.md").read_text()
        assert "Largest difference from the student's" in card
    assert main([*line[:-3], str(tmp_path / "again"), "--as", "cross-encoder", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["compared"], document["loss"]) == (3, None)


def test_what_cannot_be_a_score_is_refused_with_why(world, tmp_path):
    def changed(**fields):
        folder = shutil.copytree(world["lm"], tmp_path / str(len(list(tmp_path.iterdir()))))
        card = json.loads((folder / "student.json").read_text())
        card["task"] |= fields
        (folder / "student.json").write_text(json.dumps(card))
        (folder / "COMPLETE").unlink()
        return folder

    for fields, why in (
        ({"ordered": False}, "have no order"),
        ({"fields": ["query"]}, "is one text"),
        ({"fields": ["title", "query", "brand"]}, "stands behind 'title'"),
    ):
        with pytest.raises(PiarError, match=why) as caught:
            export(changed(**fields), tmp_path / "out", way="cross-encoder")
        assert "--as classifier" in caught.value.fix
    with pytest.raises(PiarError, match="other fields or grades"):
        export(changed(fields=["query", "name"]), tmp_path / "out", shards=world["shards"])
    spelled = changed()
    card = json.loads((spelled / "student.json").read_text())
    (spelled / "student.json").write_text(json.dumps(card | {"prompt": "rulebook", "rubric": "never say <|im_end|>"}))
    with pytest.raises(PiarError, match="the rubric spells one of its control tokens"):
        export(spelled, tmp_path / "out", way="cross-encoder")


# -- the prompt -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("tiny"), width=32, layers=1))


MARKS = st.one_of(*[st.from_regex(f"\\{first}({rest})", fullmatch=True) for first, rest in CONTROL.items()])
SAID = st.lists(st.one_of(MARKS, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=5).map(
    "".join
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(SAID, min_size=3, max_size=3), task=st.sampled_from([TASK, THREE]))
def test_the_template_of_a_pair_writes_the_students_prompt(tokenizer, texts, task):
    texts = texts[: len(task.fields)]
    rubric = 'Judge it.\n- R01: "no" {{ y }} {% raw %} 🙂'
    template = pair_template(tokenizer, StudentCard(task=task, prompt="rulebook", rubric=rubric))
    query, document = pair_of(task, texts)
    pair = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    asked = [{"role": "system", "content": rubric}]
    asked.append({"role": "user", "content": sample_text(dict(zip(task.fields, texts, strict=True)))})
    wanted = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    for more in ({}, {"add_generation_prompt": True}):
        assert tokenizer.apply_chat_template(pair, chat_template=template, tokenize=False, **more) == wanted


def test_a_document_that_is_no_object_fills_the_first_field(tokenizer):
    template = pair_template(tokenizer, StudentCard(task=THREE))
    pair = [{"role": "query", "content": "lamp"}, {"role": "document", "content": '{"name": "red"}'}]
    prompt = tokenizer.apply_chat_template(pair, chat_template=template, tokenize=False)
    assert sample_text({"query": "lamp", "title": '{"name": "red"}', "brand": ""}) in prompt


# -- the head -------------------------------------------------------------------------------------


def drawn(k, seed=0, cap=0.0):
    rng = np.random.default_rng(seed)
    task = TASK.model_copy(update={"grades": tuple(Grade(symbol=str(i), name=str(i), value=i * i) for i in range(k))})
    rows = GradeRows(rng.normal(size=(k, 8)), rng.normal(size=k), cap)
    read = rng.normal(size=(200, 8)) + 1
    logits = read @ rows.weight.T + rows.bias
    return task, rows, read, cap * np.tanh(logits / cap) if cap else logits


@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_layers_give_the_expected_grade_exactly(k, cap):
    task, rows, read, logits = drawn(k, cap=cap)
    bias = np.linspace(-1, 1, k)
    calibration = Calibration(strategy="bias", temperature=0.7, bias=tuple(bias))
    found = read
    for layer in layers(rows, task, calibration):
        found = layer(found)
    assert found[:, 0] == pytest.approx(calibration.apply(softmax(logits)) @ levels(task), abs=1e-6)


def test_two_grades_are_one_label_exactly_and_more_are_a_fit():
    _, rows, read, logits = drawn(2)
    weight, bias = exact_label(rows, None, biased=True)
    wanted = softmax(logits)[:, 1]
    assert 1 / (1 + np.exp(-(read @ weight + bias))) == pytest.approx(wanted)
    assert exact_label(rows, None, biased=False) is None  # a bias that cannot be written
    assert exact_label(drawn(3)[1], None, biased=True) is None
    weight, bias = fitted_label(rows, read, wanted, biased=True)
    assert 1 / (1 + np.exp(-(read @ weight + bias))) == pytest.approx(wanted, abs=0.01)


def test_cut_points_are_where_fewest_rows_are_on_another_side():
    scores, grades = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9]), np.array([0, 1, 0, 1, 2, 2])
    assert cut_points(scores, grades, 3) == pytest.approx([0.15, 0.65])
    assert cut_points(scores, np.zeros(6, dtype=int), 3).tolist() == [1.0, 1.0]
    assert cut_points(scores, np.full(6, 2), 3).tolist() == [0.0, 0.0]
    rng = np.random.default_rng(0)
    scores, grades = rng.random(50), rng.integers(0, 2, 50)
    [found] = cut_points(scores, grades, 2)
    wrong = [int(np.sum((scores >= cut) != grades)) for cut in (found, *scores, 1.1)]
    assert wrong[0] == min(wrong)


def test_a_loss_is_told_by_group():
    gold = [0, 2, 1, 2, 0, 1, 2, 0]
    groups = [group for group in "abcd" for _ in range(2)]
    right = np.eye(3)[gold]
    told = {"grades": np.array(gold), "before": right, "cuts": np.array([0.25, 0.75])}
    same = export_loss("dev", groups, gold, TASK, after=right, **told)
    assert (same.accuracy, same.ndcg, same.groups) == ((1.0, 1.0), (1.0, 1.0), 4)
    turned = export_loss("dev", groups, gold, TASK, after=1 - right @ levels(TASK), **told)
    assert turned.accuracy == (1.0, 0.25)
    assert turned.ndcg[1] < 1
    assert turned.accuracy_gain.mean == -0.75
    nominal = export_loss("dev", groups, gold, TASK.model_copy(update={"ordered": False}), after=right, **told)
    assert nominal.ndcg is None


# -- vLLM -----------------------------------------------------------------------------------------


def asked(url, path, body):
    request = urllib.request.Request(
        url.removesuffix("/v1") + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.mark.integration
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["lm", "encoder"])
def test_vllm_scores_and_reranks_with_one_label(world, name, tmp_path, capsys):
    line = ["train", "export", str(world[name]), "-o", str(tmp_path / "out"), "--as", "score"]
    assert main([*line, "--shards", str(world["shards"])]) == 0
    print(capsys.readouterr().out)
    wanted = cross_encoder(tmp_path / "out").predict(PAIRS)
    more = {
        "lm": ["--chat-template", str(tmp_path / "out" / "chat_template.jinja")],
        "encoder": ["--max-model-len", "256"],
    }
    with http_server(tmp_path / "out", tmp_path / "log", "--runner", "pooling", *more[name]) as url:
        told = asked(url, "/score", {"model": "tiny", "text_1": "red lamp", "text_2": list(TEXTS)})
        ranked = asked(url, "/rerank", {"model": "tiny", "query": "red lamp", "documents": list(TEXTS)})
    assert [row["score"] for row in told["data"]] == pytest.approx(wanted.tolist(), abs=1e-3)
    found = {row["index"]: row["relevance_score"] for row in ranked["results"]}
    assert [found[i] for i in range(len(TEXTS))] == pytest.approx(wanted.tolist(), abs=1e-3)


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_vllm_classifies_with_a_label_for_each_grade(world, tmp_path):
    export(world["lm"], tmp_path / "out", shards=world["shards"])
    student = load_student(world["lm"], device="cpu")
    samples = [{"query": query, "title": title} for query, title in PAIRS]
    prompts = student.prompts(samples)
    with http_server(tmp_path / "out", tmp_path / "log", "--runner", "pooling") as url:
        told = asked(url, "/classify", {"model": "tiny", "input": prompts})
    for row, said in zip(told["data"], student.score(samples), strict=True):
        assert row["probs"] == pytest.approx(said.raw, abs=1e-3)
