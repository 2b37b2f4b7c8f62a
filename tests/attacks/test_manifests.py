"""Manifests from other hands: nothing outside their folder is read, sent or written."""

import hashlib
import json
import os
from types import SimpleNamespace

import pytest

from piar.llm.base import Message, Request
from piar.llm.openai.batch_files import Responses, export_requests, read_manifest
from piar.llm.openai.provider_batches import advance
from piar.llm.openai.ray_data import read as read_with_ray
from store import manifest as shards
from store.errors import PiarError, UsageError
from store.files import MOST_BYTES
from tests.shards_fixture import write_shards
from tests.small_project import small_project

SECRET = "private"


class Provider:
    """A provider's batch API that answers at once, and remembers what it was sent."""

    def __init__(self):
        self.sent = []
        self.files = SimpleNamespace(create=self.upload, content=lambda id: SimpleNamespace(text="hostile"))
        batch = SimpleNamespace(id="b", status="completed", output_file_id="o", error_file_id=None, metadata={})
        self.batches = SimpleNamespace(list=lambda: [], create=lambda **asked: batch, retrieve=lambda id: batch)

    def upload(self, file, purpose):
        self.sent.append(file.read())
        return SimpleNamespace(id="f")


@pytest.fixture
def folder(tmp_path):
    requests = (Request(f"k{i}", (Message("user", f"s {i}"),), ("0", "1")) for i in range(25))
    export_requests(requests, tmp_path / "asked", model="openai:m", name="m", shard_lines=10)
    (tmp_path / "private.txt").write_text(SECRET)
    return tmp_path / "asked"


def change(folder, **shard):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    data["shards"][1] |= shard
    path.write_text(json.dumps(data))


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


NAMES = ["../private.txt", "sub/../../private.txt", "./requests-00000.jsonl", "requests-00000.jsonl/", "", ".", "a\nb",
         "REQUESTS-00001.jsonl", "requests-00001.jsonl\n", "requests-00001.JSONL", "C:\\x", "manifest.json",
         "responses-00000.jsonl", "requests-00000.jsonl", "\0"]  # fmt: skip


@pytest.mark.parametrize("name", ["ABSOLUTE", *NAMES])
def test_a_requests_folder_names_no_file_but_its_own(folder, name):
    victim = folder.parent / "private.txt"
    change(folder, file=str(victim) if name == "ABSOLUTE" else name, sha256=sha(victim))
    provider = Provider()
    with pytest.raises(PiarError, match=r"manifest|twice"):
        advance(folder, provider)
    with pytest.raises(PiarError):
        Responses(folder)
    assert provider.sent == []
    assert victim.read_text() == SECRET
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", *(f"requests-0000{i}.jsonl" for i in range(3))]


@pytest.mark.parametrize("how", ["link", "other content", "folder", "missing"])
def test_requests_that_are_not_as_exported_are_never_sent_not_even_the_whole_ones_before_them(folder, how):
    victim, shard = folder.parent / "private.txt", folder / "requests-00001.jsonl"
    shard.unlink()
    if how == "link":
        shard.symlink_to(victim)
        change(folder, sha256=sha(victim))
    elif how == "other content":
        os.link(victim, shard)
    elif how == "folder":
        shard.mkdir()
    provider = Provider()
    for use in (lambda: advance(folder, provider), lambda: Responses(folder)):
        with pytest.raises(PiarError, match=r"is a link|was altered|is missing"):
            use()
    assert provider.sent == []
    assert victim.read_text() == SECRET


def test_what_is_whole_is_sent_and_answers_take_the_place_of_a_link_without_following_it(folder):
    victim, provider = folder.parent / "private.txt", Provider()
    for name in ("responses-00000.jsonl", "batches.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "responses-00000.jsonl").symlink_to(victim)
    whole = [(folder / f"requests-0000{i}.jsonl").read_bytes() for i in range(3)]
    assert set(advance(folder, provider).values()) == {"downloaded"}
    assert provider.sent == whole
    assert victim.read_text() == SECRET


def test_an_export_follows_no_link_that_lies_in_its_way(tmp_path):
    victim = tmp_path / "private.txt"
    victim.write_text(SECRET)
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "requests-00000.jsonl").symlink_to(victim)
    export_requests(iter([Request("k", (Message("user", "s"),), ("0", "1"))]), tmp_path / "asked", model="m", name="m")
    assert victim.read_text() == SECRET
    assert read_manifest(tmp_path / "asked").lines == 1


