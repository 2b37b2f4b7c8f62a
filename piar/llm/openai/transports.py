"""Two ways to send one body to one endpoint, behaving alike: the `openai` package, and aiohttp without it.

The lean one does less for each request (no models, no option merging), which shows only when the endpoint
answers faster than the client can ask: a local server. One conformance suite holds for both.
"""

import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import to_json

from store.errors import PiarError

PATH = "/chat/completions"
MOST_BYTES = 16 << 20  # of a reply, unpacked: an answer of thousands of tokens with all their alternatives has less
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Whether its status claims success; some gateways say 201 of an answer."""
        return 200 <= self.status < 300


class LostConnection(Exception):
    """No whole reply: refused, reset, cut off, or no such host; `sent`: whether the request may have arrived."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class ReplyTooLarge(Exception):
    """The reply is larger than any answer: reading it was given up."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask. `key` is the secret itself, read from the environment and never stored or shown."""

    base_url: str
    key: str
    concurrency: int
    timeout: float
    path: str = PATH

    @property
    def authorization(self) -> dict[str, str]:
        """The header that holds the key; none without a key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"


class Transport(Protocol):
    """Used as an async context manager within one event loop."""

    async def __aenter__(self) -> "Transport": ...

    async def __aexit__(self, *error: object) -> None: ...

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """Send one body and read the whole reply, whatever its status.

        Raises:
            LostConnection: no whole reply came.
            ReplyTooLarge: it did not end after `MOST_BYTES`.
            TimeoutError: a read took too long.
        """
        ...


class OpenAITransport:
    """The `openai` package's HTTP client, with its headers and its proxies. Redirects are not followed."""

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import httpx2
            import openai
        except ImportError:
            raise missing_teacher("openai") from None
        self._httpx = httpx2
        limits = httpx2.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency)
        self._http = openai.DefaultAioHttpClient(limits=limits, timeout=endpoint.timeout, follow_redirects=False)
        client = openai.AsyncOpenAI(
            api_key=endpoint.key or "none", base_url=endpoint.base_url, max_retries=0, http_client=self._http
        )
        self._url = endpoint.base_url.rstrip("/") + endpoint.path
        self._headers = {name: value for name, value in client.default_headers.items() if isinstance(value, str)}
        self._headers |= endpoint.authorization  # the package's own headers hold no key

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """See `Transport.post`."""
        sending = self._http.stream("POST", self._url, content=encode(body), headers=self._headers)
        try:
            async with sending as response:
                data = await bounded(response.aiter_bytes())
        except self._httpx.HTTPError as error:
            # A reset is reported as a timeout, too: what aiohttp raised at the bottom tells them apart.
            *_, cause = _causes(error)
            if isinstance(cause, TimeoutError):
                raise TimeoutError from None
            raise LostConnection(str(cause) or type(cause).__name__, sent=_arrived(error)) from None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        return Reply(response.status_code, headers, data)


class LeanTransport:
    """aiohttp and nothing else."""

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import aiohttp
        except ImportError:
            raise missing_teacher("aiohttp") from None
        self._aiohttp, self._endpoint = aiohttp, endpoint
        self._url = endpoint.base_url.rstrip("/") + endpoint.path
        self._headers = {"Content-Type": "application/json", **endpoint.authorization}

    async def __aenter__(self) -> Transport:
        self._session = self._aiohttp.ClientSession(
            connector=self._aiohttp.TCPConnector(limit=self._endpoint.concurrency),
            timeout=self._aiohttp.ClientTimeout(total=None, sock_read=self._endpoint.timeout),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """See `Transport.post`."""
        try:
            async with self._session.post(self._url, data=encode(body), allow_redirects=False) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, headers, await bounded(response.content.iter_chunked(CHUNK)))
        except TimeoutError:
            raise
        except (self._aiohttp.ClientError, OSError) as error:
            raise LostConnection(str(error) or type(error).__name__, sent=_arrived(error)) from None


async def bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """A reply's body, unpacked.

    Raises:
        ReplyTooLarge: it goes on after `MOST_BYTES`.
    """
    parts, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MOST_BYTES:
            raise ReplyTooLarge
        parts.append(chunk)
    return b"".join(parts)


def _arrived(error: BaseException) -> bool:
    """Whether the request may have arrived before the connection was lost: nothing on the way there stopped it."""
    import aiohttp

    before = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, ConnectionRefusedError, socket.gaierror)
    return not any(isinstance(one, before) for one in _causes(error))


def encode(body: Mapping[str, Any]) -> bytes:
    """A body as JSON; half a surrogate pair, which UTF-8 cannot hold, as an escape."""
    try:
        return to_json(body)
    except ValueError:
        return json.dumps(body).encode()


TRANSPORTS: dict[str, Callable[[Endpoint], Transport]] = {"openai": OpenAITransport, "lean": LeanTransport}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, down to the bottom."""
    while error is not None:
        yield error
        error = error.__cause__


def missing_teacher(package: str) -> PiarError:
    """The error for a teacher without its extra."""
    return PiarError(
        f"Teachers over HTTP need the package {package!r}.", "Install it with pip install 'piar[teacher]'."
    )
