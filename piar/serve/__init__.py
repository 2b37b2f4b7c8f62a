"""`piar serve`: a student over HTTP, its grade in the first token and its trace streamed after it."""

import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import PiarError

if TYPE_CHECKING:
    import uvicorn

    from piar.serve.second_judge import Ask
    from piar.serve.settings import ServeSettings
    from store.cascade import Cascade


@dataclass(frozen=True, slots=True)
class Served:
    """What one server did in its life."""

    url: str
    samples: int
    requests: int
    shadowed: dict[str, int]  # outcome -> samples that a shadow judged too
    decided: dict[str, int]  # of a cascade, who decided -> samples


def serve(
    student: Path,
    settings: "ServeSettings",
    *,
    device: str | None = None,
    reasons: Path | None = None,
    shadow: tuple[Path, Path] | None = None,
    cascade: "tuple[Cascade, Ask | None] | None" = None,
    tell: Callable[[str], None] = print,
) -> Served:
    """Serve a student until SIGTERM or Ctrl-C; requests under way are finished first. SIGHUP reads its folder again.

    Args:
        student: a checkpoint folder.
        device: `cpu`, `cuda:1`, …; None takes a GPU when there is one.
        reasons: folder of another student, that writes the traces of this one's grades.
        shadow: another student's folder, that judges too and does not answer, and a JSONL file that keeps the samples
            to which they give different grades.
        cascade: by which `/score` decides, and how its second judge is asked; see `piar.serve.second_judge`.
        tell: called with a line once requests are taken, and about each reload.

    Raises:
        PiarError: no student there, a shadow or a writer of reasons of another task, or the port is taken.
        UsageError: a token is needed, or named, and not there; or the writer of reasons was taught none.
    """
    import uvicorn

    from piar.serve.app import build
    from piar.serve.door import head_limit, token_of
    from piar.serve.reload import reload_on_hangup, whole, whole_student

    token_of(settings)  # before the port is taken and the student read
    listening = _listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listening.getsockname()[1]}"
    with listening:
        session = whole(student, device, reasons)
        second = (whole_student(shadow[0], device, session.student.task), shadow[1]) if shadow else None
        app = build(session, settings, student.as_posix(), second, cascade, reasons.as_posix() if reasons else "")
        config = uvicorn.Config(
            app,
            log_level=logging.ERROR,
            access_log=False,
            server_header=False,
            backlog=2048,
            http=head_limit(settings.head_seconds),
            ws="none",
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        server = _announcing(uvicorn.Server(config), lambda: tell(f"Serving {student} on {url}"))
        reload_on_hangup(app, student, device, tell, reasons)
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when all is done
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # the same for Ctrl-C
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
    count = app.state.meters.registry.get_sample_value
    requests = sum(s.value for s in _totals(app.state.meters.requests))
    shadowed = {s.labels["outcome"]: int(s.value) for s in _totals(app.state.meters.shadowed)}
    decided = {s.labels["tier"]: int(s.value) for s in _totals(app.state.meters.decided)}
    return Served(url, int(count("piar_samples_total") or 0), int(requests), shadowed, decided)


def _totals(counter: Any) -> list[Any]:
    return [s for metric in counter.collect() for s in metric.samples if s.name.endswith("_total")]


def _announcing(server: "uvicorn.Server", on_ready: Callable[[], None]) -> "uvicorn.Server":
    startup = server.startup

    async def announce(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        if server.started:
            on_ready()

    server.startup = announce  # type: ignore[method-assign]
    return server


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # asyncio does this only for sockets that it made; without it a small answer waits 40 ms for an acknowledgement
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PiarError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            "Choose another --port (0 takes a free one), or stop what holds it.",
        ) from None
    return listening
