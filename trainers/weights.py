"""Weights and optimizer state on their way in and out of a run: adapters, sharding (FSDP2), plain checkpoints."""

import math
from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from store.manifest import read_manifest
from trainers.chat import add_template
from trainers.config import StudentSettings, TrainSettings
from trainers.data import texts
from trainers.folder import load_tokenizer
from trainers.head import decoder
from trainers.loading import load_policy, wrap
from trainers.model import Policy, end_id
from trainers.tiny import phrases, tiny_model, tiny_tokenizer

MESSAGE = 1 << 25  # gradients added over processes at once (numbers)


def make_policy(
    student: StudentSettings,
    shards: Path,
    seed: int,
    device: torch.device,
    *,
    last: Path | None = None,
    tokenizer_from: str = "",
) -> tuple[Policy, Any, bool]:
    """The policy to train, its tokenizer, and whether it was made from nothing.

    Args:
        last: a checkpoint to go on from.
        tokenizer_from: a folder whose tokenizer a tiny student takes.
    """
    tiny = student.model == "tiny"
    if not tiny or (last is not None and not student.lora):
        source = student.model if last is None or student.lora else str(last)
        policy, tokenizer = load_policy(source, device=str(device))
        return policy, tokenizer, tiny
    if tokenizer_from:
        tokenizer = load_tokenizer(tokenizer_from)
        add_template(tokenizer)
    else:
        manifest = read_manifest(shards, verify=False)
        repeated = phrases(manifest.task, [rule.id for rule in manifest.rules])
        tokenizer = tiny_tokenizer(texts(shards), manifest.task.symbols, student.vocab_size, repeated)
    words = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    lm = tiny_model(
        len(tokenizer), hidden=student.hidden, layers=student.layers, eos=end_id(tokenizer), seed=seed, words=words
    )
    return wrap(lm.to(device)), tokenizer, True


def make_optimizer(policy: Policy, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=1e-3, betas=(0.9, 0.98))


def cosine(peak: float, step: int, total: int, *, warmup: float) -> float:
    """The learning rate of a step: rising over a share of all steps, then along a cosine to a tenth of the peak."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (0.55 + 0.45 * math.cos(math.pi * (step - rising) / max(1, total - rising)))


def add_lora(lm: Any, rank: int) -> None:
    """Adapters in all linear layers below the head that read text; the rest is frozen.

    Left out: experts, what chooses among them, and the last matrix of a Mamba layer, which its fused kernels read past
    an adapter.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    bare = torch.nn.ModuleList([lm])  # by the kind of a model peft would put others in the place of what is named
    body = decoder(lm)
    below = next(name for name, module in bare.named_modules() if module is body)
    mamba = {id(part.out_proj) for part in body.modules() if hasattr(part, "A_log") and hasattr(part, "D")}
    adapted = [
        f"{below}.{name}"
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and id(module) not in mamba and _multiplies(module)
    ]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=adapted, fan_in_fan_out=transposed(lm))
    inject_adapter_in_model(config, bare)


@torch.no_grad()
def _multiplies(layer: Any) -> bool:
    """Whether a layer that is called linear gives its matrix times what it reads, and nothing else."""
    if type(layer).forward is torch.nn.Linear.forward or not isinstance(layer, torch.nn.Linear):
        return True
    given = layer.weight.new_ones(1, layer.in_features)
    try:
        found = layer(given)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(found, Tensor) and torch.allclose(
        found, torch.nn.functional.linear(given, layer.weight, layer.bias)
    )


def transposed(lm: Any) -> bool:
    """Whether a model's layers keep their matrices as `[in, out]`, as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in lm.modules())


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Add the gradients of all processes, many tensors in one message: one each took a third of a tiny model's step."""
    gradients: list[Tensor] = []
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients.append(parameter.grad)
    starts = accumulate((gradient.numel() for gradient in gradients), initial=0)
    for _, message in groupby(zip(starts, gradients, strict=False), lambda placed: placed[0] // MESSAGE):
        bucket = [gradient for _, gradient in message]
        together = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(together)
        for gradient, part in zip(bucket, torch.split(together, [t.numel() for t in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


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


def plain_weights(weights: dict[str, Any], lora: int, *, transposed: bool = False) -> dict[str, Any]:
    """Weights by the stock model's names, adapters (whose scale is 2) merged in.

    Args:
        transposed: see the function of this name.
    """
    plain = {k.removeprefix("lm."): v for k, v in weights.items()}
    if not lora:
        return plain
    for name in [k for k in plain if k.endswith(".lora_A.default.weight")]:
        stem = name.removesuffix(".lora_A.default.weight")
        low = plain[f"{stem}.lora_B.default.weight"] @ plain[name]
        plain[f"{stem}.base_layer.weight"] = plain[f"{stem}.base_layer.weight"] + 2.0 * (low.T if transposed else low)
    return {k.replace(".base_layer", ""): v for k, v in plain.items() if "lora_" not in k}
