"""Texts that are longer than an encoder student reads: which end stays."""

import pytest

from piar.serve.offer import Offer
from store.errors import PiarError
from tests.shards_fixture import TASK, write_shards
from tests.tiny_encoder import make_sentence_encoder, make_tiny_encoder
from tests.tiny_model import make_tiny_model
from trainers import encoder
from trainers.config import EncoderSettings
from trainers.embedding import Encoder, tokenize
from trainers.encoder import train
from trainers.folder import load_tokenizer
from trainers.students import load_student, session_of

LONG = "the blue chair for the small table " * 60


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut") / "shards"
    write_shards(folder, 90)
    return folder


def taught(shards, folder, reads, keeps):
    model = {
        "together": lambda: "tiny",
        "apart": lambda: str(make_sentence_encoder(folder / "model", prompts={"query": "big red "})),
        "prompted": lambda: str(make_tiny_model(folder / "model", width=64, layers=2)),
    }[reads]()
    told = {"model": model, "reads": reads, "keeps": keeps, "hidden": 64, "layers": 1, "epochs": 0.5, "max_length": 48}
    if reads == "prompted":
        told["beside"] = str(make_tiny_encoder(folder / "beside", pooling="mean"))
    return load_student(train(shards, folder / "run", settings=EncoderSettings(**told)).checkpoint, device="cpu")


def read(student, text):
    """Tokens of a sample whose last field is `text`, as the student and the encoder beside it read them."""
    [one] = student.fitting([dict.fromkeys(TASK.fields, "red lamp") | {TASK.fields[-1]: text}])
    beside = getattr(student.model, "beside", None)
    return list(one), beside and beside.vectors.tokens(beside.tokenizer, [one.said], beside.tokens)


@pytest.mark.parametrize("reads", ["together", "apart", "prompted"])
@pytest.mark.parametrize(("keeps", "end"), [("auto", False), ("start", False), ("end", True)])
def test_the_end_that_is_asked_for_stays(shards, tmp_path, reads, keeps, end):
    student = taught(shards, tmp_path, reads, keeps)
    behind = [read(student, f"{LONG} {word}") for word in ("red", "hat")]
    before = [read(student, f"{word} {LONG}") for word in ("red", "hat")]
    kept, gone = (behind, before) if end else (before, behind)
    assert gone[0] == gone[1]
    assert kept[0][0] != kept[1][0]
    assert kept[0][1] is None or kept[0][1] != kept[1][1]
    assert student.score([dict.fromkeys(TASK.fields, LONG)])[0].grade in TASK.symbols
    assert session_of(student).prompts([dict.fromkeys(TASK.fields, "red lamp")])


@pytest.mark.parametrize(("keeps", "other"), [("start", "end"), ("end", "start")])
def test_cut_rows_are_told_with_the_other_ways(shards, tmp_path, caplog, keeps, other):
    told = EncoderSettings(hidden=64, layers=1, epochs=0.1, max_length=8, keeps=keeps)
    train(shards, tmp_path / "run", settings=told)
    assert f"The {keeps} of a text stays; train.encoder.keeps={other}" in caplog.text


def test_the_frozen_encoder_that_is_compared_with_reads_the_same_end(shards, tmp_path, monkeypatch):
    seen, begin = [], encoder._begin

    def begun(model, tokenizer, *rest):
        seen.append(tokenizer.truncation_side)
        begin(model, tokenizer, *rest)

    monkeypatch.setattr(encoder, "_begin", begun)
    told = {"model": str(make_sentence_encoder(tmp_path / "model")), "reads": "together", "keeps": "end", "epochs": 0.1}
    train(shards, tmp_path / "run", settings=EncoderSettings(**told, max_length=48))
    assert seen == ["left"]


def test_a_server_that_may_cut_a_document_keeps_the_same_end(shards, tmp_path):
    for keeps, place in (("start", 0), ("end", 1)):
        student = taught(shards, tmp_path / keeps, "together", keeps)
        offer = Offer.of(student, ("a",), 9)
        ends = "red lamp", "blue hat"
        text = f"{ends[0]} {LONG} {ends[1]}"
        assert offer.text(text, "documents[0]", cut=True).strip() == ends[place]


def test_a_prompt_in_front_of_a_text_is_never_cut(tmp_path):
    folder = make_sentence_encoder(tmp_path, prompts={"query": "big red "})
    tokenizer = load_tokenizer(str(folder))
    tokenizer.truncation_side = "left"
    [short], [cut] = (tokenize(tokenizer, [text], "big red ", 16) for text in ("hat", f"{LONG} hat"))
    assert (cut[:3], cut[-2:], len(cut)) == (short[:3], short[-2:], 16)


def test_a_folder_whose_tokenizer_cuts_on_the_left_is_followed(tmp_path):
    folder = make_sentence_encoder(tmp_path)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.truncation_side = tokenizer.init_kwargs["truncation_side"] = "left"
    tokenizer.save_pretrained(folder)
    ends = Encoder.load(folder).embed([f"{LONG * 40} {word}" for word in ("red", "red", "hat")])
    starts = Encoder.load(folder).embed([f"{word} {LONG * 40}" for word in ("red", "hat")])
    assert ends[0].tolist() == ends[1].tolist()
    assert abs(ends[0] - ends[2]).max() > 1e-4
    assert starts[0].tolist() == starts[1].tolist()


def test_another_word_for_an_end_is_refused():
    with pytest.raises((PiarError, ValueError), match="keeps"):
        EncoderSettings.model_validate({"keeps": "middle"})
