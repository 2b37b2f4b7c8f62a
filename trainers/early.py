"""Early stopping: the best weights of a run by its grades' loss on dev, and when to look for no better ones.

By the grade alone, which the student is for: its negative log-likelihood, a proper score that falls on before the
accuracy moves. From the field: patience counted in looks, the best weights kept. Chosen by us: dev only, whatever else
the shards hold to measure on, and the loss over rows; its interval is by group.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from store.errors import UsageError
from trainers.checkpoint import writing

DEV = "dev"  # the evaluation split that stops and calibrates; others stay closed to choices
LOSS = f"{DEV}/nll"
LOOKS = 10  # a run, where the settings do not say how often


class Best:
    """The weights with the lowest loss so far, beside the run's checkpoints.

    Args:
        out: the run's folder.
        patience: looks without a lower loss after which the run has had enough.

    Attributes:
        state: what a resumed run goes on from: the best `step` and its `loss`, and the looks `since`.
    """

    def __init__(self, out: Path, patience: int) -> None:
        self.file, self.patience = out / "best.pt", patience
        self.state: dict[str, Any] = {"step": 0, "loss": math.inf, "since": 0}

    @property
    def enough(self) -> bool:
        """Whether the last looks found nothing better."""
        return bool(self.state["since"] >= self.patience)

    def look(self, step: int, loss: float, policy: nn.Module, *, writes: bool) -> None:
        """Take note of a loss (NaN is never the best), and keep the weights that learn where it is the lowest."""
        if not loss < self.state["loss"]:
            self.state["since"] += 1
            return
        self.state = {"step": step, "loss": loss, "since": 0}
        if writes:
            with writing(self.file) as aside:
                torch.save(learning(policy), aside)

    def recall(self, step: int, policy: nn.Module) -> bool:
        """Give the policy its best weights back; whether they are others than those of this step."""
        if self.state["step"] == step or self.state["loss"] == math.inf:
            return False
        device = next(policy.parameters()).device
        policy.load_state_dict(torch.load(self.file, map_location=device, weights_only=True), strict=False)
        return True


def learning(policy: nn.Module) -> dict[str, Any]:
    """The weights that training changes, by name."""
    return {name: weight.detach() for name, weight in policy.named_parameters() if weight.requires_grad}


def refuse_without(splits: dict[str, Any], *, sharded: bool) -> None:
    """Make sure that a run can stop early.

    Raises:
        UsageError: no rows of dev, or weights that no process holds whole.
    """
    if sharded:
        raise UsageError("Sharded weights are not measured while they learn.", "Leave patience at 0, or shard off.")
    if not splits.get(DEV):
        raise UsageError(
            f"Stopping early needs rows of {DEV}, and these shards hold none.",
            "Leave patience at 0, or export again from a project whose dev split has labels.",
        )
