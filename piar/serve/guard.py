"""What stands between the socket and the application: bodies are read whole and bounded, answers are counted."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from piar.serve.contracts import Refused, answer_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HELD = 64  # bodies of full size that may be in memory at once
MOST_UNKNOWN = 20  # keys that are explained one by one


class BodyGuard:
    """ASGI middleware.

    Args:
        most: bytes of one body.
        seconds: time that a client has to send it.
        keys: names that the objects of a body may have, by path; elsewhere who reads the body bounds them.
    """

    def __init__(self, app: App, most: int, seconds: float, keys: Mapping[str, Collection[str]]) -> None:
        self._app, self._most, self._seconds = app, most, seconds
        self._keys = {path: frozenset(names) for path, names in keys.items()}
        self._held = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on with its body read, or refuse it; one whose client leaves before the answer is given up."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self._app(scope, receive, send)
        held = [0]
        try:
            try:
                body = await asyncio.wait_for(self._read(scope, receive, held), self._seconds)
            except TimeoutError:
                raise Refused(408, f"the body did not arrive within {self._seconds:g} s") from None
            if body is not None:
                look_through(body, self._keys.get(scope["path"]))
                await _unless_gone(self._app, scope, body, receive, send)
        except Refused as refused:
            await refuse(send, refused, scope["path"])
        finally:
            self._held -= held[0]

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive, held: list[int]) -> bytes | None:
        """The body, or None when the client went away."""
        headers = dict(scope["headers"])
        if (packed := headers.get(b"content-encoding", b"identity").strip().lower()) not in (b"", b"identity"):
            raise Refused(415, f"send the body as it is, not as {packed.decode('latin-1')[:20]}")
        declared = headers.get(b"content-length", b"0")
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


def look_through(body: bytes, keys: frozenset[str] | None) -> None:
    """Refuse a body that would cost much to explain; what is not JSON at all is left to who reads it next.

    Raises:
        Refused: nested too deeply, a key twice, NaN or Infinity, a number without end, or many keys that are not asked.
    """
    unknown = 0

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal unknown
        found = dict(pairs)
        unknown += sum(key not in keys for key in found) if keys is not None else 0
        if len(found) < len(pairs):
            raise Refused(422, "an object has the same key twice")
        if keys is not None and unknown > MOST_UNKNOWN:
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


async def _unless_gone(app: App, scope: MutableMapping[str, Any], body: bytes, receive: Receive, send: Send) -> None:
    """Let an application answer, until it has or until its client goes away before it has begun to."""
    begun = False

    async def told(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    answering, gone = asyncio.ensure_future(app(scope, _replay(body, receive), told)), asyncio.ensure_future(leaving())
    try:
        await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not begun:
            answering.cancel()
            await asyncio.wait((answering,))
        else:  # an answer that is being sent sees to its client itself
            await answering
    finally:
        gone.cancel()
        answering.cancel()


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again


async def refuse(send: Send, refused: Refused, path: str) -> None:
    """Answer a request that is not passed on, in the shape of its path, and close its connection."""
    status, told, more = answer_of(refused, path)
    body = json.dumps(told).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in more.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
