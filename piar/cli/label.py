"""Verbs that ask judges: label, score."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piar.cli.options import DryRun, Instruction, MaxCalls, MaxUsd, budget
from piar.cli.render.common import dollars, facts, forecast_view, receipt_lines, score_view
from piar.cli.render.progress import meter
from piar.cli.verb import Answer, Panel, open_project, plain, verb
from store.errors import UsageError
from store.figures import bracketed, many, span
from store.types import Split

if TYPE_CHECKING:
    from piar.judging.forecast import Forecast
    from piar.judging.outcome import LabelReport
    from piar.judging.trust import Trust
    from piar.llm.cost import Budget
    from piar.llm.openai.batch_files import RequestManifest
    from piar.measure.live_logs import Live
    from piar.project import documents
    from piar.project.facade import Project

_CITED = (
    "Ask every row again, or those that cited a rule: "
    '`piar label --where "sample_id in (select sample_id from verdicts '
    "where instruction = '{}' and list_contains(rules, 'R01'))\"`."
)


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "label", Panel.LABEL)(label)
    verb(app, "score", Panel.LABEL)(score)


def label(
    pool: Annotated[
        Path | None, typer.Argument(metavar="[POOL.parquet]", help="A file whose rows never enter the store.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Where a pool's labels go.")] = None,
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="Which samples: a condition over their columns.")
    ] = "split in ('train', 'pool')",
    instruction: Instruction = None,
    votes: Annotated[
        int | None, typer.Option("--votes", min=1, help="Opinions of each sample.", show_default="label.votes")
    ] = None,
    sure: Annotated[
        float | None,
        typer.Option(
            "--sure",
            min=0.0,
            max=1,
            help="Ask 1, 3, 5, … votes only until a sample is this sure.",
            show_default="label.sure",
        ),
    ] = None,
    target_precision: Annotated[
        float | None,
        typer.Option("--target-precision", min=0.5, max=1, help="Say which labels to trust; queue the rest."),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", hidden=True)] = None,
    reuse_verdicts: Annotated[
        bool, typer.Option("--reuse-verdicts", help="Let verdicts of the model at another endpoint stand, from now on.")
    ] = False,
    export_requests: Annotated[
        Path | None, typer.Option("--export-requests", metavar="DIR", help="Write requests as files; ask nothing.")
    ] = None,
    import_responses: Annotated[
        Path | None, typer.Option("--import-responses", metavar="DIR", help="Take in the answers to such files.")
    ] = None,
    batch: Annotated[
        Path | None, typer.Option("--batch", metavar="DIR", help="Go through the provider's batch API; run it again.")
    ] = None,
    wait: Annotated[
        float | None, typer.Option("--wait", min=0, help="With --batch: look every so many seconds until all is back.")
    ] = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Let the teacher judge samples of the store, or the rows of a Parquet file.

    What is known is not asked again, and every answer is kept at once: stop it with Ctrl-C and the same
    command goes on. To bring a model of your own, name it under `[teacher]` in piar.toml (model, base_url, and
    api_key_env, the name of the variable that holds the key), look at `piar doctor --ask`, and take a pilot:
    `piar label --max-calls 50`, then `piar label --dry-run`. docs/teachers.md walks through it.

    Example: `piar label --where "split = 'pool'" --max-usd 5`
    """
    if since is not None:
        raise UsageError("label has no --since any more: a model may change its mind on any row.", _CITED.format(since))
    project, caps = open_project(), budget(max_usd, max_calls)
    asked: dict[str, Any] = {"instruction": instruction, "votes": votes, "sure": sure}
    if pool is not None:
        return _label_pool(project, pool, out, asked, None if dry_run else caps)
    if dry_run:
        return _forecast(project, where, **asked, reuse=reuse_verdicts)
    if export_requests is not None:
        return _exported(project.export_requests(export_requests, where, **asked, budget=caps))
    if batch is not None:
        states = _batches(project, batch, wait, where, {**asked, "budget": caps})
        if set(states.values()) - {"downloaded"}:
            return _under_way(states)
    if import_responses := import_responses or batch:
        return _imported(project, import_responses, where, asked)
    with meter("judging") as show:
        report, receipt = project.label(where, **asked, budget=caps, reuse=reuse_verdicts, on_progress=show)
    document, lines = _counts(report), _labelled(report)
    if target_precision is not None:
        found = project.trust(target_precision, instruction=instruction)
        document["trust"] = found
        lines += _trusted(found)
    return Answer(document, facts([*lines, *receipt_lines(receipt)]), exit_code=int(report.hopeless))


