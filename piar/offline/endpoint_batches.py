"""The simulated endpoint's files and batches: upload request lines, make a batch, look at it, fetch its answers.

A batch is answered line by line while it is looked at: `in_progress` at the first look, `completed` at the next.
Standard library only.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from store.ids import short_hash

Answer = Callable[[bytes], Awaitable[tuple[int, dict[str, Any]] | None]]

_PART = re.compile(rb'name="file"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', re.S)


@dataclass
class Batches:
    """Files and batches, as OpenAI's API has them.

    Args:
        answer: what answers one request body, and with which status; None: not at all.
    """

    answer: Answer
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def route(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any] | bytes] | None:
        """Status and body of a request under `/v1/files` or `/v1/batches`; None for other paths."""
        match [method, *path.strip("/").split("/")]:
            case "POST", "v1", "files":
                return self._upload(body)
            case "GET", "v1", "files", name, "content" if name in self.files:
                return 200, self.files[name]
            case "POST", "v1", "batches":
                return self._make(body)
            case "GET", "v1", "batches":
                return 200, {"object": "list", "data": list(self.batches.values()), "has_more": False}
            case "GET", "v1", "batches", name if name in self.batches:
                return 200, await self._look(self.batches[name])
        return None

    def _upload(self, body: bytes) -> tuple[int, dict[str, Any]]:
        part = _PART.search(body)
        if part is None:
            return 400, {"error": {"message": "The form holds no file."}}
        return 200, self._keep(part[1])

    def _keep(self, data: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return {"id": name, "object": "file", "bytes": len(data), "created_at": 0, "filename": name, "purpose": "batch"}

    def _make(self, body: bytes) -> tuple[int, dict[str, Any]]:
        asked = json.loads(body)
        if asked.get("input_file_id") not in self.files:
            return 400, {"error": {"message": f"There is no file {asked.get('input_file_id')!r}."}}
        name = f"batch-{short_hash([len(self.batches), asked])}"
        kept = {key: asked.get(key) for key in ("input_file_id", "endpoint", "completion_window", "metadata")}
        self.batches[name] = {"id": name, "object": "batch", "status": "validating", "created_at": 0, **kept}
        return 200, self.batches[name]

    async def _look(self, batch: dict[str, Any]) -> dict[str, Any]:
        if batch["status"] == "in_progress":
            await self._finish(batch)
        elif batch["status"] == "validating":
            batch["status"] = "in_progress"
        return batch

    async def _finish(self, batch: dict[str, Any]) -> None:
        replies: dict[str, list[str]] = {"output_file_id": [], "error_file_id": []}
        for line in self.files[batch["input_file_id"]].splitlines():
            asked = json.loads(line)
            status, body = await self.answer(json.dumps(asked["body"]).encode()) or (
                500,
                {"error": {"message": "lost"}},
            )
            reply = {"custom_id": asked["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            replies["output_file_id" if status == 200 else "error_file_id"].append(json.dumps(reply))
        kept = {key: self._keep("\n".join(lines).encode())["id"] for key, lines in replies.items() if lines}
        batch |= {"status": "completed", **kept}
