"""The HTTP face of a student: `/score`, `/explain`, and what operators need around them."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, create_model

from piar.serve.api_page import POLICY, api_page
from piar.serve.decisions import add_decisions
from piar.serve.door import Doorman, answers_to, token_of
from piar.serve.engine import Engine, Explanation
from piar.serve.guard import BodyGuard, Counted
from piar.serve.handlers import add_handlers, engine_of
from piar.serve.meters import Meters
from piar.serve.offer import Offer
from piar.serve.rerank import add_rerank
from piar.serve.second_judge import Ask, SecondJudge
from piar.serve.settings import ServeSettings
from piar.serve.shadow import Shadow
from piar.serve.systemone import add_systemone
from store.cascade import Cascade
from store.task import Task
from store.types import Verdict
from store.version import version
from trainers.scoring import Scored
from trainers.students import AnySession

PAGE = Path(__file__).with_name("page.html")
ABOUT = """The grade is the student's first token: `/score` runs one prefill and reads it.
`/explain` streams the same grade as its first event, then the trace as it is written; its last event says with
`agrees` whether the trace's own verdict is that grade (null: it says none)."""


class Opinion(BaseModel):
    """What the student says of one sample; the likeliest grade, every grade's probability, the expected value."""

    grade: str
    probs: dict[str, float]
    expected: float


class Decided(BaseModel):
    """Who decided one sample, and as what: `student`, `teacher`, or `people` where nobody was sure enough.

    Without a grade the reason says why not; a teacher that gives no probabilities has a grade alone.
    """

    grade: str | None
    tier: str
    reason: str | None
    probs: dict[str, float] | None = None
    expected: float | None = None


class Decisions(BaseModel):
    """One decision per sample, in the order asked."""

    results: list[Decided]
    student: str


class Opinions(BaseModel):
    """One opinion per sample, in the order asked."""

    results: list[Opinion]
    student: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON."},
    401: {"model": Problem, "description": "The server asks for a token."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "The body is too large, or a sample too long for the student."},
    415: {"model": Problem, "description": "The body is packed, such as by gzip."},
    421: {"model": Problem, "description": "The server does not answer to that host name."},
    429: {"model": Problem, "description": "Too much waits already; see Retry-After."},
    500: {"model": Problem, "description": "The model failed on these samples; the server's log says why."},
    503: {"model": Problem, "description": "The model has stopped."},
}
NO_TRACES = {"model": Problem, "description": "This student was taught grades alone."}