def _label_pool(
    project: "Project", pool: Path, out: Path | None, asked: dict[str, Any], caps: "Budget | None"
) -> Answer:
    """A file's labels; without caps, what they would ask."""
    if caps is None:
        return would_ask(project.forecast_pool(pool, **asked))
    if out is None:
        raise UsageError("A pool needs a file for its labels.", "Add -o OUT.parquet.")
    with meter("judging") as show:
        report = project.label_pool(pool, out, **asked, budget=caps, on_progress=show)
    if report.skipped:
        return Answer(plain(report), facts([("labelled", f"{out} is there already; nothing was asked")]))
    failed = ", ".join(f"{n:,} {kind}" for kind, n in report.failed.items()) or "0"
    lines = [("labelled", f"{report.labelled:,} of {many(report.rows, 'row')}, in {out}")]
    if report.reason:
        lines.append(("the last failure", report.reason))
    lines.append(
        ("receipt", f"{many(report.asked, 'call')} · {failed} failed · {dollars(report.cost_usd, report.priced)}")
    )
    return Answer(plain(report), facts(lines), exit_code=int(report.hopeless))


def _forecast(project: "Project", where: str, **asked: Any) -> Answer:
    return would_ask(project.forecast_label(where, **asked))


def would_ask(found: "Forecast") -> Answer:
    """The answer of a verb that was told to ask nothing."""
    return Answer({"dry_run": True, **plain(found)}, forecast_view(found))


def _batches(project: "Project", folder: Path, wait: float | None, where: str, asked: dict[str, Any]) -> dict[str, str]:
    """Step after step, until all is back or nobody waits."""
    states = project.submit_batches(folder, where, **asked)
    while wait is not None and set(states.values()) - {"downloaded"}:
        time.sleep(wait)
        states = project.submit_batches(folder, where, **asked)
    return states


def _under_way(states: dict[str, str]) -> Answer:
    counted = ", ".join(f"{n:,} {status}" for status, n in Counter(states.values()).items())
    lines = [("batches", counted), ("next", "run the same command again; what is back is not asked or paid for twice")]
    document: documents.UnderWay = {"batches": states}
    return Answer(document, facts(lines))


def _imported(project: "Project", folder: Path, where: str, asked: dict[str, Any]) -> Answer:
    report, rejected = project.import_responses(folder, where, **asked)
    document: documents.Labelling = {**_counts(report), "rejected": rejected}
    return Answer(document, _report_view(report, len(rejected)), exit_code=int(report.hopeless))


def _exported(manifest: "RequestManifest") -> Answer:
    lines = [("requests", f"{manifest.lines:,} in {many(len(manifest.shards), 'file')}"), ("model", manifest.name)]
    document: documents.Exported = {"requests": manifest.lines, "shards": manifest.shards}
    return Answer(document, facts(lines))


def _counts(report: "LabelReport") -> "documents.Labelling":
    return {
        "asked": report.asked,
        "cached": report.cached,
        "labelled": report.labelled,
        "unsure": report.unsure,
        "failed": report.failed,
        "reason": report.reason,
        "cost_usd": report.cost_usd,
        "seconds": report.seconds,
    }


def _labelled(report: "LabelReport") -> list[tuple[str, Any]]:
    lines = [("labelled", f"{report.labelled:,} of {report.labelled + report.failed.total():,}")]
    if report.reason:
        lines.append(("the last failure", report.reason))
    if report.failed["budget"]:
        lines.append(("not asked", f"{report.failed['budget']:,}: the budget is spent"))
    if report.unsure:
        lines.append(("unsure", f"{many(report.unsure, 'sample')} after all their votes"))
    return lines


def _report_view(report: "LabelReport", rejected: int) -> Any:
    failed = ", ".join(f"{n:,} {kind}" for kind, n in report.failed.items()) or "0"
    return facts(
        [
            *_labelled(report),
            ("answers", f"{report.asked:,} taken in · {report.cached:,} known · {failed} failed"),
            ("rejected", f"{many(rejected, 'line')}"),
        ]
    )


def _trusted(found: "Trust") -> list[tuple[str, Any]]:
    reached = found.threshold
    if reached.precision is None:
        return [
            (
                "trusted",
                f"none: no confidence reaches {reached.target:.0%} on {many(found.measured, 'row')} with truth",
            )
        ]
    words = f"{many(found.trusted, 'label')}, {found.queued:,} queued for people"
    ends = bracketed(span(reached.low, reached.high, "{:.1%}"))
    interval = f"{reached.precision:.1%}{ends} right on rows with truth"
    certain = "" if reached.reached else f"; {'the interval does' if ends else 'so few groups do'} not exclude less"
    return [("trusted", words), ("", f"{interval}, out of fold by group{certain}")]


