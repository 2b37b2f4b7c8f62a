"""What a model's folder holds, before anything of it is loaded: what is missing, damaged, packed or of another kind."""

import json
import logging
import math
import shlex
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from store.errors import PiarError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
VOCABULARY = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
AGAIN = "Download it again, or use another model."
CAUSAL = "Pass a causal (decoder-only) language model, such as one of the Qwen, Llama, Gemma or SmolLM families."
UNPACKED = "Pass the model that the GGUF file was made from: a folder with config.json and safetensors."
QUANTIZED = "quantization_config"
_BY_LAYER = ("hidden_size_per_layer_input", "num_kv_shared_layers")
_WHOLE = ("fp8", "mxfp4")  # packings that transformers undoes while it loads
_POINTER = b"version https://git-lfs.github.com/"
log = logging.getLogger(__name__)


def look_over(folder: Path) -> dict[str, Any]:
    """Make sure that a folder holds a model that can be loaded; its configuration.

    Raises:
        PiarError: what is missing, damaged or refused.
    """
    if not (folder / "config.json").is_file():
        raise _no_model(folder)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    own = "auto_map" in config
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        more = ", and its folder brings code of its own" if own else ""
        raise PiarError(
            f"Cannot load {folder}: transformers knows no architecture {kind!r}{more}.",
            "Use a model that transformers implements; a folder's own code is never run.",
        )
    if own:
        log.warning("%s brings code of its own, which is never run: transformers' own %s is used", folder, kind)
    packing = config.get(QUANTIZED) or config.get("quantization")  # the second is MLX's
    if isinstance(packing, dict) and packing.get("quant_method") not in _WHOLE:
        how = packing.get("quant_method") or f"{packing.get('bits')} bits"
        raise PiarError(
            f"{folder} is quantized ({how}): piar neither computes nor teaches such weights.",
            "Pass the model that it was made from, or let vLLM run this one: `vllm serve`, or a teacher `vllm:PATH`.",
        )
    for path in weights(folder):
        try:
            with safe_open(path, "pt") as held:
                held.keys()
        except (SafetensorError, OSError) as error:
            _refuse_pointer(path)
            raise PiarError(f"{path} is truncated, or no safetensors file: {error}", AGAIN) from None
    return config


def _no_model(folder: Path) -> PiarError:
    """What a folder without `config.json` holds instead."""
    if (folder / "adapter_config.json").is_file():
        return PiarError(
            f"Cannot load {folder}: it holds adapters without the model that they belong to.",
            "Merge them (peft: merge_and_unload, save_pretrained), and pass that folder.",
        )
    inside = [str(path.parent) for depth in ("*", "snapshots/*") for path in folder.glob(f"{depth}/config.json")]
    gguf = any(folder.glob("*.gguf"))
    what = "is empty" if not any(folder.iterdir()) else "holds GGUF files" if gguf else "has no config.json"
    fix = (
        UNPACKED
        if gguf
        else f"Pass a folder inside of it: {', '.join(sorted(inside)[:3])}."
        if inside
        else "Pass a Hugging Face folder."
    )
    return PiarError(f"Cannot load {folder}: it {what}.", fix)


