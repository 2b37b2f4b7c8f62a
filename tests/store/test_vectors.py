"""Vectors are made once a text, never mixed up, and nothing that happens to their file stops the work."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from store.errors import PiarError
from store.vectors import VectorCache


class Maker:
    """Vectors that tell their text; counts what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return np.array([[len(text), sum(map(ord, text)) % 97] for text in texts])


def told(texts):
    return Maker()(texts).tolist() if texts else []


@pytest.mark.parametrize("place", [None, "sub/v.sqlite"])
def test_each_text_is_made_once_and_comes_back_in_order(tmp_path, place):
    make, cache = Maker(), VectorCache(tmp_path / place if place else None)
    texts = [f"text {i % 700}" for i in range(1500)] + ["", "\ud800 half"]
    assert cache.vectors(texts, make).tolist() == told(texts)
    assert cache.vectors(texts[::-1], make).tolist() == told(texts[::-1])
    assert len(make.asked) == len(set(texts))
    assert cache.vectors([], make).shape[0] == 0


def test_another_process_finds_them_and_git_does_not(tmp_path):
    path = tmp_path / "embeddings" / "v.sqlite"
    VectorCache(path).vectors(["a", "b"], Maker())
    make = Maker()
    assert VectorCache(path).vectors(["b", "c"], make).tolist() == told(["b", "c"])
    assert make.asked == ["c"]
    assert (path.parent / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("harm", ["noise", "middle", "removed", "folder"])
def test_a_file_that_is_harmed_costs_time_alone(tmp_path, harm):
    path, texts = tmp_path / "e" / "v.sqlite", [f"text {i}" for i in range(3000)]
    VectorCache(path).vectors(texts, Maker())
    if harm == "noise":
        path.write_bytes(b"no database at all" * 100)
    elif harm == "middle":
        data = bytearray(path.read_bytes())
        data[8192:-4096] = b"\xff" * (len(data) - 12288)
        path.write_bytes(data)
    else:
        path.unlink()
    if harm == "folder":
        path.mkdir()
    for _ in range(2):
        assert VectorCache(path).vectors(texts, Maker()).tolist() == told(texts)


def test_an_interruption_keeps_what_was_made(tmp_path):
    path, texts = tmp_path / "v.sqlite", [f"text {i}" for i in range(2000)]

    def stops(part):
        if "text 1999" in part:
            raise KeyboardInterrupt
        return Maker()(part)

    with pytest.raises(KeyboardInterrupt):
        VectorCache(path).vectors(texts, stops)
    make = Maker()
    VectorCache(path).vectors(texts, make)
    assert 0 < len(make.asked) < 1100


def test_a_file_that_another_process_holds_is_neither_waited_for_for_ever_nor_removed(tmp_path, monkeypatch):
    path, connect = tmp_path / "v.sqlite", sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **told: connect(*args, **told | {"timeout": 0.1}))
    cache = VectorCache(path)
    cache.vectors(["a"], Maker())
    with closing(connect(path)) as other:
        other.execute("begin exclusive")
        make = Maker()
        assert cache.vectors(["a", "b"], make).tolist() == told(["a", "b"])
        assert make.asked == ["a", "b"]
    assert cache.known(["a", "b"]) == [True, False]


@pytest.mark.parametrize("value", ["zeroblob(7)", "5", "'abcdefgh'"])
@pytest.mark.parametrize("keep", [True, False])
def test_what_is_no_vector_is_refused_with_the_files_name(tmp_path, value, keep):
    path = tmp_path / "v.sqlite"
    VectorCache(path).vectors(["a"], Maker())
    with closing(sqlite3.connect(path)) as con, con:
        con.execute(f"update vector set value = {value}")
    with pytest.raises(PiarError, match=r"v\.sqlite holds .* several sizes"):
        VectorCache(path, keep=keep).vectors(["a"], Maker())


def test_a_file_with_other_columns_is_begun_anew(tmp_path):
    path = tmp_path / "v.sqlite"
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("create table vector (text, number)")
    assert VectorCache(path).vectors(["a"], Maker()).tolist() == told(["a"])
    assert VectorCache(path).known(["a"]) == [True]


def test_a_damaged_file_that_cannot_be_removed_stops_no_work(tmp_path, monkeypatch):
    path = tmp_path / "v.sqlite"
    VectorCache(path).vectors(["a"], Maker())
    path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"?"))

    def refuses(*args, **told):
        raise PermissionError("a folder that cannot be written")

    monkeypatch.setattr(Path, "unlink", refuses)
    assert VectorCache(path).vectors(["a", "b"], Maker()).tolist() == told(["a", "b"])


def test_what_is_no_number_is_not_kept(tmp_path):
    path = tmp_path / "v.sqlite"
    broken = VectorCache(path).vectors(["a", "b"], lambda texts: [[np.nan], [1.0]])
    assert np.isnan(broken).tolist() == [[True], [False]]
    assert VectorCache(path).known(["a", "b"]) == [False, True]
