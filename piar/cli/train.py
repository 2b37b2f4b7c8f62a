"""Verbs that train a student: sft, grpo, distill, encoder, export. They need shards and torch, never the store."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from piar.cli.verb import Answer, Panel, asked, group, here, located, messages, verb
from store.errors import PiarError
from store.figures import bracketed, many, span
from store.vectors import FOLDER, STATES

if TYPE_CHECKING:
    from piar.project import documents
    from piar.project.config import Config
    from trainers.loop import Trained

HELP = """Teach a student on the shards of `piar curriculum export`.

The same line works under `torchrun --nproc-per-node N -m piar train …`. All settings of `[student]` and
`[train.*]`, and what a run leaves: docs/train.md.
"""
Shards = Annotated[
    Path | None, typer.Argument(metavar="SHARDS", help="Folder of the export.", show_default="shards/ of the project")
]
Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder of the run.", show_default="students/TRAINER")
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="tiny, a Hugging Face folder, or a checkpoint.", show_default="student.model"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")]


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    train = group(HELP)
    for function in (sft, grpo, distill, encoder, export):
        verb(train, function.__name__)(function)
    app.add_typer(train, name="train", rich_help_panel=Panel.TRAIN, help=HELP)


def sft(shards: Shards = None, out: Out = None, model: Model = None, resume: Resume = False) -> Answer:
    """Supervised fine-tuning: the grade first, then its trace.

    Example: `piar train sft shards --set train.sft.completion=grade`
    """
    config = _config(f"student.model={model}" if model else "")
    from trainers.sft import train

    return _answer(
        train(*_folders(shards, out, "sft"), student=config.student, settings=config.train.sft, resume=resume)
    )


def grpo(shards: Shards = None, out: Out = None, model: Model = None, resume: Resume = False) -> Answer:
    """Stepwise-GRPO with mode balance, from a student that SFT has taught.

    Example: `piar train grpo shards --model students/sft/final`
    """
    config = _config(f"student.model={model}" if model else "")
    from trainers.grpo import train

    return _answer(
        train(
            *_folders(shards, out, "grpo"),
            student=config.student,
            settings=config.train.grpo,
            anchor=config.train.sft,
            resume=resume,
        )
    )


def distill(shards: Shards = None, out: Out = None, model: Model = None, resume: Resume = False) -> Answer:
    """Distil a teacher's grade distributions and traces into a student.

    Example: `piar train distill shards --set train.distill.teacher=students/large/final`
    """
    config = _config(f"student.model={model}" if model else "")
    from trainers.distill import train

    return _answer(
        train(*_folders(shards, out, "distill"), student=config.student, settings=config.train.distill, resume=resume)
    )


def encoder(
    shards: Shards = None,
    out: Out = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="tiny, or the folder of an encoder or a language model.", show_default="train.encoder.model"
        ),
    ] = None,
) -> Answer:
    """Teach an encoder to classify: a student on the same rows and metrics, fast and without a trace.

    A sentence encoder's folder begins with a linear head on its vectors and on words; `--set train.encoder.epochs=0`
    stays there, in seconds: worth a try first where there are a few hundred rows. A language model's folder is asked
    for the grade and stays as it is; the same head is put on its states two thirds up, and on the vectors of the
    encoder that `[baselines]` names, where that helps, or that `--set train.encoder.beside=DIR` names. In a project
    what it was read for is kept, so that the next run reads new rows alone. Of texts that are too long the start
    stays; `--set train.encoder.keeps=end` for those whose point comes last.

    Example: `piar train encoder shards --model models/deberta-v3-small`
    """
    config = _config(f"train.encoder.model={model}" if model else "")
    from trainers.encoder import train

    beside, folders = _located(config.baselines.encoder), _folders(shards, out, "encoder")
    states = _states()
    try:
        return _answer(train(*folders, settings=config.train.encoder, beside=beside, keep=states))
    except KeyboardInterrupt:
        kept = " What a language model was read for is kept." if states and any(states.glob(f"*{STATES}")) else ""
        raise PiarError(
            f"Interrupted. An encoder keeps nothing of half a run: the same command begins anew.{kept}", exit_code=130
        ) from None


def _states() -> Path | None:
    """Where a project keeps what models were read for; None outside a project."""
    folder = asked().folder
    return folder / FOLDER if (folder / "piar.toml").exists() else None


def export(
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="A checkpoint folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="A new folder.")],
    way: Annotated[
        Literal["classifier", "score", "cross-encoder"],
        typer.Option(
            "--as",
            help="classifier: a probability for each grade. score: one label, the expected grade, for vLLM and TEI. "
            "cross-encoder: the same, exact, for sentence-transformers.",
        ),
    ] = "classifier",
    shards: Annotated[
        Path | None,
        typer.Option("--shards", metavar="DIR", help="Rows to compare on.", show_default="shards/ of the project"),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", metavar="TEXT", help="Terms of use, for the model card.")] = "",
) -> Answer:
    """Write a student as a folder that serving tools load, with a model card, and what that changes.

    Example: `piar train export students/sft/final -o reranker --as cross-encoder`
    """
    from piar.cli.render.exported import export_view
    from trainers.export import export as write

    own = asked().folder / "shards"
    rows = located(shards) if shards else own if (own / "manifest.json").exists() else None
    done = write(located(student), out, way=way, shards=rows, licence=licence)
    document: documents.ExportedStudent = {
        "path": str(out),
        "way": way,
        "largest_difference": done.largest_difference,
        "compared": done.compared,
        "fitted": done.fitted,
        "cuts": done.cuts,
        "loss": done.loss,
    }
    return Answer(document, export_view(done))


def _config(chosen: str) -> "Config":
    """The configuration with a `KEY=VALUE` chosen on top, and its folders where they lie."""
    from piar.project.config import load

    config = load(asked().folder, (*asked().overrides, *filter(None, [chosen])), optional=True)
    student, distill, encoder = config.student, config.train.distill, config.train.encoder
    train = {
        "distill": distill.model_copy(update={"teacher": _located(distill.teacher)}),
        "encoder": encoder.model_copy(update={"model": _located(encoder.model), "beside": _located(encoder.beside)}),
    }
    return config.model_copy(
        update={
            "student": student.model_copy(update={"model": _located(student.model)}),
            "train": config.train.model_copy(update=train),
        }
    )


def _located(model: str) -> str:
    """A model's folder where it lies, see `located`; other names as they are."""
    return str(located(Path(model))) if model not in ("", "tiny", "auto", "none") else model


