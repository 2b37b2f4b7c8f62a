"""A model in this process for an optimizer in another one; its answers are kept on disk, and nothing is asked twice."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from piar.instructions.prompts import judge_prefix
from piar.llm.base import Client, Completion, Message, OnCompletion, Request
from store.ids import content_id
from store.task import Task, sample_text
from store.types import Instruction


class Kept:
    """A client whose answers are kept in a file; `calls` counts those to questions for grades.

    Args:
        name: by which keys and verdicts know it: without the folder that it lies in.
    """

    def __init__(self, client: Any, path: Path, name: str) -> None:
        self._client, self._path, self.model = client, path, f"hf:{name}"
        self.window, self.tokens = client.window, client.tokens
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._known: dict[str, dict[str, Any]] = {one["key"]: one for one in map(json.loads, lines)}
        self._lock = threading.Lock()
        self.calls = 0

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`."""
        with self._lock:
            self.calls += sum(bool(request.grades) for request in requests)
            wanted = [request for request in requests if request.key not in self._known]
            self._client.generate(wanted, self._keep)
        done = [self._completion(request.key) for request in requests]
        for completion in done if on_completion else ():
            assert on_completion is not None
            on_completion(completion)
        return done

    def _keep(self, completion: Completion) -> None:
        row = {"key": completion.key, "text": completion.text, "probs": dict(completion.probs or {})}
        if completion.failure:
            return
        self._known[completion.key] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _completion(self, key: str) -> Completion:
        row = self._known[key]
        return Completion(key, self.model, row["text"], row["probs"] or None)


@contextmanager
def served(client: Client, task: Task, answer: int) -> Iterator[str]:
    """The address of an endpoint on this machine: `teacher` grades by the system text as preamble, others write."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            [done] = client.generate([_request(body, client.model, task, answer)])
            reply = json.dumps({"choices": [{"message": {"content": done.text}}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _request(body: dict[str, Any], model: str, task: Task, answer: int) -> Request:
    messages = [Message(m["role"], m["content"]) for m in body["messages"]]
    if body["model"] != "teacher":
        key = content_id("peer", model, str(answer), str(body["temperature"]), *(m.content for m in messages))
        return Request(key, tuple(messages), max_tokens=answer, temperature=body["temperature"], purpose="revise")
    system = Message("system", judge_prefix(task, Instruction(messages[0].content)))
    sample = Message("user", sample_text(json.loads(messages[1].content)))
    return Request(content_id("report", model, system.content, sample.content), (system, sample), task.symbols)
