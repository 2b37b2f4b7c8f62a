"""What stands between the socket and the application: bodies are read whole and bounded, answers are counted."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HELD = 64  # bodies of full size that may be in memory at once


class _Refused(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class BodyGuard:
    """ASGI middleware.

    Args:
        most: bytes of one body.
        seconds: time that a client has to send it.
    """

    def __init__(self, app: App, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds
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
                raise _Refused(408, f"the body did not arrive within {self._seconds:g} s") from None
            if body is not None:
                await self._app(scope, _replay(body, receive), send)
        except _Refused as refused:
            await _answer(send, refused)
        finally:
            self._held -= held[0]

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive, held: list[int]) -> bytes | None:
        """The body, or None when the client went away."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most:
            raise _Refused(413, f"a body may have {self._most:,} bytes")
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
                raise _Refused(413, f"a body may have {self._most:,} bytes")
            if self._held > HELD * self._most:
                raise _Refused(429, "too many large requests at once")
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


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again


async def _answer(send: Send, refused: _Refused) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"connection", b"close")]  # fmt: skip
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
