"""The encoder baseline: learns, is a plain folder, reads any number of fields."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from store.errors import PiarError
from store.manifest import read_manifest
from tests.shards_fixture import write_shards
from trainers.config import EncoderSettings
from trainers.data import read_rows
from trainers.encoder import predict, train

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
    found = predict(model, tokenizer, rows, manifest.task, SMALL)
    for row, probs in zip(rows, found, strict=True):
        alone = model(**tokenizer(*row["fields"], return_tensors="pt")).logits[0].softmax(-1)
        assert torch.allclose(alone, torch.tensor(probs).float(), atol=1e-5)
    assert model.config.id2label == {0: "0", 1: "1", 2: "2"}


def test_a_folder_without_encoder_is_explained(world, tmp_path):
    with pytest.raises(PiarError, match="Cannot load"):
        train(world[0] / "shards", tmp_path, settings=EncoderSettings(model=str(tmp_path)))
