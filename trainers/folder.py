"""The one door for models made elsewhere: a folder is looked over before it is loaded, and no code of it is run.

Weights are safetensors; pickled ones could run code. `trust_remote_code` is never given.
"""

import json
import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoTokenizer,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)
from transformers.utils.logging import disable_progress_bar

from store.errors import PiarError
from trainers.budget import refuse_too_large

disable_progress_bar()  # type: ignore[no-untyped-call]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_ENCODERS = "Pass the folder of one, such as a BERT, a RoBERTa, or a model of sentence-transformers, as safetensors."
AGAIN = "Download it again, or use another model."
CAUSAL = "Pass a causal (decoder-only) language model, such as one of the Qwen, Llama, Gemma or SmolLM families."
UNPACKED = "Pass the model that the GGUF file was made from: a folder with config.json and safetensors."


def load_lm(model: str, dtype: torch.dtype) -> Any:
    """A causal language model from a Hugging Face folder or hub name.

    Raises:
        PiarError: nothing there that transformers can load as one, by its own code, from safetensors.
    """
    return _load(AutoModelForCausalLM, model, "causal language model", dtype=dtype)


def load_classifier(model: str, *, taught: bool = False, **names: Any) -> Any:
    """A sequence classifier on the encoder of a folder or hub name; errors as for `load_lm`.

    Args:
        taught: the folder has its head too, else it gets a new one.
        names: of the labels, as its configuration keeps them.
    """
    kind = _json(Path(model) / "config.json").get("model_type") if (Path(model) / "config.json").is_file() else None
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise PiarError(
            f"The encoder of {model} ({kind}) has no classifier that reads two texts together.",
            "A sentence encoder's folder (with a modules.json) reads them apart; or pass a BERT or a RoBERTa.",
        )
    names["dtype"] = torch.float32
    return _load(AutoModelForSequenceClassification, model, "classifier", new_head=not taught, **names)


def load_encoder(model: str, *, plain: bool = False) -> Any:
    """The body of a text encoder of a folder, without a head and in float32; of an encoder-decoder its encoder.

    Args:
        plain: nothing says that it is a sentence encoder, so its kind must.

    Raises:
        PiarError: no folder, another kind of model, or errors as for `load_lm`.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise PiarError(f"{model} is no folder of a text encoder: it has no config.json.", _ENCODERS)
    kind = str(_json(folder / "config.json").get("model_type"))
    halves, alone = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if (plain and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES) or (kind in halves and kind not in alone):
        raise PiarError(f"{model} is no text encoder: {kind!r} is another kind of model.", _ENCODERS)
    door = AutoModelForTextEncoding if kind in halves else AutoModel
    return _load(door, model, "text encoder", optional=("pooler.", "lm_head.", "cls."), dtype=torch.float32)


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a Hugging Face folder or hub name.

    Raises:
        PiarError: none there.
    """
    with _opening(model, "tokenizer"):
        if Path(model).is_dir():
            _look_over_vocabulary(Path(model))
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)


def _load(
    kind: Any, model: str, words: str, *, new_head: bool = False, optional: tuple[str, ...] = (), **more: Any
) -> Any:
    with _opening(model, words):
        if Path(model).is_dir():
            config = look_over(Path(model))
            refuse_too_large(_parameters(Path(model)), more.get("dtype", torch.float32), model)
            if kind is AutoModelForCausalLM:
                _look_over_kind(Path(model), config)
        lm, found = kind.from_pretrained(
            model, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **more
        )
        prefix = lm.base_model_prefix
        new = (f"{prefix}.pooler.",) if new_head else ()
        missing = sorted(k for k in found["missing_keys"] if not new_head or k.startswith(f"{prefix}."))
        missing = [k for k in missing if not k.startswith((*optional, *new))]
        if missing:
            raise PiarError(
                f"The weights of {model!r} are those of another model: {len(missing)} are missing, such as "
                f"{missing[0]}.",
                AGAIN,
            )
    return lm


@contextmanager
def _opening(model: str, kind: str) -> Iterator[None]:
    """Say in our words what transformers could not load: it raises errors of many kinds.

    A path that is not there is told at once: the hub, whose names have one slash at most, would be asked in vain. What
    may be a name is asked for once, without transformers' many tries.
    """
    path = Path(model)
    if path.is_file():
        fix = UNPACKED if path.suffix == ".gguf" else "Pass the folder that holds it."
        raise PiarError(f"{model} is a file; a model is a folder.", fix)
    if not path.is_dir() and (model.count("/") > 1 or model.startswith((".", "~"))):
        raise PiarError(f"There is no folder {model}.", "Pass `tiny`, a Hugging Face folder, or a model's name.")
    if not path.is_dir():
        _ask_hub(model)
    try:
        yield
    except (PiarError, MemoryError):
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise PiarError(
            f"Cannot load {model!r} as a {kind}: {said}",
            "Pass `tiny`, a Hugging Face folder, or the name of a model that was downloaded.",
        ) from None


