"""A frozen encoder pools as its folder says, reads control tokens as text, and other folders are refused in words."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from store.errors import PiarError
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_model import make_tiny_model
from trainers.embedding import Encoder
from trainers.pooling import POOLS

TEXTS = ["red lamp", "a big blue chair with a lamp of 40 cm", "hat", "", "the green table for the shoe"]


def by_hand(folder, text, pooling):
    """One text alone, without padding."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    places = torch.arange(1.0, len(states) + 1)[:, None]
    ways = {"mean": states.mean(0), "cls": states[0], "lasttoken": states[-1], "max": states.amax(0)}
    ways |= {"mean_sqrt_len_tokens": states.sum(0), "weightedmean": (states * places).sum(0)}  # but for their lengths
    return (ways[pooling] / ways[pooling].norm()).numpy()


@pytest.mark.parametrize("pooling", POOLS)
def test_it_pools_as_its_folder_says_whatever_stands_beside_a_text(tmp_path, pooling):
    folder = make_tiny_encoder(tmp_path / "e", pooling=pooling)
    found = Encoder.load(folder).embed(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        assert vector == pytest.approx(by_hand(folder, text, pooling), abs=1e-5)


def test_a_folder_that_pads_on_the_left_says_the_same_of_a_text_whatever_stands_beside_it(tmp_path):
    folder = make_tiny_encoder(tmp_path / "e")
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(folder)
    for text, vector in zip(TEXTS, Encoder.load(folder).embed(TEXTS), strict=True):
        assert vector == pytest.approx(by_hand(folder, text, "mean"), abs=1e-5)


def test_a_plain_encoder_is_pooled_by_the_mean(tmp_path):
    folder = make_tiny_encoder(tmp_path / "e")
    assert Encoder.load(folder).embed(["red hat"])[0] == pytest.approx(by_hand(folder, "red hat", "mean"), abs=1e-5)


def test_control_tokens_in_a_text_are_text(tmp_path):
    folder = make_tiny_encoder(tmp_path / "e")
    said = Encoder.load(folder).embed(["red [SEP] hat"])[0]
    assert not np.allclose(said, by_hand(folder, "red [SEP] hat", "mean"), atol=1e-3)


def test_long_texts_are_cut_and_counted(tmp_path):
    encoder = Encoder.load(make_tiny_encoder(tmp_path / "e", length=16))
    long = "red " * 5_000
    found = encoder.embed([long, "red " * 14, "red"])
    assert encoder.tokens == 16
    assert encoder.cut == 1
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_what_is_no_encoder_is_refused_in_words(tmp_path):
    with pytest.raises(PiarError, match="no config"):
        Encoder.load(tmp_path)
    with pytest.raises(PiarError, match="is no text encoder: 'qwen3'"):
        Encoder.load(make_tiny_model(tmp_path / "lm"))
    pickled = make_tiny_encoder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(PiarError, match="pickled"):
        Encoder.load(pickled)
