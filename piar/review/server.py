"""A Label Studio server through its SDK: only what the round trip needs, with refusals explained.

Community edition: projects have no permissions, so a blind project is blind by courtesy.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from piar.review.settings import plain_url
from store.errors import PiarError, UsageError

CHUNK = 500  # tasks per import request; larger ones time out behind common proxies
EXPORTED = 250  # tasks per export request; their ids have to fit into its address
WORKERS = 2  # export requests at a time; more only queue up in the server
MOST_BYTES = 2**28  # of one answer
TIMEOUT = 600.0  # seconds: the export of a large project is made while one waits
OLDEST = (1, 13)  # the first release whose export and import answer as read here
Task = Mapping[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Listed:
    """A task in a project: its id there, the sample's key, how many answers it has, and when it changed (UTC).

    A task changes with its answers and drafts.
    """

    id: int
    key: str
    answers: int
    updated: datetime


class Server:
    """One Label Studio server.

    Args:
        url: its address.
        token: a personal or a legacy token; the SDK tells them apart.

    Raises:
        PiarError: the SDK is missing, the server cannot be reached, refuses the token or is too old.
    """

    def __init__(self, url: str, token: str) -> None:
        try:
            import httpx
            from label_studio_sdk.client import LabelStudio
        except ImportError:
            raise PiarError(
                "Label Studio needs the extra `review`.",
                "pip install 'piar[review]' (not in one environment "
                "with the extra `vllm`: they need different opencv versions).",
            ) from None
        try:
            self.url = plain_url(url)
        except ValueError as error:
            raise UsageError(f"The server's address {error}.", "Mend --url, or [review] url.") from None
        client: Any = LabelStudio  # the SDK's constructor has no types
        self._http = httpx.Client(
            timeout=TIMEOUT,
            follow_redirects=False,  # the token goes to nobody but the server that was named
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [self._look_at]},
        )
        self._api = client(base_url=self.url, api_key=token, httpx_client=self._http)
        try:
            with explained(self.url):
                self.email = str(self._api.users.whoami().email)
                self._check_version(str(self._api.versions.get().release or ""))
        except PiarError:
            self.close()
            raise

    @classmethod
    def connect(cls, url: str, token_env: str) -> "Server":
        """Log in with the token that the environment variable `token_env` holds."""
        token = os.environ.get(token_env, "").strip()
        if not token:
            raise PiarError(
                f"No Label Studio token: the environment variable {token_env} is empty.",
                "Copy a token from Account & Settings in Label Studio and export it.",
            )
        return cls(url, token)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _look_at(self, response: Any) -> None:
        """Refuse an answer that sends elsewhere, and bound the others."""
        if response.has_redirect_location:
            place = urlsplit(response.headers["location"])
            there = f"{place.scheme}://{place.hostname}" if place.hostname else "another place"
            raise PiarError(
                f"{self.url} sends requests on to {printable(there)}; the token is not sent there.",
                "Set [review] url to the address at which Label Studio itself answers.",
            )
        response.stream = bounded(response.stream, response.headers.get("content-encoding", "identity"), self.url)

    def _check_version(self, release: str) -> None:
        parts = tuple(int(p) for p in release.split(".")[:2] if p.isdigit())
        if parts and parts < OLDEST:
            raise PiarError(f"Label Studio {release} at {self.url} is too old.", "Upgrade the server to 1.13 or newer.")

    def users(self) -> dict[int, str]:
        """User id -> e-mail."""
        with explained(self.url):
            return {int(u.id): str(u.email) for u in self._api.users.list() if u.id is not None}

    def at(self, project: int) -> str:
        """Address of a project."""
        return f"{self.url}/projects/{project}"

    def about(self, project: int) -> tuple[str, str]:
        """Title and label configuration of a project."""
        with explained(self.url):
            found = self._api.projects.get(id=project)
        return str(found.title), str(found.label_config or "")

    def project(self, title: str, config: str, description: str, instructions: str) -> int:
        """Id of the project with this title, made when there is none.

        Args:
            instructions: HTML that people see when they begin to label, and whenever they ask for it.
        """
        with explained(self.url):
            for project in self._api.projects.list():
                if project.title == title and project.id is not None:
                    return int(project.id)
            made = self._api.projects.create(
                title=title,
                label_config=config,
                description=description,
                expert_instruction=instructions,
                show_instruction=True,
                show_skip_button=True,
                skip_queue="IGNORE_SKIPPED",  # a skip is an answer; by default the row would wait for somebody else
                show_collab_predictions=False,  # predictions are for looking up, never an answer filled in before
                enable_empty_annotation=False,
            )
        return int(made.id)

    def listing(self, project: int, progress: Progress | None = None) -> list[Listed]:
        """Every task in the project, without its answers: cheap enough to ask for each time."""
        found: list[Listed] = []
        with explained(self.url):
            for t in self._api.tasks.list(
                project=project,
                fields="task_only",
                page_size=CHUNK,
                include="id,data,updated_at,total_annotations,cancelled_annotations",
            ):
                answers = int(t.total_annotations or 0) + int(t.cancelled_annotations or 0)
                key = str((t.data or {}).get("sample_key", ""))
                found.append(Listed(int(t.id), key, answers, _utc(t.updated_at)))
                if progress and len(found) % CHUNK == 0:
                    progress(len(found), len(found))
        return found

    def add(self, project: int, tasks: Sequence[Task], progress: Progress | None = None) -> None:
        """Import tasks in chunks. A chunk is one request: it arrives whole or not at all."""
        for start in range(0, len(tasks), CHUNK):
            with explained(self.url):
                self._api.projects.import_tasks(id=project, request=[dict(t) for t in tasks[start : start + CHUNK]])
            if progress:
                progress(min(start + CHUNK, len(tasks)), len(tasks))

    def remove(self, tasks: Sequence[int]) -> None:
        """Delete tasks by their ids."""
        for task in tasks:
            with explained(self.url):
                self._api.tasks.delete(id=str(task))

    def tasks(self, project: int, ids: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """These tasks with all annotations, skips and drafts, a chunk at a time, as the JSON export writes them."""

        def export(chunk: Sequence[int]) -> list[dict[str, Any]]:
            with explained(self.url):
                parts = self._api.projects.exports.download_sync(
                    project,
                    download_all_tasks=True,
                    export_type="JSON",
                    # Under its own name the SDK's argument is one that the server does not read.
                    request_options={"additional_query_parameters": {"ids[]": list(chunk)}},
                )
                return [dict(t) for t in json.loads(b"".join(parts))]

        chunks = [ids[start : start + EXPORTED] for start in range(0, len(ids), EXPORTED)]
        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(chunks), WORKERS):  # so many at a time, that memory stays steady
                yield from pool.map(export, chunks[start : start + WORKERS])

    def renew(self, project: int, config: str | None, instructions: str) -> None:
        """Give a project other instructions and, where there is one, another labelling page; answers stay."""
        changes = {} if config is None else {"label_config": config}
        with explained(self.url):
            self._api.projects.update(id=project, expert_instruction=instructions, show_instruction=True, **changes)

    def rename(self, project: int, title: str) -> None:
        """Give a project another title; one that was deleted on the server stays deleted."""
        try:
            with explained(self.url):
                self._api.projects.update(id=project, title=title)
        except PiarError as error:
            if "(404)" not in error.message:
                raise


def _utc(at: datetime | None) -> datetime:
    """A server's time without its zone; now where it tells none, so that the task counts as changed."""
    return (at or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)


