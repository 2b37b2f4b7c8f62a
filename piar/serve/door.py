"""Who is let in: the names a server answers to, the token it asks for, and how long a request's head may take."""

import asyncio
import os
import secrets
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from piar.serve.contracts import Refused
from piar.serve.guard import App, Receive, Send, refuse
from piar.serve.settings import ServeSettings
from store.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_HEAD_BYTES = 2**19  # asyncio hands over 256 kB at a time, a short body among them


def token_of(settings: ServeSettings) -> str:
    """The token that requests must bear; "" when none is asked for.

    Raises:
        UsageError: the variable holds none or a short one, or a server for other machines has none.
    """
    name = settings.token_env
    token = os.environ.get(name, "") if name else ""
    if name and len(token) < 16:
        raise UsageError(
            f"The environment variable {name} holds no token of 16 characters or more.",
            f'Set it, e.g. export {name}="$(openssl rand -hex 24)", and start again.',
        )
    if not token and not is_loopback(settings.host):
        raise UsageError(
            f"Listening on {settings.host} lets other machines ask, and no token is set.",
            'Put a token in a variable: export PIAR_TOKEN="$(openssl rand -hex 24)", and add --token-env PIAR_TOKEN; '
            "or listen on 127.0.0.1.",
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def answers_to(settings: ServeSettings) -> frozenset[str]:
    """The host names that requests may be addressed to; a page of another name reaches this server by a DNS trick."""
    return frozenset(name.lower().strip("[]") for name in (*LOOPBACK, settings.host, *settings.allow_hosts))


class Doorman:
    """ASGI middleware that lets in requests to a known host, with the token where one is set.

    Args:
        hosts: names without port, in lower case; `*` lets any in.
        token: "" asks for none.
    """

    def __init__(self, app: App, hosts: Collection[str], token: str) -> None:
        self._app, self._hosts, self._token = app, hosts, token.encode()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and (refused := self._refusal(scope["headers"])):
            await refuse(send, refused, scope["path"])
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> Refused | None:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if "*" not in self._hosts and (len(hosts) != 1 or _name(hosts[0]) not in self._hosts):
            return Refused(421, "this server does not answer to that host; start it with --allow-host NAME")
        given = [value for name, value in headers if name == b"authorization"]
        if self._token and not (len(given) == 1 and _same(given[0], self._token)):
            return Refused(401, "send the server's token: Authorization: Bearer TOKEN")
        return None


def _name(host: str) -> str:
    """A Host header without its port: `localhost`, `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _same(given: bytes, token: bytes) -> bool:
    kind, _, value = given.partition(b" ")
    return kind.lower() == b"bearer" and secrets.compare_digest(value.strip(), token)


class HeadLimited(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, closing connections whose next request has not begun, head and all, after `seconds`."""

    seconds = 10.0
    _head_bytes = 0
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Part of a head, or of a body."""
        self._head_bytes += 0 if self._busy() else len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self.transport.close()
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._forget()
        self._head_bytes = 0
        self._overdue = self.loop.call_later(self.seconds, self._give_up)

    def _forget(self) -> None:
        if self._overdue:
            self._overdue.cancel()

    def _give_up(self) -> None:
        if not self._busy():
            self.transport.close()

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


def head_limit(seconds: float) -> type[asyncio.Protocol]:
    """The protocol with this limit."""
    return type("Limited", (HeadLimited,), {"seconds": seconds})
