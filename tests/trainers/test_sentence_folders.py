"""Folders of sentence-transformers: the vectors that its package gives, or the cause why there are none."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from piar.measure import baselines
from piar.measure.embeddings import BaselineSettings, Embedder, embedder
from store.errors import PiarError, UsageError
from store.manifest import read_manifest
from tests.shards_fixture import TASK, write_shards
from tests.tiny_encoder import FAMILIES, make_sentence_encoder
from tests.tiny_model import make_tiny_model
from trainers.config import EncoderSettings
from trainers.data import read_rows
from trainers.embedding import Encoder
from trainers.encoded import encode
from trainers.encoder import train
from trainers.probe import pair_features
from trainers.sentence_folder import here
from trainers.students import load_student

TEXTS = ["red lamp", "a Big blue chair with a LAMP of 40 cm", "hat", "", "the green table for the shoe " * 3]
PROMPTS = {"query": "big red ", "document": "the table "}
DENSE = ("Dense", {"out_features": 20, "activation_function": "torch.nn.modules.activation.Tanh"})
NORMALIZE = ("Normalize", {})
FOLDERS = {  # what a folder holds -> how it is made
    "poolings side by side, a LayerNorm": {
        "poolings": ["cls", "max", "mean"],
        "layers": [
            ("Dense", {"out_features": 20, "bias": False, "activation_function": "torch.nn.Identity"}),
            ("LayerNorm", {}),
            NORMALIZE,
        ],
    },
    "a residual, newer names": {
        "poolings": ["mean_sqrt_len_tokens"],
        "layers": [("Dense", {"use_residual": True, "activation_function": "torch.nn.modules.activation.GELU"}), DENSE],
        "newer": True,
    },
    "prompts that are not pooled": {
        "poolings": ["weightedmean", "mean", "max", "cls", "lasttoken"],
        "prompts": PROMPTS,
        "include_prompt": False,
    },
    "padding on the left": {
        "poolings": ["weightedmean", "mean", "cls", "lasttoken"],
        "layers": [DENSE],
        "prompts": PROMPTS,
        "include_prompt": False,
        "padding_side": "left",
    },
    "lower case": {"lower": True, "layers": [NORMALIZE], "prompts": {"query": "red "}},
    "a body in a folder of its own": {"body": "0_Transformer", "layers": [NORMALIZE]},
}


def theirs(folder):
    """Vectors by the package itself: of texts without a role, of queries, of documents. Each text alone: where pads are
    on the left and positions are counted, the package's vectors hang on the texts beside them, and ours do not."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ways = {None: model.encode, "query": model.encode_query, "document": model.encode_document}
    return {role: [way(text, normalize_embeddings=True) for text in TEXTS] for role, way in ways.items()}


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_vectors_of_the_package(family, tmp_path):
    last = ["lasttoken"] if family == "qwen3" else ["mean"]
    folder = make_sentence_encoder(
        tmp_path / "e", family, last, [DENSE, NORMALIZE], prompts=PROMPTS, padding_side="left"
    )
    ours = Encoder.load(folder)
    for role, vectors in theirs(folder).items():
        assert ours.embed(TEXTS, role) == pytest.approx(np.array(vectors), abs=1e-5)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_gives_the_vectors_of_the_package(name, tmp_path):
    folder = make_sentence_encoder(tmp_path / "e", **FOLDERS[name])
    ours = Encoder.load(folder)
    for role, vectors in theirs(folder).items():
        assert ours.embed(TEXTS, role) == pytest.approx(np.array(vectors), abs=1e-5)


# -- by hand, one text alone and without padding --------------------------------------------------


