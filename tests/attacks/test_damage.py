"""Files of a project that are damaged, of another kind, or oddly named: a clear word each, and nothing is lost."""

import os
import random
import shutil

import pytest

from piar.cli import main
from piar.project.facade import Project
from piar.review.server import Server
from store.db import Store
from store.errors import PiarError, UsageError
from store.files import MOST_BYTES
from store.journal import Journal
from tests.small_project import TASK, small_project

NOISE = random.Random(0).randbytes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "p"
    small_project(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no name is broken at the end of a line
    return shutil.copytree(whole, tmp_path / "p")


def told(folder, capsys, *verb):
    """What a verb says of a damaged project; nothing in the folder changes by it."""
    before = {p.name for p in folder.iterdir()}
    code = main([*(verb or ("status",)), "-C", str(folder)])
    words = " ".join(capsys.readouterr().err.split())
    assert code in (1, 2)
    assert words.startswith("error ")
    assert " fix " in words
    assert "Traceback" not in words
    assert len(words) < 1500
    assert {p.name for p in folder.iterdir()} == before
    return words


def directory(path):
    path.unlink()
    path.mkdir()


def sparse(path):
    os.truncate(path, MOST_BYTES + 1)


TEXTS = {
    "noise": (lambda path: path.write_bytes(b"\xff" + NOISE(300)), "is not UTF-8: byte 0xff on line 1"),
    "UTF-16": (lambda path: path.write_text("Judge", "utf-16"), "is not UTF-8"),
    "Latin-1": (lambda path: path.write_bytes(b"#\n# caf\xe9\n"), "byte 0xe9 on line 2"),
    "directory": (directory, "is no file"),
    "large": (sparse, "is larger than 16 MB"),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["piar.toml", "task.toml", "instruction.md"])
def test_a_text_that_is_none_is_told(folder, capsys, name, kind):
    damage, words = TEXTS[kind]
    damage(folder / name)
    said = told(folder, capsys)
    assert words in said
    assert name in said


def test_a_byte_order_mark_is_no_damage(folder):
    for name in ("piar.toml", "task.toml", "instruction.md"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert Project.open(folder).instruction().rules


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_an_empty_instruction_is_told(folder, capsys, text):
    (folder / "instruction.md").write_text(text, encoding="utf-8")
    assert "instruction.md is empty" in told(folder, capsys, "label")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("piar.toml", "[label]\nvotes = 1\nvotes = 2\n", "line 3"),
        ("piar.toml", "[label]\nvotes = " + "9" * 5000, "not valid TOML"),
        ("piar.toml", "a = " + "[" * 50_000, "not valid TOML"),
        ("piar.toml", "\n".join(f"k{i} = 1" for i in range(20_000)), "and 19,988 more"),
        ("piar.toml", '"' + "k" * 100_000 + '" = 1', "unknown key"),
        ("piar.toml", "label = 3\n[teacher]\nmodel = [1]\n", "teacher.model"),
        ("piar.toml", "[label]\nsure = nan\n[mining]\nnear = inf\n", "label.sure"),
        ("piar.toml", '[review]\nurl = "https://ann:secret@host"\n', "must hold no user"),
        ("piar.toml", '[review]\nurl = "file:///etc/passwd"\n', "must look like https://host"),
        ("piar.toml", '[teacher]\napi_key = "secret"\n', "teacher.api_key looks like a key"),
        (
            "piar.toml",
            '[teacher]\nmodel = "openai:m"\nextra = {headers = {Authorization = "secret"}}\n',
            "looks like a key",
        ),
        (
            "piar.toml",
            '[teacher]\nextra = {user = ["sk-secret-0123456789abcdef"]}\n',
            "teacher.extra.user looks like a key",
        ),
        ("piar.toml", '[teacher]\napi_key_env = "sk_secret0123456789abcdef"\n', "teacher.api_key_env looks like a key"),
        ("task.toml", "", "fields: Field required"),
        ("task.toml", "name = 3\nfields = 'x'\ngrades = 1\n", "name: Input should be"),
        ("task.toml", "name = 'a'\nname = 'b'\n", "line 2"),
    ],
)
def test_settings_that_do_not_hold_are_told_in_few_words(folder, capsys, name, text, words):
    (folder / name).write_text(text)
    said = told(folder, capsys)
    assert words in said
    assert "secret" not in said


def test_settings_that_are_no_keys_are_taken(folder):
    values = ["teacher.model=openai:sk-model-of-some-long-name-4", 'teacher.extra={top_p = 0.5, stop = ["###"]}',
              "review.token_env=LABEL_STUDIO_API_KEY", "teacher.api_key_env=HF_TOKEN_OF_THE_WHOLE_TEAM"]  # fmt: skip
    assert Project.open(folder, values).config.review.token_env == "LABEL_STUDIO_API_KEY"


def test_an_address_with_a_password_is_refused_before_anything_is_sent():
    with pytest.raises(UsageError, match="must hold no user") as said:
        Server("https://ann:secret@127.0.0.1:1", "token")
    assert "secret" not in str(said.value)


