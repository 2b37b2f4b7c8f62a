import json
from types import SimpleNamespace

import pytest

from piar.llm.base import Message, Request
from piar.llm.cost import Price
from piar.llm.openai.batch_files import Responses, ResponsesClient, export_requests, read_manifest
from piar.llm.openai.provider_batches import advance
from piar.llm.privacy import PrivacySettings, disclosure
from piar.llm.settings import ModelSettings
from store.errors import PiarError, UsageError
from tests.faulty_server import GRADES, FaultyServer
from tests.judging.test_label import TASK


def requests(count):
    return [Request(f"k{i}", (Message("system", "Judge."), Message("user", f"s {i}")), GRADES) for i in range(count)]


def respond(folder, keys, *, file="responses-00000.jsonl", body=None):
    server = FaultyServer()
    bodies = {
        json.loads(line)["custom_id"]: json.loads(line)["body"]
        for f in folder.glob("requests-*")
        for line in f.read_text().splitlines()
    }
    lines = [
        {
            "id": "b",
            "custom_id": k,
            "response": {"status_code": 200, "body": body or server.answer(bodies[k])},
            "error": None,
        }
        for k in keys
    ]
    with (folder / file).open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def export(folder, count=25):
    return export_requests(iter(requests(count)), folder, model="openai:m", name="m", shard_lines=10)


