"""A Label Studio server through its SDK: only what the round trip needs, with refusals explained.

Community edition: projects have no permissions, so a blind project is blind by courtesy.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from store.errors import PiarError

CHUNK = 500  # tasks per import request; larger ones time out behind common proxies
TIMEOUT = 600.0  # seconds: the export of a large project is made while one waits
OLDEST = (1, 13)  # the first release whose export and import answer as read here
Task = Mapping[str, Any]
Progress = Callable[[int, int], None]


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
        self.url = url.rstrip("/")
        client: Any = LabelStudio  # the SDK's constructor has no types
        self._http = httpx.Client(timeout=TIMEOUT, follow_redirects=True)
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

    def _check_version(self, release: str) -> None:
        parts = tuple(int(p) for p in release.split(".")[:2] if p.isdigit())
        if parts and parts < OLDEST:
            raise PiarError(f"Label Studio {release} at {self.url} is too old.", "Upgrade the server to 1.13 or newer.")

    def users(self) -> dict[int, str]:
        """User id -> e-mail."""
        with explained(self.url):
            return {int(u.id): str(u.email) for u in self._api.users.list() if u.id is not None}

    def project(self, title: str, config: str, description: str) -> int:
        """Id of the project with this title, made when there is none."""
        with explained(self.url):
            for project in self._api.projects.list():
                if project.title == title and project.id is not None:
                    return int(project.id)
            made = self._api.projects.create(
                title=title,
                label_config=config,
                description=description,
                show_skip_button=True,
                enable_empty_annotation=False,
            )
        return int(made.id)

    def keys(self, project: int) -> set[str]:
        """`data.sample_key` of every task in the project."""
        with explained(self.url):
            tasks = self._api.tasks.list(project=project, page_size=CHUNK, include="id,data")
            return {str((t.data or {}).get("sample_key", "")) for t in tasks}

    def add(self, project: int, tasks: Sequence[Task], progress: Progress | None = None) -> None:
        """Import tasks in chunks. A chunk is one request: it arrives whole or not at all."""
        for start in range(0, len(tasks), CHUNK):
            with explained(self.url):
                self._api.projects.import_tasks(id=project, request=[dict(t) for t in tasks[start : start + CHUNK]])
            if progress:
                progress(min(start + CHUNK, len(tasks)), len(tasks))

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """Every task with all annotations, skips and drafts, as the JSON export writes them."""
        with explained(self.url):
            exported = self._api.projects.exports.as_json(project, timeout=int(TIMEOUT))
        return [dict(t) for t in exported]

    def rename(self, project: int, title: str) -> None:
        """Give a project another title; one that was deleted on the server stays deleted."""
        try:
            with explained(self.url):
                self._api.projects.update(id=project, title=title)
        except PiarError as error:
            if "(404)" not in error.message:
                raise


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the SDK's and the network's errors into words about what to do. Never shows the token."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except ApiError as error:
        raise refusal(url, error.status_code, error.body) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise PiarError(
            f"Label Studio does not answer at {url} ({type(error).__name__}).",
            "Check [review] url in piar.toml and that the server runs.",
        ) from None


def refusal(url: str, status: int | None, body: object) -> PiarError:
    """What an HTTP status of Label Studio means for the user."""
    detail = str(body.get("detail", "")) if isinstance(body, Mapping) else ""
    ssrf = "ssrf" in str(body).lower()
    if ssrf:
        return PiarError(
            f"Label Studio at {url} refuses addresses on this machine (SSRF protection).",
            "Start it with SSRF_PROTECTION_ENABLED=false, or use an address it may reach.",
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
        f"Label Studio at {url} answered {status}. {detail[:200]}".strip(), "Look at the server's log, then try again."
    )
