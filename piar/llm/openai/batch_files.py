"""Requests and responses as files, for engines beyond this machine.

    requests-00000.jsonl    one request a line, in the OpenAI batch format; custom_id = request key
    manifest.json           written last: what was asked of which model, and each shard's lines and checksum
    responses-*.jsonl       what came back, in any order, from a provider's batch API or `vllm run-batch`

Shards are the unit of resume: a shard that is whole in the manifest is never written again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from piar.llm.base import Completion, Failure, Request
from piar.llm.cost import Price
from piar.llm.openai.asking import examine
from piar.llm.openai.chat import BadReply, answer_from, chat_body, probabilities
from piar.llm.openai.refusals import Dialect, error_message
from piar.llm.secrets import scrub
from store.errors import PiarError, UsageError
from store.files import read_text, replacing, write_text
from store.manifest import MANIFEST, member, refuse_repeated, verified
from store.settings import Settings
from store.task import explain

FORMAT = 1
SHARD_LINES = 10_000
URL = "/v1/chat/completions"


class RequestShard(Settings):
    """One file of requests."""

    file: str = Field(pattern=r"^requests-[0-9]{5,9}\.jsonl$")
    lines: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def answers(self) -> str:
        """Name of the file that holds a provider's answers to it."""
        return self.file.replace("requests-", "responses-")


