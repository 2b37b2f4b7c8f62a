"""A project's search for a better instruction, and what it would ask."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from piar.project.asking import agenda, assignment, respondent
from piar.project.proposal import accept as accept_proposal
from piar.project.proposal import propose

if TYPE_CHECKING:
    from piar.evolve.results import EvolveReport
    from piar.evolve.resume import OnEvent
    from piar.judging.forecast import Forecast
    from piar.judging.outcome import OnProgress
    from piar.project.workspace import Workspace


def evolve(
    project: "Workspace",
    *,
    accept: Literal["ask", "auto"] = "ask",
    restart: bool = False,
    on_event: "OnEvent | None" = None,
    on_progress: "OnProgress | None" = None,
    **settings: Any,
) -> "EvolveReport":
    """Search for a better instruction, test the best one on the holdout, and propose it when it passes.

    The same call after an interruption goes on where it was.

    Args:
        accept: `auto` accepts a proposal without asking a person.
        restart: abandon a search that was cut off, or search anew although nothing has changed.
        settings: keys of `[evolve]`, stronger than `piar.toml`: rounds, seed, max_calls, max_usd, max_tokens, …

    Raises:
        PiarError: too little is labelled, the holdout is worn out, or the teacher cannot be asked.
    """
    from piar.evolve.run import Models, evolve

    models = Models(respondent(project, "teacher"), respondent(project, "reviser"))
    with project.journal() as journal:
        report, standing = evolve(
            project.store,
            models,
            project.adopt_instruction(),
            project.config.evolve.having(**settings),
            journal=journal,
            restart=restart,
            on_event=on_event,
            on_progress=on_progress,
        )
    propose(project, standing if report.proposal else None)
    if accept == "auto" and report.proposal:
        accept_proposal(project, by="auto")
    return report


def forecast_evolve(project: "Workspace", **settings: Any) -> "Forecast":
    """What `evolve` with the same settings would ask of the teacher at most; nothing is asked.

    See `piar.evolve.purse.NEEDS`. Races drop candidates early, so that a search usually takes far less. The flip
    audit and the canary (`[evolve.audit]`) are in it.
    """
    from piar.evolve.inputs import forecast_rows
    from piar.evolve.reviser import needs_of
    from piar.judging.forecast import forecast, scaled

    chosen = project.config.evolve.having(**settings)
    needs = needs_of(chosen, forecast_rows(project.store, chosen), project.client("reviser"))
    dev = assignment(project, "split = 'dev'", project.instruction(), 1)
    teacher = respondent(project)
    one = forecast(project.store, teacher, agenda(project, teacher).requests([dev]))
    found = scaled(one, needs.capped)
    return replace(found, basis=f"{found.basis}; {needs.repeated} asked again to audit the teacher")
