"""Encoders of many kinds, tiny and random: other tasks' heads, padding that is read, models of more than texts."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from store.errors import PiarError
from store.manifest import read_manifest
from tests.shards_fixture import TASK, write_shards
from tests.tiny_encoder import make_tiny_encoder
from trainers.config import EncoderSettings
from trainers.data import read_rows
from trainers.embedding import Encoder
from trainers.encoded import predict
from trainers.encoder import train
from trainers.folder import load_classifier, load_tokenizer
from trainers.students import load_student

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "max_position_embeddings": 70}
MOBILE = {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 1}
READ_PADDING = {
    "fnet": {},
    "mobilebert": MOBILE,
    "convbert": {"embedding_size": 32, "conv_kernel_size": 3},
    "nystromformer": {"conv_kernel_size": 3, "num_landmarks": 4, "segment_means_seq_len": 4},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 24, held_out=12)
    return folder


def made(folder, family, door=AutoModel, **more):
    make_tiny_encoder(folder)
    torch.manual_seed(0)
    config = {"vocab_size": len(AutoTokenizer.from_pretrained(folder)), **IDS, **SIZE, **more}
    model = door.from_config(AutoConfig.for_model(family, **config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("labels", [1, 5])
def test_a_head_for_another_number_of_labels_is_replaced(shards, tmp_path, labels):
    folder = made(tmp_path / "reranker", "bert", AutoModelForSequenceClassification, num_labels=labels)
    done = train(shards, tmp_path / "run", settings=EncoderSettings(model=str(folder), epochs=1))
    [scored] = load_student(done.checkpoint).score([{"query": "red lamp", "title": "red lamp"}])
    assert len(scored.probs) == len(TASK.grades)


def test_a_layer_of_another_size_below_the_head_is_no_new_head(shards, tmp_path):
    folder = made(tmp_path / "harmed", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(PiarError, match="another model"):
        train(shards, tmp_path / "run", settings=EncoderSettings(model=str(folder), epochs=1))


@pytest.mark.parametrize("family", READ_PADDING)
def test_what_stands_beside_a_text_changes_nothing_where_padding_is_read(shards, tmp_path, family):
    folder = made(tmp_path / "encoder", family, **READ_PADDING[family])
    encoder, texts = Encoder.load(folder), ["red lamp", "a big blue chair with a lamp of 40 cm", "hat"]
    assert np.allclose(encoder.embed(texts), np.concatenate([encoder.embed([text]) for text in texts]), atol=1e-5)
    model = load_classifier(str(folder), num_labels=3)
    with torch.no_grad():
        for weight in model.classifier.parameters():  # a new head hardly tells two texts apart
            weight.normal_()
    rows, tokenizer = read_rows(shards, read_manifest(shards), "eval")["dev"], load_tokenizer(str(folder))
    together = predict(model, tokenizer, rows, TASK, 64)
    alone = np.concatenate([predict(model, tokenizer, [row], TASK, 64) for row in rows])
    assert np.allclose(together, alone, atol=1e-5)


def test_a_sentence_encoder_may_stand_on_a_model_of_pictures_and_text(tmp_path):
    make_tiny_encoder(tmp_path, pooling="mean")
    vocabulary = len(AutoTokenizer.from_pretrained(tmp_path))
    text = {"vocab_size": vocabulary, "num_key_value_heads": 1, "head_dim": 16, **IDS, **SIZE}
    AutoModel.from_config(AutoConfig.for_model("gemma3", text_config=text)).save_pretrained(tmp_path)
    assert Encoder.load(tmp_path).embed(["red lamp", "hat"]).shape == (2, 32)


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("canine", {"type_vocab_size": 2}, "canine reads other things than the tokens of a vocabulary"),
        (
            "lilt",
            {"max_2d_position_embeddings": 64, "channel_shrink_ratio": 4, "num_attention_heads": 4},
            "on a text alone",
        ),
    ],
)
def test_an_encoder_of_other_things_is_refused_in_words(shards, tmp_path, family, more, says):
    folder = made(tmp_path / "encoder", family, **more)
    with pytest.raises(PiarError, match=says):
        train(shards, tmp_path / "run", settings=EncoderSettings(model=str(folder), epochs=1))