def test_responses_that_are_links_or_no_files_are_refused(folder):
    (folder / "responses-1.jsonl").symlink_to(folder.parent / "private.txt")
    with pytest.raises(PiarError, match="is a link"):
        Responses(folder)
    (folder / "responses-1.jsonl").unlink()
    os.mkfifo(folder / "responses-1.jsonl")
    with pytest.raises(PiarError, match="is missing"):
        Responses(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 99}', "[" * 100_000, '{"shards": 1e400}', "\ufeff{}"]
)
def test_half_written_manifests_are_told(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=r"manifest of requests"):
        read_manifest(folder)
    with pytest.raises(PiarError, match=r"manifest\.json"):
        shards.read_manifest(folder)


def test_manifests_of_another_kind_of_file_are_told(folder):
    path = folder / "manifest.json"
    path.write_bytes(b"\xff\xfe{\x00")
    with pytest.raises(UsageError, match="not UTF-8: byte 0xff on line 1"):
        read_manifest(folder)
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="larger than 16 MB"):
        read_manifest(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="is no file"):
        read_manifest(folder)


@pytest.mark.parametrize("text", ["", '{"requests-00000.jsonl": {"bat', "[]", '{"requests-00000.jsonl": {"batch": 1}}'])
def test_a_torn_note_of_batches_is_told_and_deleting_it_helps(folder, text):
    (folder / "batches.json").write_text(text)
    with pytest.raises(UsageError, match="not whole") as told:
        advance(folder, Provider())
    assert "Delete it" in told.value.fix
    (folder / "batches.json").unlink()
    assert set(advance(folder, Provider()).values()) == {"downloaded"}


def test_requests_without_a_key_are_told(folder):
    shard = folder / "requests-00001.jsonl"
    shard.write_text('{"no": "key"}\n')
    change(folder, sha256=sha(shard))
    with pytest.raises(PiarError, match="line 1 is no request: no custom_id"):
        Responses(folder)


def test_ray_reads_no_other_file(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace())
    (folder / "requests-00000.jsonl").write_text("other")
    with pytest.raises(PiarError, match="was altered"):
        read_with_ray(folder)


# -- training shards ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ABSOLUTE", "../private.txt", "train/../../private.txt", "train//x", "a/b/c", "twice"]
)
def test_a_shard_folder_names_no_file_but_its_own(tmp_path, name):
    write_shards(tmp_path / "out", 12)
    victim = tmp_path / "private.txt"
    victim.write_text(SECRET)
    data = json.loads((tmp_path / "out" / "manifest.json").read_text())
    names = {"ABSOLUTE": str(victim), "twice": data["shards"][0]["file"].upper()}
    data["shards"][1] |= {"file": names.get(name, name), "sha256": sha(victim)}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(PiarError, match=r"outside its folder|twice"):
        shards.read_manifest(tmp_path / "out")


def test_shards_behind_a_link_and_of_another_format_are_refused(tmp_path):
    made = write_shards(tmp_path / "out", 12)
    (tmp_path / "out" / "train").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PiarError, match="is a link"):
        shards.read_manifest(tmp_path / "out")
    newer = made.model_copy(update={"format": 2})
    (tmp_path / "out" / "manifest.json").write_text(newer.model_dump_json())
    with pytest.raises(PiarError, match="has format 2; this version reads 1"):
        shards.read_manifest(tmp_path / "out")


def test_an_export_replaces_nothing_but_an_export(tmp_path):
    project = small_project(tmp_path / "p")
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(UsageError, match="no earlier export"):
        project.curriculum_export(site)
    write_shards(tmp_path / "out", 12)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'notes\.txt', which would be lost"):
        project.curriculum_export(tmp_path / "out")
    assert (site / "manifest.json").exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
