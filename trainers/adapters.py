"""Adapters of somebody else's (a folder of PEFT), merged into their base model when they are loaded.

PEFT itself puts them on and merges them: LoRA with all its kinds (rsLoRA, DoRA), and whatever else it can merge.
"""

import shlex
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from store.errors import PiarError
from trainers.look_over import AGAIN, read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_OTHER = "Pass the model that they belong to, or adapters that can be merged, such as LoRA."


def held(folder: Path) -> bool:
    """Whether a folder holds adapters rather than a model."""
    return (folder / CONFIG).is_file() and not (folder / "model.safetensors").is_file()


def base(folder: Path) -> tuple[str, Path | None]:
    """The model that adapters were made on, as they name it, and its folder where one lies here.

    That is the one named, seen from here or from the adapters, or one of that name beside them.
    """
    named = str(read_json(folder / CONFIG).get("base_model_name_or_path") or "")
    last = Path(named).name
    places = [Path(named).expanduser(), folder / named, folder.resolve().parent / last] if last else []
    here = next((path for path in places if (path / "config.json").is_file() or held(path)), None)
    return named, here


def without_base(folder: Path, named: str) -> PiarError:
    """That the base model does not lie here, and how to mend it."""
    config = folder / CONFIG
    if not named:
        return PiarError(
            f"{config} does not name the model that its adapters belong to.",
            'Write "base_model_name_or_path": "PATH" into it.',
        )
    beside = folder.resolve().parent / Path(named).name
    get = f"hf download {shlex.quote(named)} --local-dir {shlex.quote(str(beside))}"
    how = f"put it there: `{get}`" if named.count("/") == 1 and named[0] not in "./~" else f"put it at {beside}"
    return PiarError(
        f"{folder} holds adapters of {named!r}, which does not lie here and was not downloaded.",
        f"Either {how}; or write its path as base_model_name_or_path into {config}.",
    )


def look_over(folder: Path) -> None:
    """Make sure that adapters can be merged into a language model, before its weights are loaded.

    Raises:
        PiarError: adapters of another kind, pickled or damaged.
    """
    from peft import PeftConfig

    task = read_json(folder / CONFIG).get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise PiarError(f"{folder} holds adapters of a model that writes no text ({task}).", _OTHER)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except KeyError as error:
        raise PiarError(f"{folder} holds adapters of a kind that peft does not know: {error}.", _OTHER) from None
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise PiarError(
            f"{folder} holds adapters of the kind {config.peft_type.value}, which cannot be merged.", _OTHER
        )
    if not (folder / WEIGHTS).is_file():
        pickled = any(folder.glob("*.bin"))
        what = "has its adapters in a pickled file alone, which could run code" if pickled else f"lacks {WEIGHTS}"
        raise PiarError(f"{folder} {what}.", "Save them with a newer peft, which writes safetensors; or train again.")
    _shapes(folder)


def merged(folder: Path, lm: Any) -> Any:
    """The base model with its adapters in its weights.

    Raises:
        PiarError: the adapters are another model's.
    """
    from peft import PeftModel, get_peft_model_state_dict

    shapes = _shapes(folder)
    into, out = lm.get_input_embeddings(), lm.get_output_embeddings()
    whole = tuple(f"base_model.model.{name}." for name, module in lm.named_modules() if module in (into, out))
    saved = {f"{begin}{end}" for begin in whole for end in ("weight", "base_layer.weight")} & set(shapes)
    rows = [shapes[name][0] for name in saved]
    if rows and rows[0] != into.weight.shape[0]:  # tokens were added before it was taught
        lm.resize_token_embeddings(rows[0], mean_resizing=False)
    other = PiarError(f"{folder} holds adapters of another model than {lm.config.name_or_path}.", AGAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is told below
        try:
            found = PeftModel.from_pretrained(lm, str(folder))
        except RuntimeError:  # other shapes
            raise other from None
        known = set(get_peft_model_state_dict(found, save_embedding_layers=False))
    if known - set(shapes) or any(not name.startswith(whole) for name in set(shapes) - known):
        raise other
    return found.merge_and_unload()


def _shapes(folder: Path) -> dict[str, list[int]]:
    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PiarError(f"{path} is truncated, or no safetensors file: {error}", AGAIN) from None