def test_what_is_exported_can_be_read_back(tmp_path):
    manifest = export(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert [s.lines for s in manifest.shards] == [10, 10, 5]
    line = json.loads((tmp_path / "requests-00002.jsonl").read_text().splitlines()[4])
    assert line["custom_id"] == "k24"
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert line["body"]["model"] == "m"
    assert line["body"]["top_logprobs"] == 6
    with pytest.raises(UsageError, match="already"):
        export(tmp_path)


def test_answers_come_back_in_any_order(tmp_path):
    export(tmp_path)
    respond(tmp_path, [f"k{i}" for i in reversed(range(20))])
    respond(tmp_path, ["k20"], file="responses-late.jsonl")
    found = Responses(tmp_path, Price(input=1))
    assert len(found) == 21
    assert "k24" not in found
    done = ResponsesClient(found).generate(requests(21))
    assert [c.key for c in done] == [f"k{i}" for i in range(21)]
    assert all(c.failure is None and c.model == "openai:m" for c in done)
    assert done[0].probs[done[0].text[0]] == pytest.approx(0.7)
    assert done[0].cost_usd == pytest.approx(50e-6)


def test_lines_that_cannot_be_used_are_counted_with_reasons(tmp_path):
    export(tmp_path)
    respond(tmp_path, ["k0", "k1", "k0"])
    with (tmp_path / "responses-00000.jsonl").open("a") as file:
        file.write('\n{"custom_id": "stranger", "response": {}}\n[1]\n{"custom_id": "k2", "resp')
    found = Responses(tmp_path)
    assert len(found) == 2
    assert [(r.line, r.reason) for r in found.rejected] == [
        (3, "a second answer to the same request"),
        (5, "answers a request that is not in this export"),
        (6, "no custom_id"),
        (7, "not whole JSON"),
    ]


def test_failed_answers_are_failures(tmp_path):
    export(tmp_path)
    respond(tmp_path, ["k0"], body={"choices": []})
    with (tmp_path / "responses-00000.jsonl").open("a") as file:
        error = {"custom_id": "k1", "response": None, "error": {"message": "expired sk-abcdef123"}}
        refused = {"custom_id": "k2", "response": {"status_code": 400, "body": {"error": {"message": "too long"}}}}
        file.writelines(json.dumps(line) + "\n" for line in (error, refused))
    done = ResponsesClient(Responses(tmp_path)).generate(requests(3))
    assert [c.failure.kind for c in done] == ["malformed", "server", "server"]
    assert "abcdef" not in done[1].failure.message
    assert done[2].failure.message == "too long"


def test_an_export_that_was_changed_is_refused(tmp_path):
    export(tmp_path)
    file = tmp_path / "requests-00000.jsonl"
    file.write_text(file.read_text().replace("s 3", "s 4"))
    with pytest.raises(PiarError, match="was altered or truncated"):
        Responses(tmp_path)
    with pytest.raises(UsageError, match="no whole export"):
        Responses(tmp_path / "elsewhere")


class Provider:
    """Behaves like `openai.OpenAI` for files and batches; each batch needs two looks to complete."""

    def __init__(self, folder):
        self.folder, self.made, self.uploads, self.fail_after_create = folder, [], 0, False
        self.files = SimpleNamespace(create=self._upload, content=self._content)
        self.batches = SimpleNamespace(create=self._create, retrieve=self._retrieve, list=lambda: list(self.made))

    def _upload(self, file, purpose):
        self.uploads += 1
        return SimpleNamespace(id=file.name)

    def _create(self, input_file_id, endpoint, completion_window, metadata):
        batch = SimpleNamespace(
            id=f"b{len(self.made)}", status="validating", metadata=metadata, input=input_file_id, looks=0,
            output_file_id=None, error_file_id=None,
        )  # fmt: skip
        self.made.append(batch)
        if self.fail_after_create:
            raise ConnectionError("lost the answer")
        return batch

    def _retrieve(self, id):
        batch = next(b for b in self.made if b.id == id)
        batch.looks += 1
        if batch.looks == 2:
            batch.status, batch.output_file_id = "completed", batch.input
        return batch

    def _content(self, id):
        server, lines = FaultyServer(), []
        with open(id) as file:  # noqa: PTH123
            for line in map(json.loads, file):
                reply = {"status_code": 200, "body": server.answer(line["body"])}
                lines.append(json.dumps({"custom_id": line["custom_id"], "response": reply}))
        return SimpleNamespace(text="\n".join(lines))


def test_a_providers_batches_are_made_watched_and_fetched(tmp_path):
    export(tmp_path)
    provider = Provider(tmp_path)
    seen = [set(advance(tmp_path, provider).values()) for _ in range(4)]
    assert seen == [{"validating"}, {"validating"}, {"downloaded"}, {"downloaded"}]
    assert (len(provider.made), provider.uploads) == (3, 3)
    assert len(Responses(tmp_path)) == 25


def test_a_crash_after_making_a_batch_does_not_make_another(tmp_path):
    export(tmp_path, 5)
    provider = Provider(tmp_path)
    provider.fail_after_create = True
    with pytest.raises(ConnectionError):
        advance(tmp_path, provider)
    provider.fail_after_create = False
    for _ in range(3):
        advance(tmp_path, provider)
    assert len(provider.made) == 1
    assert len(Responses(tmp_path)) == 5


def test_a_batch_that_ends_without_answers_is_told_and_made_anew(tmp_path):
    export(tmp_path)
    provider = Provider(tmp_path)
    advance(tmp_path, provider)
    provider.made[0].status = "failed"
    provider.made[0].errors = SimpleNamespace(data=[SimpleNamespace(message="Enqueued token limit reached")])
    with pytest.raises(PiarError, match=r"'failed' without answers\. It said: Enqueued token limit"):
        advance(tmp_path, provider)
    assert [batch.looks for batch in provider.made] == [1, 1, 1]  # the others went on
    for _ in range(3):
        advance(tmp_path, provider)
    assert len(provider.made) == 4
    assert len(Responses(tmp_path)) == 25


def test_what_may_leave_and_where_to():
    away = ModelSettings(model="openai:m")
    assert disclosure(TASK, away, PrivacySettings()).host == "api.openai.com"
    assert disclosure(TASK, ModelSettings(), PrivacySettings(hosts=())).host is None
    home = ModelSettings(model="openai:m", base_url="http://localhost:1/v1")
    assert disclosure(TASK, home, PrivacySettings(hosts=(), fields=())).host is None
    with pytest.raises(UsageError, match="may not be sent"):
        disclosure(TASK, away, PrivacySettings(hosts=("eu.example.com",)))
    with pytest.raises(UsageError, match="'title' may not leave"):
        disclosure(TASK, away, PrivacySettings(fields=("query",)))