# -- the store ------------------------------------------------------------------------------------


def blocks(path):
    with path.open("r+b") as file:
        file.seek(12_288)
        file.write(NOISE(path.stat().st_size - 12_288))


STORES = {
    "blocks": (blocks, "is damaged"),
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "noise": (lambda path: path.write_bytes(NOISE(100_000)), "is damaged"),
    "directory": (directory, "is no file"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is no file"),
    "dead link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "There is no store"),
}


@pytest.mark.parametrize("verb", [("status",), ("label",), ("sql", "select sum(hash(l)) from labels l"), ("mine",)])
@pytest.mark.parametrize("kind", STORES)
def test_a_damaged_store_is_told_and_left_as_it_is(folder, capsys, kind, verb):
    damage, words = STORES[kind]
    damage(folder / "piar.duckdb")
    before = (folder / "piar.duckdb").read_bytes() if (folder / "piar.duckdb").is_file() else b""
    said = told(folder, capsys, *verb)
    assert words in said or (verb[0] == "sql" and "The statement failed" in said)
    after = (folder / "piar.duckdb").read_bytes() if (folder / "piar.duckdb").is_file() else b""
    assert after == before


def test_a_store_of_a_newer_version_is_told(folder, capsys):
    store = Store.open(folder / "piar.duckdb", TASK)
    with store.write() as con:
        con.execute("update meta set value = '99' where key = 'schema'")
    assert "was made by a newer piar (schema 99" in told(folder, capsys)


def test_a_store_behind_a_link_is_a_store(folder):
    (folder / "piar.duckdb").rename(folder.parent / "elsewhere.duckdb")
    (folder / "piar.duckdb").symlink_to(folder.parent / "elsewhere.duckdb")
    project = Project.open(folder)
    project.store.start_run("test", {})
    assert project.sql("select count(*) as n from runs where verb = 'test'")["n"].to_list() == [1]
    assert (folder / "piar.duckdb").is_symlink()


@pytest.mark.parametrize(
    "name", ["a#b", "a%20b", "a b", "a'b", 'a"b', "ünï", "md:x", "s3:x", ":memory:", "-x", "a;b", "a[1]b", "a*b",
             "a{b}", "a$b", "a\nb", "''; drop table samples; --", "http:x", "postgres:x", "sqlite:x", "duckdb:x"],
)  # fmt: skip
def test_a_folder_may_be_named_as_one_likes(whole, tmp_path, name, monkeypatch):
    shutil.copytree(whole, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for place in (name, tmp_path / name):
        project = Project.open(place)
        project.store.start_run("test", {})
    assert project.sql("select count(*) as n from runs where verb = 'test'")["n"].to_list() == [2]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert project.export("labels", tmp_path / name / "out.csv") == 16
    project.curriculum_export(tmp_path / name / "shards")


def test_a_folder_whose_name_the_database_cannot_take_is_refused_and_left_as_it_was(tmp_path):
    for name in ("a?b", "a\\b"):
        with pytest.raises(UsageError, match=r"A store cannot lie in a folder with"):
            Project.init(tmp_path / name, example="shop", pairs=30)
    assert list(tmp_path.rglob("*.duckdb*")) == []


# -- the journal ----------------------------------------------------------------------------------


def test_a_journal_of_garbage_links_and_pipes_loses_nothing_and_waits_for_nothing(folder, caplog):
    journal = folder / "journal"
    journal.mkdir(exist_ok=True)
    (folder / "private").write_text("private\n")
    ours = [journal / f"{n:020d}-1-abcdef.jsonl" for n in range(4)]  # named as segments are
    ours[0].write_bytes(NOISE(50_000) + b"\n" * 100 + b'{"at": 1}\n[]\n' + b"[" * 100_000)
    ours[1].mkdir()
    os.mkfifo(ours[2])
    ours[3].symlink_to(folder / "private")
    (journal / "notes.jsonl").write_text('{"somebody": "else"}\n')
    reading = Journal(journal)
    assert reading.fold(Store.open(folder / "piar.duckdb", TASK)) == 0
    assert reading.corrupt > 100
    assert (folder / "private").read_text() == "private\n"
    assert b"private" not in b"".join(p.read_bytes() for p in journal.glob("*.corrupt"))
    assert not ours[0].exists()
    assert (journal / "notes.jsonl").read_text() == '{"somebody": "else"}\n'


def test_a_journal_that_leads_elsewhere_is_refused_and_nothing_there_is_touched(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "notes.jsonl").write_text("precious\n")
    shutil.rmtree(folder / "journal", ignore_errors=True)
    (folder / "journal").symlink_to(elsewhere)
    with pytest.raises(PiarError, match="is a link"):
        Project.open(folder).label("true")
    assert [p.name for p in elsewhere.iterdir()] == ["notes.jsonl"]


def test_a_journal_that_is_no_folder_is_told(folder):
    shutil.rmtree(folder / "journal", ignore_errors=True)
    (folder / "journal").write_text("x")
    with pytest.raises(PiarError, match="journal"):
        Project.open(folder).label("true")