class RequestManifest(Settings):
    """What a folder of requests holds.

    Attributes:
        model: the model as verdicts name it, e.g. `openai:NAME`.
        name: the model as the engine knows it.
    """

    format: int = FORMAT
    model: str
    name: str
    shards: tuple[RequestShard, ...]

    @property
    def lines(self) -> int:
        """Requests in all shards."""
        return sum(shard.lines for shard in self.shards)


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line of a response file that could not be used, and why."""

    file: str
    line: int
    reason: str


def export_requests(
    requests: Iterable[Request],
    folder: Path,
    *,
    model: str,
    name: str,
    extra: Mapping[str, Any] | None = None,
    structured: bool = True,
    logprobs: bool = True,
    shard_lines: int = SHARD_LINES,
) -> RequestManifest:
    """Write requests as shards with a manifest.

    Args:
        requests: consumed one shard at a time.
        model: the model as verdicts name it.
        name: the model as the engine knows it.
        extra: further keys of every body.
        structured: send JSON schemas, where requests have one.
        logprobs: ask for log-probabilities, where requests have grades.

    Raises:
        UsageError: the folder holds an export already.
    """
    if (folder / MANIFEST).exists():
        raise UsageError(f"{folder} holds exported requests already.", "Import their responses, or name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[RequestShard] = []
    dialect = Dialect.of(structured=structured, logprobs=logprobs)
    stream = iter(requests)
    while chunk := list(islice(stream, shard_lines)):
        lines = [
            json.dumps(_line(request.key, dialect.spoken(chat_body(request, name, extra))), ensure_ascii=False) + "\n"
            for request in chunk
        ]
        data = "".join(lines).encode()
        file = f"requests-{len(shards):05}.jsonl"
        with replacing(folder / file) as draft:
            draft.write_bytes(data)
        shards.append(RequestShard(file=file, lines=len(chunk), sha256=hashlib.sha256(data).hexdigest()))
    manifest = RequestManifest(model=model, name=name, shards=tuple(shards))
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1))
    return manifest


def read_manifest(folder: Path) -> RequestManifest:
    """The manifest of a folder of requests.

    Raises:
        UsageError: none there, or not one of ours.
        PiarError: it names a file twice.
    """
    fix = "Write one with `piar label --export-requests DIR`."
    try:
        manifest = RequestManifest.model_validate_json(read_text(folder / MANIFEST))
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no whole export of requests.", fix) from None
    except ValidationError as error:
        raise UsageError(f"{folder / MANIFEST} is no manifest of requests: {explain(error)[:300]}", fix) from None
    if manifest.format != FORMAT:
        raise UsageError(f"{folder / MANIFEST} has format {manifest.format}; this version reads {FORMAT}.", fix)
    refuse_repeated(shard.file for shard in manifest.shards)
    return manifest


def shard_path(folder: Path, shard: RequestShard) -> Path:
    """A file of requests, of which every byte is as it was exported.

    Raises:
        PiarError: missing, altered, or not a plain file of the folder.
    """
    return verified(folder, shard.file, shard.sha256)


@dataclass
class Responses:
    """The responses in a folder, indexed by request key; bodies stay on disk until they are asked for.

    Attributes:
        rejected: lines that cannot be used, with reasons; the rest is used all the same.
        good: keys of requests that were answered with success; such an answer goes before one that failed.
    """

    folder: Path
    price: Price = field(default_factory=Price)
    rejected: list[RejectedLine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manifest = read_manifest(self.folder)
        asked = set(self._requested_keys())
        self._places: dict[str, tuple[Path, int]] = {}
        self.good: set[str] = set()
        self.files = [member(self.folder, path.name) for path in sorted(self.folder.glob("responses-*.jsonl"))]
        for file in self.files:
            for number, offset, line in _lines(file):
                key, good, reason = _key_of(line)
                if reason is None and key not in asked:
                    reason = "answers a request that is not in this export"
                if reason is None and key in self._places and not (good and key not in self.good):
                    reason = "a second answer to the same request"
                if reason is None:
                    self._places[key] = (file, offset)
                    self.good |= {key} if good else set()
                else:
                    self.rejected.append(RejectedLine(file.name, number, reason))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def completion(self, request: Request) -> Completion:
        """The answer to a request that is here, read as an HTTP answer would be."""
        file, offset = self._places[request.key]
        with file.open("rb") as stream:
            stream.seek(offset)
            data = json.loads(stream.readline())
        response = data.get("response") or {}
        body, model = response.get("body"), self.manifest.model
        if data.get("error") or response.get("status_code") != 200 or not isinstance(body, dict):
            words = scrub(error_message(data["error"] if data.get("error") else body or {}))[:300]
            return Completion(request.key, model, failure=Failure("server", words))
        try:
            answer = answer_from(body)
        except BadReply as bad:
            return Completion(request.key, model, failure=Failure(bad.kind, scrub(bad.message)), usage=bad.usage)
        return Completion(
            request.key,
            model,
            answer.text,
            probabilities(request, answer).probs,
            examine(request, answer),
            answer.usage,
            self.price.cost(answer.usage),
        )

    def _requested_keys(self) -> Iterator[str]:
        for shard in self.manifest.shards:
            for number, _, line in _lines(shard_path(self.folder, shard)):
                key, _, reason = _key_of(line)
                if reason is not None:
                    raise PiarError(
                        f"{shard.file} line {number} is no request: {reason}.", "Export the requests again."
                    )
                yield key


class ResponsesClient:
    """A `Client` that answers from response files, so that what comes back takes the road of every answer."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    @property
    def model(self) -> str:
        """The model that the requests were exported for."""
        return self._responses.manifest.model

    def generate(self, requests: Sequence[Request], on_completion: Any = None) -> list[Completion]:
        """See `Client.generate`. Only for requests whose responses are here."""
        done = [self._responses.completion(request) for request in requests]
        for completion in done:
            if on_completion is not None:
                on_completion(completion)
        return done


def _line(key: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": key, "method": "POST", "url": URL, "body": body}


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), byte offset and content of each line that is not blank."""
    offset = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, offset, line
            offset += len(line)


def _key_of(line: bytes) -> tuple[str, bool, str | None]:
    """The request's key, whether it was answered with success, and why the line cannot be used."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return "", False, "not whole JSON"
    key = data.get("custom_id") if isinstance(data, dict) else None
    if not isinstance(key, str):
        return "", False, "no custom_id"
    response = data.get("response") or {}
    if not isinstance(response, dict):
        return key, False, "its response is not an object"
    return key, response.get("status_code") == 200 and not data.get("error"), None
