"""Weights and optimizer state on their way in and out of a run: adapters, sharding (FSDP2), plain checkpoints."""

from typing import Any

import torch
from torch import Tensor

from trainers.config import TrainSettings
from trainers.model import Policy


def make_optimizer(policy: Policy, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=1e-3, betas=(0.9, 0.98))


def add_lora(lm: Any, rank: int) -> None:
    """Adapters in all linear layers; the rest is frozen."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"), lm
    )


def gather(policy: Policy, optimizer: torch.optim.Optimizer, sharded: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole weights and optimizer state; sharded ones come together in rank 0."""
    if not sharded:
        return policy.state_dict(), optimizer.state_dict()
    from torch.distributed.checkpoint import state_dict as dcp  # slow to import

    return dcp.get_state_dict(policy, optimizer, options=dcp.StateDictOptions(full_state_dict=True, cpu_offload=True))


def scatter(policy: Policy, optimizer: torch.optim.Optimizer, state: dict[str, Any], sharded: bool) -> None:
    """Give every process its part of a checkpoint's adapters and optimizer state."""
    if not sharded:
        policy.load_state_dict(state["adapters"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        return
    from torch.distributed.checkpoint import state_dict as dcp

    options = dcp.StateDictOptions(full_state_dict=True, strict=False)
    if state["adapters"]:
        dcp.set_model_state_dict(policy, state["adapters"], options=options)
    dcp.set_optimizer_state_dict(policy, optimizer, state["optimizer"], options=options)


def plain_weights(weights: dict[str, Any], lora: int) -> dict[str, Any]:
    """Weights by the stock model's names, adapters (whose scale is 2) merged in."""
    plain = {k.removeprefix("lm."): v for k, v in weights.items()}
    if not lora:
        return plain
    for name in [k for k in plain if k.endswith(".lora_A.default.weight")]:
        stem = name.removesuffix(".lora_A.default.weight")
        low = plain[f"{stem}.lora_B.default.weight"] @ plain[name]
        plain[f"{stem}.base_layer.weight"] = plain[f"{stem}.base_layer.weight"] + 2.0 * low
    return {k.replace(".base_layer", ""): v for k, v in plain.items() if "lora_" not in k}


def whole(value: Tensor) -> float:
    """A number that may be sharded."""
    return float(value.full_tensor() if hasattr(value, "full_tensor") else value)
