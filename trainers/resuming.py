"""What a run saves so that it can go on where it was stopped, and going on there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from store.errors import PiarError
from trainers import checkpoint
from trainers.config import StudentSettings, TrainSettings
from trainers.precision import Precision, switch
from trainers.weights import scatter

if TYPE_CHECKING:
    from trainers.loop import Run


def previous(out: Path, resume: bool) -> Path | None:
    """The newest whole checkpoint of a run's folder, which is made; None to begin.

    Raises:
        PiarError: a finished run is there, or one that was not to be resumed.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / "final").exists():
        raise PiarError(f"{out} holds a finished run.", "Choose another folder with -o, or remove that one.")
    if not resume and any(out.glob("checkpoint-*")):
        raise PiarError(
            f"{out} already holds a run.", "Add --resume to go on with it, or choose another folder with -o."
        )
    return checkpoint.latest(out) if resume else None


def state_of(run: "Run", weights: dict[str, Any], moments: Any, generators: list[Any]) -> dict[str, Any]:
    """What a resume needs.

    Args:
        weights, moments: of the whole policy and its optimizer; generators: states of each process's.
    """
    return {
        "step": run.step,
        "tokens": run.tokens,
        "optimizer": moments,
        "sampler": run.sampler.state_dict(),
        "generators": generators,
        "extra": run.extra,
        "settings": _shaping(run.settings, run.student),
        "shards": run.corpus.digest,
        "precision": tuple(run.precision),
        "best": run.best.state if run.best else None,
        "adapters": {k: v for k, v in weights.items() if "lora_" in k},
    }


def restore(run: "Run", folder: Path) -> None:
    """Set a run to where the one was that saved a checkpoint.

    Raises:
        PiarError: it was started with other settings or shards.
    """
    state = checkpoint.load_state(folder)
    # Settings that are newer than the checkpoint had their defaults then.
    began = {**_shaping(type(run.settings)(), StudentSettings()), **state["settings"]}
    now = _shaping(run.settings, run.student)
    changed = [f"{key} = {began[key]}, now {value}" for key, value in now.items() if began[key] != value]
    if changed:
        raise PiarError(
            f"The run in {run.out} was started with other settings ({', '.join(changed)}).",
            "Resume with the settings it started with, or train into another folder.",
        )
    if state["shards"] != run.corpus.digest:
        raise PiarError(
            f"The shards changed since the run in {run.out} started.",
            "Resume with the same shards, or train into another folder.",
        )
    run.sampler.load_state_dict(state["sampler"])
    scatter(run.policy, run.optimizer, state, run.sharded)
    if "precision" in state and switch() in (None, "auto"):  # chosen on another machine, perhaps
        run.precision = Precision(*state["precision"])
    run.step, run.tokens, run.extra = state["step"], state["tokens"], state["extra"]
    if run.best and state.get("best"):
        run.best.state = state["best"]
    if run.rank < len(state["generators"]):  # else more processes go on than stopped: this one is new
        torch.set_rng_state(state["generators"][run.rank][0])
        run.generator.set_state(state["generators"][run.rank][1])


def _shaping(settings: TrainSettings, student: StudentSettings) -> dict[str, Any]:
    """The settings that shape what is learnt: a resume has to have the same."""
    free = {"save_every", "log_every", "keep", "pack_tokens", "tensorboard"}
    free |= set() if settings.patience else {"eval_every"}  # the looks then decide about the run's end
    network = {f"student.{name}": value for name, value in student.model_dump().items()}
    return {**settings.model_dump(exclude=free), **network}
