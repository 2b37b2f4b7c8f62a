"""What stands between the socket and the application: bodies are read whole and bounded, answers are counted."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HELD = 64  # bodies of full size that may be in memory at once
MOST_UNKNOWN = 20  # keys that are explained one by one


class Refused(Exception):
    """Why a request is not passed on; `status` is HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class BodyGuard:
    """ASGI middleware.

    Args:
        most: bytes of one body.
        seconds: time that a client has to send it.
        keys: names that the objects of a body may have.
    """

    def __init__(self, app: App, most: int, seconds: float, keys: Collection[str]) -> None:
        self._app, self._most, self._seconds, self._keys = app, most, seconds, frozenset(keys)
        self._held = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on with its body read, or refuse it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self._app(scope, receive, send)
        held = [0]
        try:
            try:
                body = await asyncio.wait_for(self._read(scope, receive, held), self._seconds)
            except TimeoutError:
                raise Refused(408, f"the body did not arrive within {self._seconds:g} s") from None
            if body is not None:
                look_through(body, self._keys)
                await self._app(scope, _replay(body, receive), send)
        except Refused as refused:
            await refuse(send, refused)
        finally:
            self._held -= held[0]

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive, held: list[int]) -> bytes | None:
        """The body, or None when the client went away."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most:
            raise Refused(413, f"a body may have {self._most:,} bytes")
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            held[0] += len(parts[-1])
            self._held += len(parts[-1])
            if held[0] > self._most:
                raise Refused(413, f"a body may have {self._most:,} bytes")
            if self._held > HELD * self._most:
                raise Refused(429, "too many large requests at once")
            more = message.get("more_body", False)
        return b"".join(parts)


class Counted:
    """ASGI middleware that tells the route and the status of every answer.

    Args:
        count: called with both; the route of a request that never reached one is `unknown`.
    """

    def __init__(self, app: App, count: Callable[[str, int], None]) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(getattr(scope.get("route"), "path", "unknown"), message["status"])
            await send(message)

        await self._app(scope, receive, told)


def look_through(body: bytes, keys: frozenset[str]) -> None:
    """Refuse a body that would cost much to explain; what is not JSON at all is left to who reads it next.

    Raises:
        Refused: nested too deeply, a key twice, NaN or Infinity, a number without end, or many keys that are not asked.
    """
    unknown = 0

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal unknown
        found = dict(pairs)
        unknown += sum(key not in keys for key in found)
        if len(found) < len(pairs):
            raise Refused(422, "an object has the same key twice")
        if unknown > MOST_UNKNOWN:
            raise Refused(422, f"unknown fields; a sample has {', '.join(sorted(keys - {'samples'}))[:200]}")
        return found

    def no_number(name: str) -> None:
        raise Refused(422, f"{name} is not JSON")

    try:
        json.loads(body, object_pairs_hook=members, parse_constant=no_number)
    except RecursionError:
        raise Refused(400, "the body is nested too deeply to be parsed") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        return
    except ValueError:
        raise Refused(422, "the body holds a number with too many digits") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again


async def refuse(send: Send, refused: Refused) -> None:
    """Answer a request that is not passed on, and close its connection."""
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
