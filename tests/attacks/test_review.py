"""Annotation servers and files from people who mean harm: the token stays, sheets run nothing, replies are bounded."""

import csv
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from piar.query.export import export
from piar.query.sql import as_csv
from piar.review import server as module
from piar.review.files import export_batch, import_batch
from piar.review.server import Server
from piar.review.settings import ReviewSettings
from piar.review.status import hours
from store.errors import PiarError
from store.files import cell
from store.types import Label
from tests.review_world import INSTRUCTION, batch_of, review_store

TOKEN = "0" * 40
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠A"]


@contextmanager
def answering(reply):
    """A server whose answers are `reply(path) -> (status, headers, body)`; it keeps what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.path, self.headers.get("Authorization")))
            status, headers, body = reply(self.path)
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", asked
        finally:
            httpd.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("token", [TOKEN, "e30.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6OTk5OTk5OTk5OX0.e30"])
def test_the_token_follows_no_redirect(status, token):
    with answering(lambda path: (200, {}, b"{}")) as (elsewhere, stolen):
        away = elsewhere.replace("127.0.0.1", "localhost")
        with answering(lambda path: (status, {"Location": f"{away}{path}"}, b"")) as (url, _):
            with pytest.raises(PiarError, match="sends requests on to http://localhost") as told:
                Server(url, token)
            assert token not in str(told.value)
    assert stolen == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html><script>alert(1)</script></html>", b"null", b"\xff\xfe",
        b"[]", b"7", b'"text"', b"{", b"[" * 100_000,
        b'{"email": ' + b"9" * 5000 + b"}", b'{"email": {"a": []}, "release": {"a": 1}}', b'{"release": [1, 2]}',
    ],
)  # fmt: skip
def test_replies_of_another_kind_are_told(body):
    with answering(lambda path: (200, {}, body)) as (url, _):

        def use():
            with Server(url, TOKEN) as desk:
                desk.users()
                desk.about(7)
                desk.listing(7)
                list(desk.tasks(7, [1]))
                raise PiarError("Label Studio says nothing wrong")

        with pytest.raises(PiarError, match="Label Studio") as told:
            use()
    assert len(told.value.message) < 400


def test_large_and_packed_replies_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    plain, packed = b'{"email": "' + b"a" * 5000 + b'"}', b"\x1f\x8b" + b"a" * 100
    for headers, body in (({}, plain), ({"Content-Encoding": "gzip"}, packed)):
        reply = (200, headers, body)
        with (
            answering(lambda path, reply=reply: reply) as (url, _),
            pytest.raises(PiarError, match="answers more than"),
        ):
            Server(url, TOKEN)


def test_words_of_a_server_cannot_steer_the_terminal():
    body = json.dumps({"detail": "\x1b[31mred\x1b]0;HACK\x07 " + "long " * 500}).encode()
    with answering(lambda path: (403, {}, body)) as (url, _), pytest.raises(PiarError) as told:
        Server(url, TOKEN)
    assert told.value.message.isprintable()
    assert len(told.value.message) < 400


# -- sheets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    assert cell(text) == f"'{text}"


def test_names_in_sheets_are_no_formulas_and_two_of_one_name_have_two_files(tmp_path):
    store, _ = review_store(tmp_path, rows=60)
    people = ("=HYPERLINK(1)", "ann@a.example", "Ann@b.example", "../../x", "")
    settings = ReviewSettings(annotators=tuple(p for p in people if p), hours=0.2, seed=1)
    batch = batch_of(store, "w1", settings)
    paths = [p for p in export_batch(store, batch, INSTRUCTION, tmp_path / "out" / "w1.csv") if p.suffix == ".csv"]
    assert len({p.name.lower() for p in paths}) == len(batch.annotators)
    assert all(p.parent == tmp_path / "out" for p in paths)
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            assert not any(text.startswith(tuple("=+-@")) for row in csv.reader(file) for text in row)
    sample = batch.assignments[0].sample_id
    store.add_labels([Label(sample, "human", people[0], store.task.symbols[0], seconds=3.0, comment=FORMULAS[-1])], "r")
    hours(store, tmp_path / "hours.csv")
    export(store, "labels", tmp_path / "labels.csv")
    for path in (tmp_path / "hours.csv", tmp_path / "labels.csv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            assert not any(text.startswith(tuple("=+@＠")) for row in csv.reader(file) for text in row)
    text = as_csv(store.frame("select annotator as \"=1\" from labels where source = 'human' and annotator like '=%'"))
    assert text.splitlines() == ["'=1", '"\'=HYPERLINK(1)"'] or text.splitlines() == ["'=1", "'=HYPERLINK(1)"]


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b"\xff\xfe", b"null", b'{"a": 1}', b'[{"data": {"sample_key": ' + b"9" * 5000 + b"}}]", b"", b"["],
)
def test_files_that_are_no_export_are_told(tmp_path, data):
    store, _ = review_store(tmp_path, rows=60)
    batch = batch_of(store, "w1", ReviewSettings(annotators=("ann",), hours=0.2))
    path = tmp_path / "back.json"
    path.write_bytes(data)
    with pytest.raises(PiarError, match=r"back\.json"):
        import_batch(store, batch, path, "ann", "r")


def test_odd_values_in_an_export_are_bounded(tmp_path):
    store, _ = review_store(tmp_path, rows=60)
    batch = batch_of(store, "w1", ReviewSettings(annotators=("ann",), hours=0.2))
    key = batch.assignments[0].sample_id
    said = {"completed_by": {"id": 1, "email": "x" * 10_000}, "result": [], "was_cancelled": True}
    odd = [{"data": {"sample_key": key}, "annotations": [{**said, "lead_time": t, "updated_at": [1]}]}
           for t in (1e308, -5, True, "x", None)]  # fmt: skip
    path = tmp_path / "back.json"
    path.write_text(json.dumps([*odd, None, 7, {"data": 1}, {"annotations": 3}]))
    import_batch(store, batch, path, "", "r")
    names = store.frame("select annotator, seconds from labels where source = 'human' and origin = 'back.json'")
    assert max(map(len, names["annotator"])) <= 254
    assert not any(s is not None and not 0 <= s < 1e7 for s in names["seconds"])
