"""The verb that puts a student into production: serve."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piar.cli.options import MaxCalls, MaxUsd, budget
from piar.cli.verb import Answer, Panel, asked, located, messages, open_project, verb
from store.figures import many

if TYPE_CHECKING:
    from piar.project import documents


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    verb(app, "serve", Panel.TRAIN)(serve)


def serve(
    student: Annotated[Path, typer.Option("--student", metavar="PATH", help="A checkpoint folder.")],
    reasons: Annotated[
        Path | None,
        typer.Option("--reasons", metavar="PATH", help="Another student, that writes the reasons of /explain."),
    ] = None,
    shadow: Annotated[
        Path | None,
        typer.Option("--shadow", metavar="PATH", help="Another student, that judges too and does not answer."),
    ] = None,
    cascade: Annotated[
        Path | None,
        typer.Option("--cascade", metavar="FILE", help="What `piar cascade` wrote: /score decides, or hands rows on."),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes a free one.", show_default="8900")] = None,
    token_env: Annotated[
        str | None, typer.Option("--token-env", metavar="NAME", help="Variable with a token that requests must bear.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Also answer to this host name.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, cuda:1, …", show_default="a GPU when there is one")
    ] = None,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Serve a student over HTTP: the grade at once, the reason streamed after it.

    `POST /score` grades one or many samples; `POST /explain` streams the grade as its first event, then the trace as it
    is written. `POST /v1/decisions` gives the same grades to clients of decision models, `POST /rerank` ranks
    documents by them. A page to try it is at `/`, the API at `/docs`, Prometheus counters at `/metrics`, health at
    `/healthz`.
    More work than the limits of `[serve]` allow is answered 429 with Retry-After. Ctrl-C and SIGTERM finish what is
    under way; SIGHUP reads the folder again, and no request is lost. Other addresses than this machine's own need a
    token: clients send `Authorization: Bearer TOKEN`.

    An encoder, and a student of grades alone, write no reasons: with --reasons another student writes them, for the
    grade that this one gives. With --shadow, samples to which the other student gives another grade are kept in
    `[serve] shadow_log`.

    With --cascade, `/score` says who decided each sample (`tier`): the student where it is sure enough, else the
    teacher, which is asked within `[serve] second_seconds` and the caps, else `people`, with no grade and the reason.
    A teacher that is down decides nothing. Its answers are kept in the project's folder `cascade`.

    Example: `piar serve --student students/sft/final --port 8900`
    """
    from piar.project.config import load
    from piar.serve import serve as run

    given = {
        "serve.host": host,
        "serve.port": port,
        "serve.token_env": token_env,
        "serve.allow_hosts": json.dumps(allow_host) if allow_host else None,
    }
    overrides = (*asked().overrides, *(f"{key}={value}" for key, value in given.items() if value is not None))
    settings = load(asked().folder, overrides, optional=True).serve
    student = located(student)
    second = (located(shadow), asked().folder / settings.shadow_log) if shadow else None
    both, teacher = None, None
    if cascade:
        found, teacher = open_project().open_cascade(located(cascade), student, budget=budget(max_usd, max_calls))
        both = found, partial(teacher, work=asked().folder / "cascade") if teacher else None
    try:
        writer = located(reasons) if reasons else None
        served = run(
            student, settings, device=device, reasons=writer, shadow=second, cascade=both, tell=messages().print
        )
    finally:
        if teacher:
            teacher.end()
    document: documents.Serving = {
        "url": served.url,
        "requests": served.requests,
        "samples": served.samples,
        "shadow": served.shadowed,
        "decided": served.decided,
    }
    told = [f"Served {many(served.requests, 'request')}, {many(served.samples, 'sample')} judged."]
    if second:
        outcomes = ", ".join(f"{outcome} {n:,}" for outcome, n in sorted(served.shadowed.items()))
        told.append(f"The shadow {outcomes or 'judged none'}; where it differs is in {second[1]}.")
    if both:
        decided = ", ".join(f"{tier} {n:,}" for tier, n in sorted(served.decided.items()))
        told.append(f"Decided by: {decided or 'nobody, nothing was asked'}.")
    return Answer(document, "\n".join(told))