def _ask_hub(model: str) -> None:
    """Make sure that a name was downloaded or can be.

    Raises:
        PiarError: neither.
    """
    try:
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            HfApi().model_info(model, timeout=10)
    except Exception as error:  # of many kinds: no network, no such name, no name at all
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise PiarError(
            f"There is no folder {model!r} here, no such model was downloaded, and the hub does not give it: {said}",
            "Pass `tiny`, a Hugging Face folder, or the name of a model that was downloaded.",
        ) from None


def look_over(folder: Path) -> dict[str, Any]:
    """Make sure that a folder holds a model that can be loaded, before anything of it is; its configuration.

    Raises:
        PiarError: what is missing, damaged or refused.
    """
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise PiarError(
                f"Cannot load {folder}: it holds adapters without the model that they belong to.",
                "Merge them (peft: merge_and_unload, save_pretrained), and pass that folder.",
            )
        gguf = any(folder.glob("*.gguf"))
        what = "is empty" if not any(folder.iterdir()) else "holds GGUF files" if gguf else "has no config.json"
        raise PiarError(
            f"Cannot load {folder}: it {what}.",
            UNPACKED if gguf else "Pass a Hugging Face folder.",
        )
    config = _json(folder / "config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        own = ", and its folder brings code of its own" if "auto_map" in config else ""
        raise PiarError(
            f"Cannot load {folder}: transformers knows no architecture {kind!r}{own}.",
            "Use a model that transformers implements; a folder's own code is never run.",
        )
    for path in _weights(folder):
        try:
            with safe_open(path, "pt") as held:
                held.keys()
        except (SafetensorError, OSError) as error:
            raise PiarError(f"{path} is truncated, or no safetensors file: {error}", AGAIN) from None
    return config


def _parameters(folder: Path) -> int:
    """Numbers in the files of weights, by their headers."""
    total = 0
    for path in _weights(folder):
        with safe_open(path, "pt") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def _look_over_kind(folder: Path, config: dict[str, Any]) -> None:
    """Make sure that a folder's architecture writes one token after another."""
    kind = config["model_type"]
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        raise PiarError(
            f"{folder} holds an encoder ({kind}), which reads a text and writes none.",
            f"Teach it with `piar train encoder --model {shlex.quote(str(folder))}`, or pass a causal language model.",
        )
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise PiarError(f"{folder} holds a sequence-to-sequence model ({kind}).", CAUSAL)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise PiarError(f"{folder} holds a model ({kind}) that transformers cannot load as a language model.", CAUSAL)


def _weights(folder: Path) -> list[Path]:
    """The files of weights, each inside the folder."""
    if (folder / INDEX).is_file():
        named = _json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise PiarError(f"{folder / INDEX} names no files.", AGAIN)
        files = sorted(set(named.values()))
        outside = [name for name in files if Path(name).name != name or not name.endswith(".safetensors")]
        if outside:
            raise PiarError(
                f"{folder / INDEX} names {outside[0]!r}, which is no safetensors file of its folder.", AGAIN
            )
    elif (folder / WEIGHTS).exists() or not any(path for pattern in PICKLED for path in folder.glob(pattern)):
        files = [WEIGHTS]
    else:
        raise PiarError(
            f"{folder} has its weights in pickled files alone, which could run code when they are loaded.",
            "Save the model as safetensors (save_pretrained does).",
        )
    for name in files:
        if not (folder / name).is_file():
            raise PiarError(f"{folder} lacks {name}.", AGAIN)
    return [folder / name for name in files]


def _look_over_vocabulary(folder: Path) -> None:
    if not any((folder / name).is_file() for name in VOCABULARY):
        raise PiarError(f"Cannot load {folder}: it has no tokenizer (none of {', '.join(VOCABULARY[:3])}, …).", AGAIN)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _json(folder / name)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise PiarError(f"{path} is damaged: it is not JSON.", AGAIN) from None
    if not isinstance(found, dict):
        raise PiarError(f"{path} is damaged: it is not an object.", AGAIN)
    return found
