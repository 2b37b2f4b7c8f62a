"""Verbs for developers: simulate."""

from typing import Annotated

import typer

from piar.cli.verb import Answer, Panel, verb


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "simulate", Panel.DEVELOPER)(simulate)


def simulate(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8080,
    noise: Annotated[float, typer.Option("--noise", min=0, max=1, help="Share of answers that are wrong.")] = 0.0,
    latency: Annotated[float, typer.Option("--latency", min=0, help="Mean seconds before an answer.")] = 0.0,
    errors: Annotated[float, typer.Option("--errors", min=0, max=1, help="Share answered with status 500.")] = 0.0,
    rate_limited: Annotated[
        float, typer.Option("--rate-limited", min=0, max=1, help="Share answered with status 429.")
    ] = 0.0,
    malformed: Annotated[float, typer.Option("--malformed", min=0, max=1, help="Share that follows no format.")] = 0.0,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Also answer to this host name.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which calls meet which fault.")] = 0,
) -> Answer:
    """Serve the offline teacher as an OpenAI-compatible chat and decision endpoint, with faults, until Ctrl-C.

    Example: `piar simulate --port 8080 --rate-limited 0.1`
    """
    from piar.offline import Faults, RulebookClient, serve

    faults = Faults(latency=latency, errors=errors, rate_limited=rate_limited, malformed=malformed, seed=seed)
    serve(RulebookClient(noise=noise, seed=seed), host, port, faults=faults, allow_hosts=allow_host or ())
    return Answer({}, "")