def _folders(shards: Path | None, out: Path | None, trainer: str) -> tuple[Path, Path]:
    folder = located(shards) if shards else asked().folder / "shards"
    return folder, out or asked().folder / "students" / trainer


def _answer(done: "Trained") -> Answer:
    from piar.cli.render.common import facts
    from piar.cli.render.probabilities import fit_words

    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        raise typer.Exit(130 if done.stopped else 0)
    if done.stopped:
        messages().print(f"Stopped after step {done.steps}; --resume goes on from {done.checkpoint}.", style="yellow")
    lines = [("checkpoint", str(done.checkpoint)), ("steps", f"{done.steps:,} in {done.precision}")]
    if done.kept not in (None, done.steps):
        lines.append(("kept", f"step {done.kept:,}, the lowest loss on dev"))
    lines += [(f"{reason}", f"{many(n, 'row')} left out") for reason, n in done.left_out.items()]
    for name, value in sorted(done.metrics.items()):
        if name.endswith(("accuracy", "macro_f1", "quadratic_kappa")) and "/" in name:
            low, high = (done.metrics.get(f"{name}_{end}") for end in ("low", "high"))
            lines.append((name, f"{value:.3f}{bracketed(span(low, high, '{:.3f}'))}"))
    if done.calibration is not None:
        lines.append(("calibration", fit_words(done.calibration)))
    if not done.stopped:
        student = shlex.quote(str(done.checkpoint))
        lines += [("next", here(f"piar score --judge student:{student}")), ("", f"piar serve --student {student}")]
    document: documents.Training = {
        "checkpoint": str(done.checkpoint),
        "steps": done.steps,
        "kept": done.kept,
        "metrics": done.metrics,
        "left_out": done.left_out,
        "precision": done.precision,
        "calibration": done.calibration,
    }
    return Answer(document, facts(lines), 130 if done.stopped else 0)