def build(
    session: AnySession,
    settings: ServeSettings,
    name: str,
    shadow: tuple[AnySession, Path] | None = None,
    cascade: tuple[Cascade, Ask | None] | None = None,
    writer: str = "",
) -> FastAPI:
    """The application, with an engine that lives as long as it does.

    Args:
        name: of the student, as answers give it.
        shadow: another student of the same task, that judges too, and the file that keeps where they differ.
        cascade: by which `/score` decides, and how its second judge is asked.
        writer: name of the student that writes the reasons, where that is another one.

    Raises:
        UsageError: a token is needed, or named, and not there; or a setting names no field.
    """
    token = token_of(settings)
    meters = Meters()
    task = session.student.task

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = Engine(session, settings, meters, Shadow(*shadow, meters) if shadow else None)
        if cascade is not None:
            app.state.second = SecondJudge(*cascade, task, settings.second_seconds, meters)
        yield
        if app.state.second is not None:
            app.state.second.close()
        app.state.engine.close()

    app = FastAPI(
        title=f"{task.name}: piar student",
        description=ABOUT,
        version=version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.meters, app.state.second = meters, None
    app.add_middleware(
        BodyGuard,
        most=int(settings.body_mb * 2**20),
        seconds=settings.body_seconds,
        keys=dict.fromkeys(("/score", "/explain"), ("samples", *task.fields)),
    )
    app.add_middleware(Doorman, hosts=answers_to(settings), token=token)
    app.add_middleware(Counted, count=lambda route, status: meters.requests.labels(route, status).inc())
    add_handlers(app)
    app.state.offer = Offer.of(session.student, (name, *settings.names), settings.field_characters)
    _judging(app, task, settings, name, decides=cascade is not None)
    add_decisions(app)
    add_systemone(app)
    add_rerank(app, settings)
    _around(app, task, name, writer or name, meters)
    return app


def _judging(app: FastAPI, task: Task, settings: ServeSettings, name: str, *, decides: bool) -> None:
    Sample, Samples = _bodies(task, settings)

    @app.post(
        "/score",
        responses=REFUSALS,
        summary="Grade one or many samples",
        response_model=Decisions if decides else Opinions,
    )
    async def score(body: Samples, request: Request) -> Opinions | Decisions:  # type: ignore[valid-type]
        engine = engine_of(request)
        samples = [one.model_dump(by_alias=True) for one in body.samples]  # type: ignore[attr-defined]
        scored = (await engine.score(samples)).scored
        if not decides:
            return Opinions(results=[_opinion(s, task) for s in scored], student=name)
        found = await request.app.state.second.closed(samples, scored)
        return Decisions(results=[_decided(verdict, task) for verdict in found], student=name)

    async def begin(body: Sample, request: Request) -> AsyncIterator[Explanation]:  # type: ignore[valid-type]
        engine = engine_of(request)
        if not engine.explains:
            raise HTTPException(
                409, "This student was taught grades alone: it has no trace to write. --reasons names one that writes."
            )
        explanation = await engine.explain(body.model_dump(by_alias=True))  # type: ignore[attr-defined]
        try:
            yield explanation
        finally:
            explanation.cancelled = True

    @app.post(
        "/explain",
        responses={**REFUSALS, 409: NO_TRACES},
        response_class=EventSourceResponse,
        summary="Grade one sample at once, then stream the reason",
    )
    async def explain(explanation: Annotated[Explanation, Depends(begin)]) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(event="grade", data=_opinion(explanation.begun.result(), task))
        async for text in explanation.texts():
            yield ServerSentEvent(event="text", data=text)
        parsed = explanation.parsed
        told = {"text": explanation.text, "trace": parsed.trace, "reason": parsed.reason}
        yield ServerSentEvent(event="trace", data=told | {"agrees": explanation.agrees})


def _around(app: FastAPI, task: Task, name: str, writer: str, meters: Meters) -> None:
    page = PAGE.read_text(encoding="utf-8")
    policy = _policy(page)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def try_it() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()), headers={"Content-Security-Policy": POLICY})

    @app.get("/task", summary="What is judged: fields and grades; and who writes the reasons, if anybody does")
    async def about(request: Request) -> dict[str, Any]:
        return {
            "student": name,
            "reasons": writer if engine_of(request).explains else None,
            "task": task.name,
            "fields": list(task.fields),
            "grades": [
                {"symbol": g.symbol, "name": g.name, "meaning": g.meaning, "value": g.value} for g in task.grades
            ],
        }

    @app.head("/healthz", include_in_schema=False)  # as some load balancers ask
    @app.get("/healthz", responses={503: REFUSALS[503]}, summary="Whether the model answers")
    async def health(request: Request) -> dict[str, Any]:
        return {"status": "ok", "student": name, "waiting": engine_of(request).waiting}

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)


def _bodies(task: Task, settings: ServeSettings) -> tuple[type[BaseModel], type[BaseModel]]:
    """Request models that name the task's fields; the attributes have names of their own, so no field can clash."""
    strict = ConfigDict(extra="forbid")
    most = settings.field_characters
    fields: dict[str, Any] = {
        f"field_{i}": (str, Field(alias=name, max_length=most)) for i, name in enumerate(task.fields)
    }
    sample = create_model("Sample", __config__=strict, **fields)
    many = Annotated[list[sample], Field(min_length=1, max_length=settings.request_samples)]  # type: ignore[valid-type]
    return sample, create_model("Samples", __config__=strict, samples=(many, ...))


def _opinion(scored: Scored, task: Task) -> Opinion:
    return Opinion(
        grade=scored.grade, probs=dict(zip(task.symbols, scored.probs, strict=True)), expected=scored.expected
    )


def _decided(verdict: Verdict, task: Task) -> Decided:
    decided = Decided(grade=verdict.grade, tier=verdict.judge.partition(":")[0], reason=verdict.failure)
    if verdict.probs is None:
        return decided
    expected = sum(p * grade.value for p, grade in zip(verdict.probs, task.grades, strict=True))
    probs = dict(zip(task.symbols, verdict.probs, strict=True))
    return decided.model_copy(update={"probs": probs, "expected": expected})


def _policy(page: str) -> str:
    """The page may run its own inline script and style, by hash, and ask this server; nothing else."""
    allowed = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in re.findall(r"<(script|style)>(.*?)</\1>", page, re.DOTALL)
    }
    return (
        f"default-src 'none'; connect-src 'self'; script-src 'sha256-{allowed['script']}'; "
        f"style-src 'sha256-{allowed['style']}'"
    )
