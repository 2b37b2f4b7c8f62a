"""What a folder of sentence-transformers says of how its encoder makes a vector of a text; it is read without torch.

`modules.json` names the steps: a Transformer, a Pooling, then any number of Dense, LayerNorm, Dropout and Normalize.
A folder without one is a plain encoder, pooled by the mean. Prompts are those of sentence-transformers' `encode_query`,
`encode_document` and, for other texts, `encode`; where it would leave out a `passage` prompt since it holds an empty
`document` one itself, the former counts (our choice). Left out: other kinds of steps, and code that a folder brings.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from store.errors import PiarError, UsageError
from store.files import read_text
from store.task import Task

Role = Literal["query", "document"]  # of a text in a pair
POOLINGS = {  # how tokens become one vector -> what an older folder calls it, in the order of a concatenation
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
LATER = ("Dense", "LayerNorm", "Dropout", "Normalize")  # steps behind the pooling
_LIMITS = "sentence_*_config.json"  # of the transformer: how much it reads, and whether in lower case
_SETTINGS = "config_sentence_transformers.json"
_OTHER = "Use a sentence encoder whose steps are Transformer, Pooling, Dense, LayerNorm and Normalize."
_PROMPTS: dict[Role | None, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True)
class Step:
    """A step behind the pooling: its kind (one of `LATER`), its folder and its `config.json`."""

    kind: str
    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class SentenceFolder:
    """How a text becomes a vector.

    Attributes:
        body: where the encoder itself lies.
        poolings: keys of `POOLINGS`, their vectors one behind the other.
        skips_prompt: a prompt's own tokens are not pooled.
        prompts: put in front of a text, by its role in a pair; None for a text that has none.
        lower: texts are read in lower case.
        tokens: of a text that it is given at most, where the folder says so.
    """

    body: Path
    poolings: tuple[str, ...] = ("mean",)
    skips_prompt: bool = False
    steps: tuple[Step, ...] = ()
    prompts: dict[Role | None, str] = field(default_factory=dict)
    lower: bool = False
    tokens: int | None = None

    def prompt(self, role: Role | None) -> str:
        """What is put in front of a text."""
        return self.prompts.get(role, "")


def roles(task: Task) -> tuple[Role | None, Role | None]:
    """What the two texts of `Task.pair` are: a query and a document where the task groups by the first."""
    return ("query", "document") if len(task.fields) > 1 and task.group_by in task.fields else (None, None)


def here(model: str) -> Path:
    """The folder of a model: the one named, or that of a hub's name which was downloaded before."""
    folder = Path(model).expanduser()
    if folder.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        return folder
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return Path(config).parent if isinstance(config, str) else folder


def read(folder: Path) -> SentenceFolder:
    """What a folder says.

    Raises:
        PiarError: steps that are not known here.
    """
    if not (folder / "modules.json").is_file():
        return SentenceFolder(folder)
    steps = [_step(folder, one) for one in _list(folder / "modules.json")]
    kinds = [step.kind for step in steps]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= set(LATER):
        raise PiarError(f"{folder} makes its vectors by {', '.join(kinds) or 'nothing'}: not known here.", _OTHER)
    body, pooling, *later = steps
    limits = next((found for path in sorted(body.folder.glob(_LIMITS)) if (found := _settings(path))), {})
    said = _settings(folder / _SETTINGS)
    other = said.get("model_type", "SentenceTransformer")
    if other != "SentenceTransformer" or limits.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise PiarError(f"{folder} holds no sentence encoder but a {other}, which gives no vector of a text.", _OTHER)
    if "message" in (limits.get("modality_config") or {}):
        raise PiarError(f"{folder} reads its texts through a chat template: not known here.", _OTHER)
    longest = limits.get("max_seq_length")
    return SentenceFolder(
        body=body.folder,
        poolings=_poolings(folder, pooling.config),
        skips_prompt=pooling.config.get("include_prompt") is False,
        steps=tuple(step for step in later if step.kind != "Dropout"),
        prompts=_prompts(said),
        lower=bool(limits.get("do_lower_case")),
        tokens=longest if isinstance(longest, int) and longest > 0 else None,
    )


def _step(folder: Path, said: Any) -> Step:
    one = said if isinstance(said, dict) else {}
    kind = str(one.get("type", ""))
    if not kind.startswith("sentence_transformers."):
        raise PiarError(
            f"{folder} makes its vectors by code of its own ({kind or 'no name'}), which is never run.", _OTHER
        )
    inside = folder / Path(str(one.get("path", ""))).name  # a folder of the folder, or itself
    return Step(kind.rpartition(".")[2], inside, _settings(inside / "config.json"))


def _poolings(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if named is None:
        named = [name for name, flag in POOLINGS.items() if config.get(f"pooling_mode_{flag}")] or ["mean"]
    chosen = tuple(named) if isinstance(named, list) else (named,)
    unknown = [str(name) for name in chosen if name not in POOLINGS]
    if unknown or not chosen:
        raise PiarError(
            f"{folder} pools by {', '.join(unknown) or 'nothing'}; known here are {', '.join(POOLINGS)}.",
            "Use another sentence encoder.",
        )
    return chosen


def _prompts(said: dict[str, Any]) -> dict[Role | None, str]:
    named = said.get("prompts")
    prompts = {k: v for k, v in named.items() if isinstance(v, str)} if isinstance(named, dict) else {}
    usual = prompts.get(str(said.get("default_prompt_name")), "")
    found: dict[Role | None, str] = {
        role: next((prompts[name] for name in names if prompts.get(name)), "") for role, names in _PROMPTS.items()
    }
    return {None: usual, **(found if any(found.values()) else dict.fromkeys(found, usual))}


def _settings(path: Path) -> dict[str, Any]:
    found = _json(path)
    return found if isinstance(found, dict) else {}


def _list(path: Path) -> list[Any]:
    found = _json(path)
    return found if isinstance(found, list) else []


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (FileNotFoundError, ValueError, RecursionError, UsageError):
        return None
