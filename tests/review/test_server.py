"""What is asked of a Label Studio server over HTTP, and how its refusals reach the user; the server is a stand-in."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from piar.review import server as module
from piar.review.history import fetch
from piar.review.server import Server
from store.errors import PiarError

TOKEN = "0" * 40


class Office:
    """Answers of the server; `status` and `body` replace them all, `asked` keeps the export requests' ids."""

    def __init__(self, tasks):
        self.tasks = tasks
        self.release = "1.23.2"
        self.status = 200
        self.body = {}
        self.asked = []
        self.deleted = []

    def answer(self, method, path, query):
        if self.status != 200:
            return self.status, self.body
        if path == "/api/current-user/whoami":
            return 200, {"id": 1, "email": "ann@example.com", "username": "ann"}
        if path == "/api/version":
            return 200, {"release": self.release}
        if path == "/api/users":
            return 200, [{"id": 1, "email": "ann@example.com"}]
        if path == "/api/projects/7":
            return 200, {"id": 7, "title": "old", "label_config": "<View/>"}
        if method == "DELETE":
            self.deleted.append(path)
            return 204, None
        if path == "/api/tasks":
            size, page = int(query["page_size"][0]), int(query.get("page", ["1"])[0])
            rows = [{"id": t["id"], "data": t["data"], "updated_at": "2026-11-20T10:00:00.5Z",
                     "total_annotations": len(t["annotations"]), "cancelled_annotations": 0}
                    for t in self.tasks[(page - 1) * size : page * size]]  # fmt: skip
            return 200, {"tasks": rows, "total": len(self.tasks), "total_annotations": 0, "total_predictions": 0}
        if path == "/api/projects/7/export":
            ids = [int(i) for i in query["ids[]"]]
            self.asked.append(ids)
            assert query["download_all_tasks"] == ["true"]
            return 200, [t for t in self.tasks if t["id"] in ids]
        return 404, {"detail": "Not found."}


@contextmanager
def serving(office):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            at = urlsplit(self.path)
            status, body = office.answer(self.command, at.path.rstrip("/"), parse_qs(at.query))
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_DELETE = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture
def office():
    said = [{"completed_by": 1, "result": [], "lead_time": 3.0}]
    return Office([{"id": i, "data": {"sample_key": f"k{i}"}, "annotations": said * (i % 2), "predictions": [i]}
                   for i in range(1, 24)])  # fmt: skip


def test_tasks_are_listed_by_page_and_read_in_chunks_by_their_ids(office, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10)
    monkeypatch.setattr(module, "EXPORTED", 4)
    told = []
    with serving(office) as url, Server(url, TOKEN) as desk:
        listed = desk.listing(7, lambda done, total: told.append(done))
        assert [(t.id, t.key, t.answers) for t in listed] == [(i, f"k{i}", i % 2) for i in range(1, 24)]
        assert {t.updated.isoformat() for t in listed} == {"2026-11-20T10:00:00.500000"}
        got = [t["id"] for chunk in desk.tasks(7, [t.id for t in listed if t.id > 5]) for t in chunk]
        desk.remove([3])
    assert told == [10, 20]
    assert got == list(range(6, 24))
    assert sorted(map(len, office.asked)) == [2, 4, 4, 4, 4]
    assert office.deleted == ["/api/tasks/3"]


def test_a_project_is_written_with_its_people_and_without_predictions(office, tmp_path):
    with serving(office) as url, Server(url, TOKEN) as desk:
        found = fetch(desk, 7, tmp_path / "old.json")
    assert (found.title, found.tasks, found.annotations) == ("old", 23, 12)
    assert found.annotators == {"ann@example.com": 12}
    tasks = json.loads((tmp_path / "old.json").read_text())
    assert tasks[0]["annotations"][0]["completed_by"] == {"id": 1, "email": "ann@example.com"}
    assert not any("predictions" in t for t in tasks)
    assert (tmp_path / "old.xml").read_text() == "<View/>"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"detail": "Invalid token."}, "does not know this token"),
        (403, {"detail": "No."}, "forbids"),
        (404, {}, "no Label Studio API"),
        (400, {"detail": "URL blocked: SSRF protection"}, "SSRF"),
        (500, {}, "answered 500"),
    ],
)
def test_refusals_are_explained_and_never_show_the_token(office, status, body, words):
    office.status, office.body = status, body
    with serving(office) as url, pytest.raises(PiarError, match=words) as caught:
        Server(url, TOKEN)
    assert TOKEN not in caught.value.message + caught.value.fix


def test_an_old_server_and_a_missing_one_are_explained(office):
    office.release = "1.4.0"
    with serving(office) as url, pytest.raises(PiarError, match=r"1\.4\.0 .* is too old"):
        Server(url, TOKEN)
    with pytest.raises(PiarError, match="does not answer"):
        Server("http://127.0.0.1:9", TOKEN)
    with pytest.raises(PiarError, match="must look like https://host"):
        Server("no address", TOKEN)
