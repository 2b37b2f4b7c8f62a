"""The one door for models made elsewhere: a folder is looked over before it is loaded, and no code of it is run.

Weights are safetensors; pickled ones could run code. `trust_remote_code` is never given.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from torch.nn.functional import pad as pad_to
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity

from store.errors import PiarError
from trainers import adapters
from trainers.budget import refuse_too_large
from trainers.look_over import (
    AGAIN,
    QUANTIZED,
    UNPACKED,
    VOCABULARY,
    as_used_here,
    lacking,
    look_over,
    look_over_kind,
    look_over_vocabulary,
    lower_layers,
    misshapen,
    parameters,
    read_json,
    sees,
    unpacked,
)

disable_progress_bar()  # type: ignore[no-untyped-call]

_ENCODERS = "Pass the folder of one, such as a BERT, a RoBERTa, or a model of sentence-transformers, as safetensors."
_NAMED = "Pass `tiny`, a Hugging Face folder, or the name of a model that was downloaded."


def load_lm(model: str, dtype: torch.dtype, *, depth: float = 1.0) -> Any:
    """A causal language model from a Hugging Face folder or hub name; adapters come merged into their base.

    Args:
        depth: share of the layers that is loaded, the lower ones; all of them where adapters or the architecture hang
            on the number of layers.

    Raises:
        PiarError: nothing there that transformers can load as one, by its own code, from safetensors.
    """
    folder = Path(model)
    if adapters.held(folder):
        named = _base(folder)
        with _opening(model, "causal language model"):
            adapters.look_over(folder)
            return adapters.merged(folder, load_lm(named, dtype))
    with _quiet(depth < 1.0):  # of weights that were not asked for
        lm = _load(AutoModelForCausalLM, model, "causal language model", dtype=dtype, depth=depth)
    into, out = lm.get_input_embeddings(), lm.get_output_embeddings()
    if out is not None and out.weight is not into.weight:
        lm.config.get_text_config().tie_word_embeddings = lm.config.tie_word_embeddings = False  # for who loads it next
    return lm


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """transformers' warnings are left out, for as long as it lasts."""
    level = get_verbosity()
    if quiet:
        set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(level)


def load_classifier(model: str, *, taught: bool = False, **names: Any) -> Any:
    """A sequence classifier on the encoder of a folder or hub name; errors as for `load_lm`.

    Args:
        taught: the folder has its head too, else it gets a new one.
        names: of the labels, as its configuration keeps them.
    """
    folder = Path(model)
    kind = read_json(folder / "config.json").get("model_type") if (folder / "config.json").is_file() else None
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise PiarError(
            f"{model} holds a sequence-to-sequence model ({kind}), whose encoder reads no two texts together here.",
            "A sentence encoder's folder (with a modules.json) reads them apart; or pass a BERT or a RoBERTa.",
        )
    names["dtype"] = torch.float32
    return _tried(_load(AutoModelForSequenceClassification, model, "classifier", new_head=not taught, **names))


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
    kind = str(read_json(folder / "config.json").get("model_type"))
    halves, alone = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if (plain and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES) or (kind in halves and kind not in alone):
        raise PiarError(f"{model} is no text encoder: {kind!r} is another kind of model.", _ENCODERS)
    door = AutoModelForTextEncoding if kind in halves else AutoModel
    return _tried(_load(door, model, "text encoder", optional=("pooler.", "lm_head.", "cls."), dtype=torch.float32))