def score(
    judge: Annotated[str, typer.Option("--judge", help="teacher, baseline:NAME or student:PATH.")] = "teacher",
    split: Annotated[Split, typer.Option("--split", help="Which rows.")] = "test",
    instruction: Instruction = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ID", help="An instruction or another judge: adds what is gained over it."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="FILES", help="Parquet files for a student to judge, e.g. 'logs/*.parquet'."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Where a pool's grades go.")] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only every N-th file from the I-th: one process a GPU.")
    ] = "0/1",
    trace: Annotated[bool, typer.Option("--trace", help="With --pool: write rules and evidence too.")] = False,
    cascade: Annotated[
        Path | None,
        typer.Option("--cascade", metavar="FILE", help="With --pool: what `piar cascade` wrote; the teacher goes on."),
    ] = None,
    live: Annotated[
        str | None,
        typer.Option("--live", metavar="SQL", help="Estimate its accuracy on logs, e.g. \"source = 'week2'\"."),
    ] = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Measure a judge against truth, or let a student grade files that never enter the store.

    Every figure has a 95 % interval by group. What the judge has not said yet is asked first. A file whose grades
    are in DIR already is skipped; grades that another student or another file of that name left there are refused.

    --live estimates how often a judge is right on logs without gold: from the teacher's labels of all of them,
    corrected by those that people graded because a review batch drew them at random (prediction-powered, arXiv
    2311.01453, 2408.15204). Its interval holds even where the teacher is wrong, and is no wider than from people's
    labels alone. Rows of queries that `piar import --sample-queries` drew count once over their chance.

    With --cascade a pool's rows are decided by the student where it is sure enough, else by the teacher where that is
    (--dry-run forecasts it, --max-usd caps it), else by nobody: `piar_tier` says who, `piar_failure` why not.

    Example: `piar score --split test --against 55732387b917`

    Example: `CUDA_VISIBLE_DEVICES=1 piar score --judge student:students/sft/final --pool 'logs/*.parquet' -o graded
    --shard 1/4`
    """
    if pool is not None:
        from piar.cli.pools import score_pool

        return score_pool(judge, pool, out, shard, trace, cascade, None if dry_run else budget(max_usd, max_calls))
    if cascade is not None:
        raise UsageError("A cascade decides the rows of a pool.", "Add --pool FILES and -o DIR.")
    project = open_project()
    if live is not None:
        with meter("judging") as show:
            found = project.live(judge, live, instruction=instruction, on_progress=show)
        return _live(found)
    if dry_run:
        return _forecast(project, f"split = '{split}'", instruction=instruction, votes=1)
    with meter("judging") as show:
        scored, receipt = project.score(
            judge, split, instruction=instruction, against=against, budget=budget(max_usd, max_calls), on_progress=show
        )
    measured = scored.measured
    document: dict[str, Any] = {
        "judge": measured.judge.name,
        "instruction": measured.judge.instruction,
        "split": split,
        **measured.scores.model_dump(),
        "majority": measured.majority,
        "unjudged": measured.unjudged,
        "probabilities": measured.probabilities,
        "calibrated": scored.calibrated,
        "baselines": {other.judge.name: other.scores for other in scored.baselines},
        "receipt": receipt,
    }
    if scored.latency_ms:
        document["latency_ms"] = scored.latency_ms
    if scored.gained:
        document |= {"gain": scored.gained.gain, "gain_majority": scored.gained.majority}
    return Answer(document, score_view(scored, receipt))


def _live(found: "Live") -> Answer:
    from piar.cli.render.common import percent

    powered = found.found
    document: documents.LiveAccuracy = {
        "judge": found.judge,
        "where": found.where,
        "n": powered.rows,
        "gold": powered.gold,
        "groups": powered.groups,
        "accuracy": powered.estimate,
        "gold_alone": powered.alone,
        "teacher_says": found.told,
        "weight": powered.weight,
        "drawn": found.drawn,
        "stands_for": found.stands_for,
    }
    each = f"{many(found.drawn, 'row')} of drawn queries count once over the chance with which these were drawn"
    drawn = [("stands for", f"{found.stands_for:,.0f} rows: {each}")] if found.drawn else []
    return Answer(
        document,
        facts(
            [
                (
                    f"{found.judge}, live",
                    f"{percent(powered.estimate)} % right on {many(powered.rows, 'row')} where {found.where}",
                ),
                (
                    "people alone",
                    f"{percent(powered.alone)} %, {powered.gold:,} random rows of {many(powered.groups, 'group')}",
                ),
                ("teacher says", f"{100 * found.told:.1f} %; counts with weight {powered.weight:.2f}"),
                *drawn,
            ]
        ),
    )
