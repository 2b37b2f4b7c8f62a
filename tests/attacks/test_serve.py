"""Requests to a server from people who mean it harm: refused in few words, and closed soon."""

import json
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from piar.cli import main
from piar.serve.app import build
from piar.serve.contracts import Refused
from piar.serve.door import head_limit
from piar.serve.guard import look_through
from piar.serve.settings import ServeSettings
from store.errors import UsageError
from store.task import Grade, Task
from trainers.checkpoint import StudentCard, save
from trainers.scoring import Student
from trainers.session import Session
from trainers.tiny import tiny_model, tiny_tokenizer

TASK = Task(name="t", fields=("query", "title"), group_by="query",
            grades=(Grade(symbol="0", value=0), Grade(symbol="1", value=1)))  # fmt: skip
SAMPLE = {"query": "lamp", "title": "red lamp"}
TOKEN = "a-token-of-more-than-16-characters"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    tokenizer = tiny_tokenizer([json.dumps(SAMPLE)], TASK.symbols, 300)
    lm = tiny_model(len(tokenizer), hidden=32, layers=1)
    return Student.load(save(tmp_path_factory.mktemp("s") / "s", lm, tokenizer, StudentCard(task=TASK)))


class Running:
    def __init__(self, judge, **limits):
        settings = ServeSettings(port=0, **limits)
        app = build(Session(judge), settings, "s")
        protocol = head_limit(settings.head_seconds)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=protocol, ws="none"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.should_exit = True
        self.thread.join(20)

    def raw(self, data, *, patience=20):
        """What comes back for some bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), patience) as connection:
            connection.sendall(data)
            found = b""
            while part := connection.recv(65536):
                found += part
            return found


@pytest.fixture(scope="module")
def server(judge):
    with Running(judge) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(judge):
    with Running(judge, head_seconds=0.5, body_seconds=0.5) as running:
        yield running


def score(client, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/score", content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    "body",
    [
        b'{"samples": [{' + b",".join(b'"k%d":1' % i for i in range(300_000)) + b"}]}",
        b"{" + b",".join(b'"k%d":1' % i for i in range(300_000)) + b"}",
        b'{"samples": [' + b",".join([b'{"a":1}'] * 300_000) + b"]}",
        b'{"samples": [' + b",".join([b"{}"] * 1000) + b"]}",
        b'{"samples": [' + b",".join([b"1"] * 1_000_000) + b"]}",
        b"[" * 100_000,
        b'{"samples":' * 50_000,
        b'{"samples": [{"query": ' + b"9" * 100_000 + b', "title": "a"}]}',
        b'{"samples": [{"query": NaN, "title": "a"}]}',
        b'{"samples": [{"query": -Infinity, "title": "a"}]}',
        b'{"samples": [{"query": 1e400, "title": "a"}]}',
        b'{"samples": [{"query": "a", "query": "b", "title": "a"}]}',
        b'{"samples": [], "samples": [{"query": "a", "title": "a"}]}',
        b'{"samples": [{"query": "\\ud800", "title": "a"}]}',
        b'{"samples": [{"query": "\xff", "title": "a"}]}',
        b'{"samples": {"query": "a"}}',
        b'{"samples": [["query", "a"]]}',
        b'{"samples": [{"query": ["a"], "title": {"a": "b"}}]}',
        b"null", b"", b'"' + b"a" * 1_000_000 + b'"', b"\x00" * 1000,
    ],
)  # fmt: skip
def test_a_hostile_body_is_refused_in_few_words(server, body):
    answer = score(server.client, body)
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 8_000
    assert score(server.client, {"samples": [SAMPLE]}).status_code == 200


def test_looking_through_a_body_is_counted_work():
    """The keys are counted while they are read: nothing is built for each of those that are not asked."""
    body = b"{" + b",".join(b'"k%d":1' % i for i in range(50)) + b"}"
    with pytest.raises(Refused, match="unknown fields; a sample has query, title"):
        look_through(body, frozenset({"samples", "query", "title"}))
    look_through(b'{"samples": [{"query": "a", "title": "b", "gold": "c"}]}', frozenset({"samples", "query", "title"}))
    look_through(b"{", frozenset())


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", "", "*", "[::2]:1", "0.0.0.0"],
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/docs", "/score", "/nothing"])
def test_a_foreign_host_is_not_answered(server, host, path):
    assert server.client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8900", "[::1]:8900"])
def test_this_machine_s_names_are_answered(server, host):
    assert server.client.get("/healthz", headers={"host": host}).status_code == 200


def test_two_hosts_are_none(server):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert b" 200 " not in server.raw(request).split(b"\r\n")[0]


def test_a_token_is_asked_for_everywhere_and_other_names_may_be_allowed(judge, monkeypatch):
    monkeypatch.setenv("T", TOKEN)
    with Running(judge, token_env="T", allow_hosts=("judge.example",)) as running:
        client = running.client
        for path in ("/", "/metrics", "/healthz", "/docs", "/openapi.json", "/task", "/nothing"):
            assert client.get(path).status_code == 401
        assert client.get("/healthz").headers["www-authenticate"] == "Bearer"
        for wrong in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer é", f"Bearer {TOKEN}x"):
            assert client.get("/metrics", headers={"authorization": wrong.encode()}).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/metrics", headers=right).status_code == 200
        assert client.get("/healthz", headers={**right, "host": "Judge.Example:443"}).status_code == 200
        assert score(client, {"samples": [SAMPLE]}, **right).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.evil.example", ""])
def test_other_machines_need_a_token(host, tmp_path, capsys, monkeypatch):
    assert main(["serve", "--student", str(tmp_path), "--host", host, "-C", str(tmp_path)]) == 2
    assert "no token is set" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("SHORT", "abc")
    assert main(["serve", "--student", str(tmp_path), "--token-env", "SHORT", "-C", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "16 characters" in told
    assert "abc" not in told


def test_hosts_that_are_allowed_are_settings(judge):
    with pytest.raises(UsageError, match=r"Listening on 0\.0\.0\.0"):
        build(Session(judge), ServeSettings(host="0.0.0.0"), "s")


def alive(running):
    return httpx.get(f"http://127.0.0.1:{running.port}/healthz").status_code == 200


def test_connections_that_never_ask_are_closed(hasty):
    """Silence, a head that drips, a second head that never ends, a head without end, a body without end."""
    assert hasty.raw(b"") == b""
    assert hasty.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ") == b""
    first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert hasty.raw(first + b"GET / HT").startswith(b"HTTP/1.1 200")
    chunked = b"POST /score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert hasty.raw(chunked + b"1\r\n{\r\n").startswith(b"HTTP/1.1 408")
    assert alive(hasty)


def test_a_head_without_end_is_cut_off(hasty):
    endless = b"".join(b"X-%d: " % i + b"a" * 4000 + b"\r\n" for i in range(4000))
    with socket.create_connection(("127.0.0.1", hasty.port), 20) as connection, pytest.raises(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + endless)
    assert alive(hasty)


def test_idle_connections_make_way(hasty):
    idle = [socket.create_connection(("127.0.0.1", hasty.port), 20) for _ in range(150)]
    assert alive(hasty)
    for connection in idle:
        assert connection.recv(10) == b""
        connection.close()