@torch.inference_mode()
def _tried(encoder: Any) -> Any:
    """An encoder that runs on texts alone, told whether what pads a text changes what it says (`reads_padding`).

    Raises:
        PiarError: it does not run, or says what is no number.
    """
    pad = getattr(encoder.config.get_text_config(), "pad_token_id", None) or 0
    text = torch.tensor([[pad + 5, pad + 6, pad + 7, pad + 8]])
    there = torch.tensor([[1] * 4 + [0] * 3])
    encoder.eval()
    try:
        alone = encoder(input_ids=text, attention_mask=there[:, :4])[0]
        beside = encoder(input_ids=pad_to(text, (0, 3), value=pad), attention_mask=there)[0][:, : alone.shape[1]]
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of many kinds: boxes, pictures or characters are missing
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise PiarError(f"{encoder.config.model_type} does not run on a text alone ({said}).", _ENCODERS) from None
    if not alone.isfinite().all():
        raise PiarError(
            f"What {encoder.config.model_type} says of a text is no number: its weights are damaged.", AGAIN
        )
    encoder.reads_padding = not torch.allclose(alone, beside, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))
    return encoder


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a Hugging Face folder or hub name; of adapters that bring none, their base's.

    Raises:
        PiarError: none there.
    """
    folder = Path(model)
    if adapters.held(folder) and not any((folder / name).is_file() for name in VOCABULARY):
        return load_tokenizer(_base(folder))
    with _opening(model, "tokenizer"):
        if folder.is_dir():
            look_over_vocabulary(folder)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    older = folder / "chat_template.json"  # of models that see pictures
    if tokenizer.chat_template is None and older.is_file():
        tokenizer.chat_template = read_json(older).get("chat_template")
    return tokenizer


def match_tokens(model: str, lm: Any, tokenizer: Any, *written: int) -> None:
    """Make sure that a model has a row for every token that its tokenizer writes of plain text.

    Added tokens without one become control tokens, so that a sample which spells one is read as plain text.

    Args:
        written: tokens that are sure to be met.

    Raises:
        PiarError: it has not.
    """
    try:
        rows = lm.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        raise PiarError(
            f"{lm.config.model_type} reads other things than the tokens of a vocabulary.", _ENCODERS
        ) from None
    beyond = [token.content for i, token in tokenizer.added_tokens_decoder.items() if i >= rows]
    tokenizer.add_tokens(beyond, special_tokens=True)
    if (most := max([tokenizer.vocab_size - 1, *written])) >= rows:
        raise PiarError(
            f"The tokenizer of {model!r} writes token {most:,} ({tokenizer.convert_ids_to_tokens(most)!r}); its model "
            f"knows {rows:,}.",
            "They belong to different models: download it again.",
        )


def _base(folder: Path) -> str:
    """The model that adapters belong to: a folder, or the name of a model that was downloaded or can be.

    Raises:
        PiarError: none.
    """
    named, here = adapters.base(folder)
    if here is not None:
        return str(here)
    try:
        _ask_hub(named)
    except PiarError:
        raise adapters.without_base(folder, named) from None
    return named


def _load(
    kind: Any,
    model: str,
    words: str,
    *,
    dtype: torch.dtype,
    depth: float = 1.0,
    new_head: bool = False,
    optional: tuple[str, ...] = (),
    **names: Any,
) -> Any:
    given: dict[str, Any] = names
    with _opening(model, words):
        if Path(model).is_dir():
            config = look_over(Path(model))
            refuse_too_large(parameters(Path(model)), dtype, model)
            if kind is AutoModelForCausalLM:
                look_over_kind(Path(model), config)
                kind = AutoModelForImageTextToText if sees(config["model_type"]) else kind
        if Path(model).is_dir() or depth < 1.0:
            usual = AutoConfig.from_pretrained(model, trust_remote_code=False, **names)
            plain = unpacked(usual) if hasattr(usual, QUANTIZED) else usual
            given = {"config": as_used_here(lower_layers(plain, depth))}
        lm, found = kind.from_pretrained(
            model,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below; a reranker's head of one label is no fault
            dtype=dtype,
            **given,
        )
        prefix = lm.base_model_prefix
        new = (f"{prefix}.pooler.",) if new_head else ()

        def kept(name: str) -> bool:
            return (not new_head or name.startswith(f"{prefix}.")) and not name.startswith((*optional, *new))

        for name, *shapes in sorted(found["mismatched_keys"]):
            if kept(name):
                raise misshapen(model, name, *map(list, shapes))
        missing = sorted(filter(kept, found["missing_keys"]))
        if missing:
            raise lacking(model, missing)
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
        fix = "Install it, or use another model." if "pip install" in said else _NAMED
        raise PiarError(f"Cannot load {model!r} as a {kind}: {said}", fix) from None


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
            _NAMED,
        ) from None
