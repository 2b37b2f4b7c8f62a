"""The encoder of `[baselines]`: its baselines learn what words cannot tell, and its vectors are never another one's."""

import json

import numpy as np
import polars as pl
import pytest

from piar.cli import main
from piar.look import look
from piar.measure import baselines
from piar.measure.embeddings import BaselineSettings, Embedder, embedder
from piar.project.facade import Project
from store.errors import PiarError, UsageError
from store.task import Grade, Task
from tests.tiny_encoder import make_tiny_encoder

TASK = Task(
    name="t",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=s, value=i) for i, s in enumerate("012")),
)
ONE = TASK.model_copy(update={"fields": ("title",), "group_by": "who"})


def vectors(texts):
    """A stand-in for an encoder that knows synonyms: every text begins with the number of its direction."""
    angles = np.array([float(text.split()[0]) if text else 0.0 for text in texts])
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def rows(n=400, seed=0):
    """The grade follows from the angle between query and title; no word occurs twice."""
    rng = np.random.default_rng(seed)
    asked, gaps = rng.uniform(0, 6.28, n), rng.uniform(0, 3, n)
    return pl.DataFrame(
        {
            "query": [f"{a:.6f} q{i}" for i, a in enumerate(asked)],
            "title": [f"{a + g:.6f} t{i}" for i, (a, g) in enumerate(zip(asked, gaps, strict=True))],
            "gold": [str(int(g)) for g in gaps],
        }
    )


@pytest.mark.parametrize("name", ["cosine", "probe"])
def test_they_learn_from_meaning_what_words_cannot_tell(name):
    frame = rows()
    probs = baselines.cross_validate(name, frame, TASK, frame["query"], embed=vectors)
    right = np.mean(probs.argmax(axis=1) == frame["gold"].cast(int).to_numpy())
    words = baselines.cross_validate("tfidf_overlap", frame, TASK, frame["query"])
    assert right > 0.8
    assert np.mean(words.argmax(axis=1) == frame["gold"].cast(int).to_numpy()) < 0.5
    assert probs.sum(axis=1) == pytest.approx(np.ones(len(frame)), abs=1e-5)


def test_a_probe_reads_one_field_and_a_cosine_needs_two():
    frame = rows().with_columns(gold=pl.Series([str(int(float(t.split()[0]) % 3)) for t in rows()["title"]]))
    assert baselines.names(ONE, vectors) == ("majority", "tfidf", "tfidf_overlap", "probe")
    assert baselines.fit("probe", frame, ONE, embed=vectors).predict(frame).shape == (400, 3)
    with pytest.raises(UsageError, match="needs two texts"):
        baselines.fit("cosine", frame, ONE, embed=vectors)


def test_without_an_encoder_they_say_how_to_name_one():
    assert baselines.names(TASK) == ("majority", "tfidf", "tfidf_overlap")
    with pytest.raises(UsageError, match="frozen text encoder") as found:
        baselines.fit("probe", rows(), TASK)
    assert "baselines.encoder=PATH" in found.value.fix


def test_rows_without_gold_are_predicted_and_teach_nothing():
    frame = rows().with_columns(gold=pl.when(pl.int_range(pl.len()) % 2 == 0).then("gold"))
    probs = baselines.cross_validate("probe", frame, TASK, frame["query"], embed=vectors)
    assert np.isfinite(probs).all()
    right = probs.argmax(axis=1) == rows()["gold"].cast(int).to_numpy()
    assert right[1::2].mean() > 0.75


# -- a folder -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "e")


def test_vectors_are_kept_and_never_those_of_another_encoder(folder, tmp_path):
    texts = ["red lamp", "blue hat"]
    found = Embedder(folder, tmp_path / "v")(texts)
    again = Embedder(folder, tmp_path / "v")
    assert np.array_equal(again(texts), found)
    assert "_encoder" not in vars(again)  # not even loaded
    other = make_tiny_encoder(tmp_path / "e2", seed=1)
    assert not np.allclose(Embedder(other, tmp_path / "v")(texts), found)
    assert len(list((tmp_path / "v").glob("*.sqlite"))) == 2


def test_cut_texts_are_said(folder, caplog):
    Embedder(folder)(["red " * 500, "red"])
    assert "1 new texts were cut: the encoder is given 64 tokens" in caplog.text


def test_a_folder_is_named_from_the_project_or_from_here(folder, tmp_path):
    assert embedder(BaselineSettings()) is None
    project = folder.parent
    assert embedder(BaselineSettings(encoder="e"), project).folder == project / "e"
    with pytest.raises(UsageError, match="there is no folder nowhere"):
        embedder(BaselineSettings(encoder="nowhere"), project)
    with pytest.raises(UsageError, match="no config"):
        embedder(BaselineSettings(encoder=str(tmp_path)))


# -- verbs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(2)
    words = ["red", "blue", "green", "lamp", "chair", "table", "shoe", "hat"]
    lines = ["query,title,grade"]
    for i in range(240):
        a, b, c = rng.choice(words, 3, replace=False)
        lines.append(f"{a} {b} {i % 40},{a} {c} {i},{int(rng.integers(0, 3))}")
    path = tmp_path_factory.mktemp("file") / "rows.csv"
    path.write_text("\n".join(lines))
    return path


def test_look_shows_them_and_writes_nothing(folder, file):
    before = sorted(folder.rglob("*"))
    report = look(file, embed=embedder(BaselineSettings(encoder=str(folder))))
    assert [b.name for b in report.baselines] == ["majority", "tfidf", "tfidf_overlap", "cosine", "probe"]
    assert sorted(folder.rglob("*")) == before


def test_score_and_report_show_them_beside_any_judge(folder, file, tmp_path, capsys):
    Project.init(tmp_path / "p", from_=file)
    named = ["-C", str(tmp_path / "p"), "--set", f"baselines.encoder={folder}"]
    assert main(["score", "--judge", "baseline:tfidf", "--json", *named]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["baselines"]) == {f"baseline:{n}" for n in ("majority", "tfidf_overlap", "cosine", "probe")}
    assert main(["score", *named]) == 0
    assert main(["report", *named]) == 0
    page = (tmp_path / "p" / "report.html").read_text()
    assert "baseline: probe" in page
    assert "baseline: cosine" in page


def test_a_language_model_is_refused_as_an_encoder(file, tmp_path):
    from tests.tiny_model import make_tiny_model

    with pytest.raises(PiarError, match="is no text encoder"):
        look(file, embed=embedder(BaselineSettings(encoder=str(make_tiny_model(tmp_path / "lm")))))


def test_look_takes_the_encoder_of_the_project_it_is_pointed_at(folder, file, tmp_path, capsys):
    (tmp_path / "piar.toml").write_text('[baselines]\nencoder = "inside"\n')
    (tmp_path / "inside").symlink_to(folder)
    assert main(["look", str(file), "-C", str(tmp_path), "--json"]) == 0
    assert "probe" in [one["name"] for one in json.loads(capsys.readouterr().out)["baselines"]]
    assert not (tmp_path / "embeddings").exists()


def test_a_long_wait_for_vectors_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("piar.measure.embeddings._PATIENCE_SECONDS", 0.0)
    embed = Embedder(make_tiny_encoder(tmp_path / "encoder"))
    embed([f"lamp {i}" for i in range(300)])
    assert [record.getMessage()[:28] for record in caplog.records] == ["embedding 256 of 300 texts ·"]
    caplog.clear()
    embed([f"lamp {i}" for i in range(300)])
    assert not caplog.records