def sees(kind: str) -> bool:
    """Whether a kind of model reads pictures and text, and transformers has no door for its text alone."""
    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def writes(folder: Path) -> bool:
    """Whether a folder's configuration is that of a language model which writes one token after another."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    kind, made = str(config.get("model_type")), config.get("architectures")
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return False
    known = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or sees(kind)
    return known and (not made or any(word in str(made) for word in ("CausalLM", "LMHead", "ConditionalGeneration")))


def look_over_kind(folder: Path, config: dict[str, Any]) -> None:
    """Make sure that a folder's architecture writes one token after another.

    Raises:
        PiarError: it does not.
    """
    kind = config["model_type"]
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        raise PiarError(
            f"{folder} holds an encoder ({kind}), which reads a text and writes none.",
            f"Teach it with `piar train encoder --model {shlex.quote(str(folder))}`, or pass a causal language model.",
        )
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise PiarError(f"{folder} holds a sequence-to-sequence model ({kind}).", CAUSAL)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not sees(kind):
        raise PiarError(f"{folder} holds a model ({kind}) that transformers cannot load as a language model.", CAUSAL)


def lacking(model: str, missing: list[str]) -> PiarError:
    """Why weights are missing.

    Args:
        missing: their names, one at least.
    """
    path = Path(model) / "config.json"
    config = read_json(path) if path.is_file() else {}
    made = [str(one) for one in config.get("architectures") or []]
    if missing == ["lm_head.weight"] and any("Causal" in one for one in made):
        return PiarError(
            f"{model} lacks lm_head.weight, and its config.json does not say that the embeddings stand for it.",
            f'Write "tie_word_embeddings": true into {path} if it was made so; else download it again.',
        )
    if missing == ["lm_head.weight"] and made:
        return PiarError(f"{model} was saved as {made[0]}, which writes no text: it has no lm_head.", CAUSAL)
    many = f"{len(missing)} are missing, such as {missing[0]}"
    return PiarError(f"The weights of {model!r} are those of another model: {many}.", AGAIN)


def misshapen(model: str, name: str, held: list[int], told: list[int]) -> PiarError:
    """Why weights have another shape than their configuration says.

    Args:
        held: the shape in the file; told: by `config.json`.
    """
    path, rows = Path(model) / "config.json", held[0] if held else 0
    words = "embed" in name or name.startswith("lm_head")
    fix = f'Write "vocab_size": {rows} into {path}.' if words and held[1:] == told[1:] else AGAIN
    return PiarError(f"The weights of {model!r} are those of another model: {name} is {held}, not {told}.", fix)


def as_used_here(config: Any) -> Any:
    """The configuration without what it says of somebody's use of the model: kernels that are not installed, tuples,
    attentions given back; and without a padding that has no row."""
    inside = (getattr(config, name, None) for name in config.sub_configs)
    for part in (config, *(one for one in inside if one is not None)):
        part._attn_implementation = None
        part.return_dict, part.output_attentions, part.output_hidden_states = True, False, False
        pad, rows = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
            part.pad_token_id = None
    return config


def lower_layers(config: Any, depth: float) -> Any:
    """The configuration with the lower share of its layers, each as it was; all where weights are shaped by their
    number.

    Raises:
        Exception: of many kinds, where such layers do not stand alone.
    """
    text = config.get_text_config()
    layers = text.num_hidden_layers
    if depth == 1.0 or any(getattr(text, name, None) for name in _BY_LAYER):
        return config
    count = max(1, round(depth * layers))
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == layers:  # one entry a layer
            setattr(text, name, value[:count])
        if isinstance(value, dict) and all(isinstance(layer, int) for layer in value):
            setattr(text, name, {layer: said for layer, said in value.items() if layer < count})
    text.num_hidden_layers = count
    config.tie_word_embeddings = text.tie_word_embeddings = True  # a head above such layers says nothing: none is kept
    type(config).from_dict(config.to_dict())  # as the student's folder will be loaded
    return config


def unpacked(config: Any) -> Any:
    """The configuration of quantized weights, changed so that they are loaded as plain numbers."""
    packing = config.quantization_config
    config.quantization_config = {**(packing if isinstance(packing, dict) else packing.to_dict()), "dequantize": True}
    return config


def parameters(folder: Path) -> int:
    """Numbers in the files of weights, by their headers."""
    total = 0
    for path in weights(folder):
        with safe_open(path, "pt") as held:
            total += sum(math.prod(held.get_slice(name).get_shape()) for name in held.keys())  # noqa: SIM118
    return total


def weights(folder: Path) -> list[Path]:
    """The files of weights, each inside the folder.

    Raises:
        PiarError: they are pickled, named badly, or not there.
    """
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise PiarError(f"{folder / INDEX} names no files.", AGAIN)
        files = sorted(set(named.values()))
        outside = [name for name in files if Path(name).name != name or not name.endswith(".safetensors")]
        if outside:
            raise PiarError(
                f"{folder / INDEX} names {outside[0]!r}, which is no safetensors file of its folder.", AGAIN
            )
    else:
        files = [WEIGHTS]
    for name in files:
        if not (folder / name).is_file():
            raise _no_weights(folder, name)
    return [folder / name for name in files]


def _no_weights(folder: Path, name: str) -> PiarError:
    pickled = sorted(path for pattern in PICKLED for path in folder.glob(pattern))
    if name == WEIGHTS and pickled:
        return PiarError(
            f"{folder} has its weights in pickled files alone ({pickled[0].name}), which could run code when they are "
            "loaded.",
            as_safetensors(folder),
        )
    if name == WEIGHTS and any(folder.glob("*.gguf")):
        return PiarError(f"Cannot load {folder}: it holds its weights as a GGUF file.", UNPACKED)
    others = [path.name for path in sorted(folder.glob("*.safetensors"))]
    beside = f"; it holds {', '.join(others[:3])}" if others else ""
    return PiarError(f"{folder} lacks {name}{beside}.", AGAIN)


def as_safetensors(folder: Path) -> str:
    """How the pickled weights of a folder become safetensors: read as numbers alone, which runs no code."""
    code = (
        "import glob, torch; from safetensors.torch import save_file; "
        "save_file({k: v.clone().contiguous() for f in glob.glob('pytorch_model*.bin') "
        "for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}, "
        f"'{WEIGHTS}', {{'format': 'pt'}})"
    )
    return f'Save them as numbers alone: cd {shlex.quote(str(folder))} && python -c "{code}"'


def look_over_vocabulary(folder: Path) -> None:
    """Make sure that a folder holds a tokenizer.

    Raises:
        PiarError: none, or a damaged one.
    """
    if not any((folder / name).is_file() for name in VOCABULARY):
        raise PiarError(f"Cannot load {folder}: it has no tokenizer (none of {', '.join(VOCABULARY[:3])}, …).", AGAIN)
    for name in VOCABULARY:
        if (folder / name).is_file():
            _refuse_pointer(folder / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_json(folder / name)


def _refuse_pointer(path: Path) -> None:
    """Say so where a file is only a pointer to what was to be downloaded."""
    with path.open("rb") as file:
        pointer = file.read(len(_POINTER)) == _POINTER
    if pointer:
        raise PiarError(
            f"{path} is a Git LFS pointer: the file itself was not downloaded.",
            f"Run `git lfs install && git -C {shlex.quote(str(path.parent))} lfs pull`, or download the model again.",
        )


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file.

    Raises:
        PiarError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise PiarError(f"{path} is damaged: it is not JSON.", AGAIN) from None
    if not isinstance(found, dict):
        raise PiarError(f"{path} is damaged: it is not an object.", AGAIN)
    return found