def bounded(stream: Any, encoding: str, url: str) -> Any:
    """The same bytes, as many as memory can take; compressed ones, which nobody asked for, could unpack to more.

    Args:
        stream: of an `httpx.Response`.
    """
    import httpx

    problem = PiarError(f"{url} answers more than {MOST_BYTES / 2**20:,.0f} MB at once.", "Look at the server's log.")

    class Bounded(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            left = MOST_BYTES if encoding == "identity" else 0
            for part in stream:
                left -= len(part)
                if left < 0:
                    raise problem
                yield part

        def close(self) -> None:
            stream.close()

    return Bounded()


def printable(text: str) -> str:
    """Words of a server on one line of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:400]).split())[:200]


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the SDK's and the network's errors into words about what to do. Never shows the token."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except ApiError as error:
        raise refusal(url, error.status_code, error.body) from None
    except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
        raise PiarError(
            f"What {url} answers is not what Label Studio says ({type(error).__name__}).",
            "Check [review] url: no path after the host unless the server is mounted there.",
        ) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise PiarError(
            f"Label Studio does not answer at {url} ({type(error).__name__}).",
            "Check [review] url in piar.toml and that the server runs.",
        ) from None


def refusal(url: str, status: int | None, body: object) -> PiarError:
    """What an HTTP status of Label Studio means for the user."""
    detail = printable(str(body.get("detail", ""))) if isinstance(body, Mapping) else ""
    ssrf = "ssrf" in str(body).lower()
    if ssrf:
        return PiarError(
            f"Label Studio at {url} refuses addresses on this machine (SSRF protection).",
            "Start it with SSRF_PROTECTION_ENABLED=false, or use an address it may reach.",
        )
    if status is not None and status < 300:
        return PiarError(
            f"{url} answers, but no Label Studio API does so.",
            "Check [review] url: no path after the host unless the server is mounted there.",
        )
    if status == 401:
        return PiarError(
            f"Label Studio at {url} does not know this token. {detail}".strip(),
            "Make a new one in Account & Settings; legacy tokens must be enabled by the organization.",
        )
    if status == 403:
        return PiarError(
            f"Label Studio at {url} forbids this to the token's user. {detail}".strip(),
            "Use the token of someone who may create projects.",
        )
    if status == 404:
        return PiarError(
            f"{url} has no Label Studio API at this place (404). {detail}".strip(),
            "Check [review] url: no path after the host unless the server is mounted there.",
        )
    return PiarError(
        f"Label Studio at {url} answered {status}. {detail}".strip(), "Look at the server's log, then try again."
    )