def states_of(folder, text, prompt=""):
    """States of a text's tokens, and how many of them are the prompt's."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = model(**tokenizer(prompt + text, return_tensors="pt")).last_hidden_state[0]
    return states, len(tokenizer(prompt)["input_ids"]) - 1 if prompt else 0


def test_layers_behind_the_pooling_are_applied_in_their_order(tmp_path):
    folder = make_sentence_encoder(tmp_path / "e", "bert", ["mean", "cls"], [DENSE, ("LayerNorm", {})])
    found = Encoder.load(folder).embed(TEXTS)
    dense, norm = load_file(folder / "2_Dense/model.safetensors"), load_file(folder / "3_LayerNorm/model.safetensors")
    for text, vector in zip(TEXTS, found, strict=True):
        states, _ = states_of(folder, text)
        pooled = torch.cat([states[0], states.mean(0)])
        out = torch.tanh(dense["linear.weight"] @ pooled + dense["linear.bias"])
        out = (out - out.mean()) / (out.var(unbiased=False) + 1e-5).sqrt() * norm["norm.weight"] + norm["norm.bias"]
        assert vector == pytest.approx((out / out.norm()).numpy(), abs=1e-5)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_prompt_stands_before_the_texts_of_its_role_and_is_pooled_as_the_folder_says(tmp_path, pooled):
    folder = make_sentence_encoder(tmp_path / "e", poolings=["weightedmean"], prompts=PROMPTS, include_prompt=pooled)
    found = Encoder.load(folder).embed(TEXTS, "document")
    for text, vector in zip(TEXTS, found, strict=True):
        states, own = states_of(folder, text, PROMPTS["document"])
        begins = 0 if pooled else own
        weights = torch.arange(begins + 1, len(states) + 1.0)
        out = (states[begins:] * weights[:, None]).sum(0)
        assert vector == pytest.approx((out / out.norm()).numpy(), abs=1e-5)


def test_a_passage_prompt_is_a_documents_and_a_usual_one_is_everybodys(tmp_path):
    passage = make_sentence_encoder(tmp_path / "e5", prompts={"query": "red ", "passage": "the big ", "document": ""})
    of = Encoder.load(passage).embed
    assert of(["hat"], "document") == pytest.approx(of(["the big hat"]), abs=1e-5)
    usual = make_sentence_encoder(tmp_path / "usual", prompts={"same": "the big "}, usual="same")
    of = Encoder.load(usual).embed
    assert of(["hat"], "query") == pytest.approx(of(["hat"]), abs=1e-5)
    assert not np.allclose(of(["hat"]), Encoder.load(passage).embed(["hat"]), atol=1e-3)


def test_lower_case_is_as_the_folder_says(tmp_path):
    found = Encoder.load(make_sentence_encoder(tmp_path / "e", lower=True))._tokenizer.backend_tokenizer.normalizer
    assert found.normalize_str("ÄB") != "ÄB"


def test_half_precision_is_computed_in_float32(tmp_path):
    folder = make_sentence_encoder(tmp_path / "e")
    before = Encoder.load(folder).embed(TEXTS)
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    encoder = Encoder.load(folder)
    assert encoder._model.dtype == torch.float32
    assert encoder.embed(TEXTS) == pytest.approx(before, abs=1e-2)


# -- what is refused ------------------------------------------------------------------------------


SETTINGS, MODELS = "config_sentence_transformers.json", "sentence_transformers.models"
REFUSED = {  # what is changed in which file (in which step of modules.json) -> the cause that is said
    "custom_st.Transformer.*never run": ("modules.json", {"type": "custom_st.Transformer"}, 0),
    "by Transformer, Pooling, LSTM": ("modules.json", {"type": f"{MODELS}.LSTM"}, 2),
    "by StaticEmbedding": ("modules.json", {"type": f"{MODELS}.StaticEmbedding"}, 0),
    "no sentence encoder but a CrossEncoder": (SETTINGS, {"model_type": "CrossEncoder"}),
    "control token '.SEP.'": (SETTINGS, {"prompts": {"query": "[SEP] "}}),
    "through a chat template": ("sentence_bert_config.json", {"modality_config": {"message": {}}}),
    "pools by attention": ("1_Pooling/config.json", {"pooling_mode": "attention"}),
    "activation 'mine.Act'": ("2_Dense/config.json", {"activation_function": "mine.Act"}),
    "activation 'torch.nn.Linear'": ("2_Dense/config.json", {"activation_function": "torch.nn.Linear"}),
    "reads 'token_embeddings'": ("2_Dense/config.json", {"module_input_name": "token_embeddings"}),
    "no weights of a layer Dense": ("2_Dense/config.json", {"in_features": 7}),
    "no whole config.json": ("2_Dense/config.json", {"in_features": None}),
}


def change(path, changes, step=None):
    told = json.loads(path.read_text())
    (told if step is None else told[step]).update(changes)
    path.write_text(json.dumps(told))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return make_sentence_encoder(tmp_path_factory.mktemp("dense") / "e", layers=[DENSE])


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_not_known_here_is_refused_with_its_cause(dense, tmp_path, said):
    folder = shutil.copytree(dense, tmp_path / "e")
    name, *changes = REFUSED[said]
    change(folder / name, *changes)
    with pytest.raises(PiarError, match=said):
        Encoder.load(folder)


@pytest.mark.parametrize("reads", ["together", "apart"])
def test_a_tokenizer_of_another_model_is_refused(shards, tmp_path, reads):
    folder = make_sentence_encoder(tmp_path / "e")
    make_tiny_model(tmp_path / "other", width=64, layers=1)
    shutil.copy(tmp_path / "other" / "tokenizer.json", folder)
    with pytest.raises(PiarError, match="its model knows 95"):
        train(shards, tmp_path / "run", settings=EncoderSettings(model=str(folder), reads=reads))


def test_an_added_token_without_a_row_is_read_as_text(tmp_path):
    folder = make_sentence_encoder(tmp_path / "e")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["lamp7"])
    tokenizer.save_pretrained(folder)
    assert np.isfinite(Encoder.load(folder).embed(["a lamp7 and a hat"])).all()


def test_layers_that_cannot_be_read_are_refused(dense, tmp_path):
    weights = "2_Dense/model.safetensors"
    folder = shutil.copytree(dense, tmp_path / "pickled")
    (folder / weights).rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(PiarError, match="2_Dense has its weights in a pickled file"):
        Encoder.load(folder)
    folder = shutil.copytree(dense, tmp_path / "misfit")
    change(folder / "2_Dense/config.json", {"in_features": 7})
    save_file({"linear.weight": torch.ones(20, 7), "linear.bias": torch.ones(20)}, folder / weights)
    with pytest.raises(PiarError, match="do not fit each other"):
        Encoder.load(folder)


# -- as a baseline and as a student ---------------------------------------------------------------


def test_a_baseline_reads_queries_and_documents_by_their_prompts(tmp_path):
    folder = make_sentence_encoder(tmp_path / "e", prompts=PROMPTS)
    kept = Embedder(folder, tmp_path / "v")
    asked = [kept(TEXTS), kept(TEXTS, "query"), kept(TEXTS, "document")]
    assert not np.allclose(asked[0], asked[1], atol=1e-3)
    again = Embedder(folder, tmp_path / "v")
    for role, found in zip((None, "query", "document"), asked, strict=True):
        assert np.array_equal(again(TEXTS, role), found)
    assert "_encoder" not in vars(again)  # not even loaded
    rows = pl.DataFrame({"query": TEXTS * 4, "title": TEXTS[::-1] * 4, "gold": ["0", "1", "2", "0"] * 5})

    def by_hand(texts):
        return asked[1][[TEXTS.index(text) for text in texts]] if texts == rows["query"].to_list() else documents(texts)

    def documents(texts):
        return asked[2][[TEXTS.index(text) for text in texts]]

    found = baselines.fit("probe", rows, TASK, embed=kept).predict(rows)
    assert found == pytest.approx(baselines.fit("probe", rows, TASK, embed=by_hand).predict(rows), abs=1e-6)
    no_query = TASK.model_copy(update={"group_by": "who"})
    plain = baselines.fit("probe", rows, no_query, embed=kept).predict(rows)
    assert plain == pytest.approx(baselines.fit("probe", rows, no_query, embed=lambda t: kept(t)).predict(rows))


def test_a_name_of_the_hub_is_the_folder_that_was_downloaded(tmp_path, monkeypatch):
    kept = tmp_path / "models--org--small" / "snapshots" / "abc"
    make_sentence_encoder(kept)
    (tmp_path / "models--org--small" / "refs").mkdir()
    (tmp_path / "models--org--small" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert here("org/small") == embedder(BaselineSettings(encoder="org/small")).folder == kept
    with pytest.raises(UsageError, match="there is no folder org/large"):
        embedder(BaselineSettings(encoder="org/large"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 60, held_out=20)
    return folder


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_a_student_of_one_begins_as_the_probe_of_its_vectors(shards, tmp_path, family):
    folder = make_sentence_encoder(
        tmp_path / "e", family, ["mean", "lasttoken"], [DENSE], prompts=PROMPTS, include_prompt=False
    )
    settings = EncoderSettings(model=str(folder), epochs=0.1, learning_rate=1e-9)
    student = load_student(train(shards, tmp_path / "run", settings=settings).checkpoint)
    shutil.rmtree(folder)  # it needs nothing of it
    folder = make_sentence_encoder(
        tmp_path / "e", family, ["mean", "lasttoken"], [DENSE], prompts=PROMPTS, include_prompt=False
    )
    rows = read_rows(shards, read_manifest(shards), "eval")["dev"]
    tokens = encode(student.model, student.tokenizer, [row["fields"] for row in rows], TASK, student.most)
    asked, others = zip(*(row["fields"] for row in rows), strict=True)
    embed = Embedder(folder)
    vectors = pair_features(embed(asked, "query"), embed(others, "document"))  # as the baseline `probe` has them
    seen = student.model.features(student.tokenizer, tokens)
    assert seen[:, : vectors.shape[1]] == pytest.approx(vectors, abs=1e-4)


def test_a_student_that_was_saved_before_layers_were_known_opens(shards, tmp_path):
    folder = make_sentence_encoder(tmp_path / "e", poolings=["cls"])
    done = train(shards, tmp_path / "run", settings=EncoderSettings(model=str(folder), epochs=0.1)).checkpoint
    sample = [{"query": "red lamp", "title": "blue lamp"}]
    (done / "COMPLETE").unlink()
    head = done / "head.safetensors"
    told, vectors = load_file(head), 4 * 32
    silent = told | {"weight": told["weight"].clone()}
    silent["weight"][:, vectors:] = 0  # cosines and letters say nothing
    with safe_open(head, "pt") as file:
        save_file(silent, head, file.metadata())
    now = load_student(done).score(sample)[0].probs
    old = {name: tensor[..., :vectors].contiguous() if name != "bias" else tensor for name, tensor in told.items()}
    save_file(old, head, {"pooling": "cls", "texts": "2"})
    assert load_student(done).score(sample)[0].probs == pytest.approx(now, abs=1e-6)
