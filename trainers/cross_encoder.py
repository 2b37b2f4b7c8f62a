"""A folder that sentence-transformers 6 loads as a `CrossEncoder`: its built-in modules, no code of ours.

`modules.json` names them: a transformer, for a language model the pooling of its last token, then dense layers. Read
back here without that package, to compare.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file, save_file

from store.stats import Floats
from trainers.score_head import Layer

_HOME = "sentence_transformers"
_TRANSFORMER = f"{_HOME}.base.modules.transformer.Transformer"
_POOLING = f"{_HOME}.sentence_transformer.modules.pooling.Pooling"
_DENSE = f"{_HOME}.base.modules.dense.Dense"
_ACTIVATIONS = {
    "Identity": "torch.nn.modules.linear.Identity",
    "Tanh": "torch.nn.modules.activation.Tanh",
    "Softmax": "torch.nn.modules.activation.Softmax",  # over the last dimension: torch says that it chose it
    "Sigmoid": "torch.nn.modules.activation.Sigmoid",
}
Task = Literal["feature-extraction", "sequence-classification"]
_OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "sequence-classification": ("logits", "scores"),
}


def write_modules(
    folder: Path, task: Task, layers: Sequence[Layer] = (), *, chat: bool, most: int, last: str = "Identity"
) -> None:
    """Write what sentence-transformers reads beside a transformer's own files.

    Args:
        task: `feature-extraction` for a language model, whose last token is read; `sequence-classification` for a
            model with a head.
        layers: what its output goes through.
        chat: whether pairs are written by the chat template, else by the tokenizer as a pair of texts.
        most: tokens of the longest pair.
        last: the activation of what comes out.
    """
    output, name = _OUTPUTS[task]
    how = {"method": "forward", "method_output_name": output}
    ways = {"text": how} | ({"message": {**how, "format": "flat"}} if chat else {})  # messages go before texts
    _write(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": task,
            "modality_config": ways,
            "module_output_name": name,
            "max_seq_length": most,
        },
    )
    modules = [("", _TRANSFORMER)]
    if task == "feature-extraction":
        modules.append(("1_Pooling", _POOLING))
        size = layers[0].weight.shape[1]
        _write(folder / "1_Pooling" / "config.json", {"embedding_dimension": size, "pooling_mode": "lasttoken"})
        name = "sentence_embedding"
    for layer in layers:
        at = f"{len(modules)}_Dense"
        modules.append((at, _DENSE))
        _write_dense(folder / at, layer, name)
        name = "scores"
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    _write(folder / "modules.json", listed)
    _write(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": _ACTIVATIONS[last]},
    )


def read_layers(folder: Path) -> list[Layer]:
    """The dense layers of a folder, in their order."""
    names = {full: short for short, full in _ACTIVATIONS.items()}
    found = []
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        if module["type"] == _DENSE:
            at = folder / module["path"]
            config = json.loads((at / "config.json").read_text(encoding="utf-8"))
            weights = {key: value.astype(np.float64) for key, value in load_file(at / "model.safetensors").items()}
            activation: Any = names[config["activation_function"]]
            found.append(Layer(weights["linear.weight"], weights["linear.bias"], activation))
    return found


def _write_dense(folder: Path, layer: Layer, name: str) -> None:
    outputs, inputs = layer.weight.shape
    _write(
        folder / "config.json",
        {
            "in_features": inputs,
            "out_features": outputs,
            "bias": True,
            "activation_function": _ACTIVATIONS[layer.activation],
            "module_input_name": name,
            "module_output_name": "scores",
        },
    )
    held = {"linear.weight": layer.weight, "linear.bias": layer.bias}
    save_file({key: _single(value) for key, value in held.items()}, folder / "model.safetensors")


def _single(value: Floats) -> Any:
    return np.ascontiguousarray(value, dtype=np.float32)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
