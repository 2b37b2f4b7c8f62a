"""An endpoint that lies, echoes, redirects or never ends: nothing leaks, nothing grows, every row is explained."""

import errno
import gzip
import json
import os
from urllib.parse import quote

import pytest

from piar.cli import main
from piar.llm.openai.provider_batches import advance, connect_provider
from piar.llm.secrets import scrub, without
from piar.project.doctor import diagnose
from piar.project.facade import Project
from store.errors import PiarError
from tests.faulty_server import FaultyServer, encode, send
from tests.llm.test_openai_api import client_for, requests, transport  # noqa: F401 - a fixture
from tests.small_project import small_project

KEY = "sk-planted/7f3a+91c05e"


@pytest.fixture(autouse=True)
def _world(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr("piar.llm.openai.pacing.PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("piar.llm.openai.asking.BACKOFF_SECONDS", 0.02)


class Raw(FaultyServer):
    """Answers everything with the same bytes."""

    def __init__(self, reply, **more):
        super().__init__(latency=0, **more)
        self.reply, self.asked = reply, []

    async def _serve(self, writer, headers, body):
        self.asked.append(headers)
        writer.write(self.reply)
        await writer.drain()


def packed(payload):
    body = gzip.compress(payload)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def test_a_redirect_is_not_followed_and_its_target_named(transport):  # noqa: F811
    with Raw(b"").running() as other:
        to = f"http://localhost:{other.port}/v1/chat/completions"
        with Raw(encode(307, "", Location=to)).running() as server:
            done = client_for(server, transport).generate(requests(3))
        assert not other.asked
    assert {c.failure.kind for c in done} == {"request"}
    assert to in done[0].failure.message


def test_doctor_and_the_batch_api_follow_no_redirect_either(tmp_path):
    class Moved(Raw):
        async def _connection(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            self.asked.append("once")
            writer.write(self.reply)
            await writer.drain()
            writer.close()

    with Moved(encode(200, {"data": []})).running() as other:
        to = f"http://localhost:{other.port}/v1/models"
        with Moved(encode(302, "", Location=to, Connection="close")).running() as server:
            small_project(tmp_path / "p")
            sets = ["teacher.model=openai:m", f"teacher.base_url={server.url}", "teacher.api_key_env=TEST_KEY"]
            [check] = [c for c in diagnose(tmp_path / "p", sets) if c.name == "teacher"]
            project = Project.open(tmp_path / "p", sets)
            project.export_requests(tmp_path / "batch", "true")
            with pytest.raises(PiarError, match="redirects to"):
                advance(tmp_path / "batch", connect_provider(project.config.teacher))
        assert not other.asked
    assert not check.ok
    assert to in check.detail


@pytest.mark.parametrize("bomb", [packed(b" " * (20 << 20)), packed(b"[" * 5_000_000), encode(200, "[" * 500_000)])
def test_a_reply_without_end_or_bottom_is_given_up(transport, bomb):  # noqa: F811
    with Raw(bomb).running() as server:
        done = client_for(server, transport, timeout=20).generate(requests(1))
    assert [(c.failure.kind, c.attempts) for c in done] == [("malformed", 2)]


def test_a_reply_that_drips_is_given_up_in_time(transport):  # noqa: F811
    with FaultyServer(faults=1.0, kinds=("slow_loris",)).running() as server:
        done = client_for(server, transport, attempts=1, timeout=0.2).generate(requests(2))
    assert {c.failure.kind for c in done} == {"timeout"}


@pytest.mark.parametrize(
    "reply",
    [
        b'{"choices":[{"message":{"content":"\xff\xfe\xc3"}}]}',
        b'{"choices":[{"message":{"content":"1\\nevidence: \\"\\ud800\\""}}]}',
        json.dumps({"choices": {"0": 1}}).encode(),
        b'{"choices":[{"message":{"content":"1"},"logprobs":{"content":[{"token":"1","logprob":NaN,"top_logprobs":'
        b'[{"token":"1","logprob":Infinity}]}]}}]}',
        b'{"usage":{"prompt_tokens":1e999,"completion_tokens":-3},"choices":[{"message":{"content":"a\\u0000b"}}]}',
        b'[{"error":[[[{"message":{"message":{}}}]]]}]',
        b'{"error":{"code":true,"message":["x"]}}',
        b"",
    ],
)
def test_odd_bytes_end_as_a_grade_or_an_explained_failure(reply):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(reply)}\r\n\r\n".encode()
    with Raw(head + reply).running() as server:
        done = client_for(server, "lean", attempts=2).generate(requests(2))
    assert all(c.failure is None or c.failure.message for c in done)


SPELLINGS = [
    KEY, json.dumps(KEY)[1:-1], KEY.replace("s", "\\u0073"), KEY.replace("k", "\\\\u006B"), quote(KEY, safe=""),
    KEY.replace("+", "&#43;").replace("/", "&#x2f;"),
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_taken_out_in_every_spelling(spelling):
    assert without(f"evidence: {spelling}.", [KEY]) == "evidence: ***."
    assert without("grade 1: EMPTY", ["1", "EMPTY"]) == "grade 1: EMPTY"
    assert scrub("Bearer abcdef", []) == "Bearer ***"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_in_answers_and_errors_is_kept_nowhere(tmp_path, spelling):
    class Echo(FaultyServer):
        async def _ok(self, writer, body):
            self.seen["n"] += 1
            if self.seen["n"] % 2:
                await send(writer, 400, {"error": {"message": f"you sent {'x' * 1970} {spelling}"}})
            else:
                answer = self.answer(body)
                answer["choices"][0]["message"]["content"] = f'1\nevidence: "{spelling}"\nrules: R01\nverdict: 1'
                await send(writer, 200, answer)

    small_project(tmp_path / "p")
    with Echo(latency=0).running() as server:
        sets = ["teacher.model=openai:m", f"teacher.base_url={server.url}", "teacher.api_key_env=TEST_KEY"]
        project = Project.open(tmp_path / "p", sets)
        with pytest.warns(UserWarning, match="openai:m"):
            project.label("true", votes=2)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "p").rglob("*") if path.is_file())
    assert b"planted" not in kept
    assert project.store.frame("select count(*) from verdicts where evidence[1] = '***'").item() > 0


def test_what_a_terminal_would_obey_is_not_printed(tmp_path, capsys):
    words = "\x1b[2J\x1b]0;HACKED\x07[bold]x[/] \u202eevil \x9bm"
    small_project(tmp_path / "p")
    with Raw(encode(400, {"error": {"message": words}})).running() as server:
        arguments = ["label", "--where", "true", "-C", str(tmp_path / "p"), "--set", "teacher.model=openai:m"]
        assert main([*arguments, "--set", f"teacher.base_url={server.url}"]) == 1
    printed = "".join(capsys.readouterr())
    assert "HACKED" in printed
    assert "[bold]x[/]" in printed
    assert not set("\x1b\x07\u202e\x9b") & set(printed)


def test_a_disk_that_is_full_at_the_start_asks_nothing(tmp_path, monkeypatch):
    project = small_project(tmp_path / "p")
    with FaultyServer().running() as server:
        project = Project.open(tmp_path / "p", ["teacher.model=openai:m", f"teacher.base_url={server.url}"])

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.posix_fallocate", full)
        with pytest.raises(PiarError, match="No space left"):
            project.label("true")
    assert not server.bodies


def test_what_is_in_flight_when_the_disk_fills_is_kept(tmp_path, monkeypatch):
    """The disk is full from the third answer on, until the room that was kept is let go."""
    small_project(tmp_path / "p")
    write, kept, room = os.write, [], os.posix_fallocate

    def noting(file, *size):
        kept.append(file)
        room(file, *size)

    def filling(file, data):
        kept.append(file)
        if b'"answer"' in data and len(kept) > 3 and os.fstat(kept[0]).st_size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    with FaultyServer(latency=0.05).running() as server:
        project = Project.open(tmp_path / "p", ["teacher.model=openai:m", f"teacher.base_url={server.url}"])
        monkeypatch.setattr("os.posix_fallocate", noting)
        monkeypatch.setattr("os.write", filling)
        with pytest.raises(PiarError, match="No space left"):
            project.label("true", votes=4)
        monkeypatch.undo()
        paid = sum(server.billed.values())
    project = Project.open(tmp_path / "p", [])
    with project.journal() as journal:
        journal.fold(project.store)
    assert 3 <= project.store.frame("select sum(attempts) from completions").item() == paid


@pytest.mark.parametrize("before", [5, 30, 190, 480, 1990])
@pytest.mark.parametrize("where", ["refusal", "content", "error"])
def test_a_key_at_the_place_where_words_are_cut_leaves_no_half(before, where, monkeypatch):
    key = "planted7f3a91c05e"  # of no shape that is known
    monkeypatch.setenv("TEST_KEY", key)
    words = "x" * before + key + " and on"
    message = {"role": "assistant", "content": words if where == "content" else "", "refusal": None}
    if where == "refusal":
        message["refusal"] = words
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "m"}
    if where == "error":
        reply = {"error": {"message": words, "code": 400}}
    with Raw(encode(200, reply)).running() as server:
        [done] = client_for(server, "lean").generate(requests(1))
    assert done.failure
    assert key[:7] not in f"{done.failure.message} {done.text}"
