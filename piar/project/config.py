"""`piar.toml`: every package's settings, composed."""

import tomllib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curriculum.settings import CurriculumSettings
from mining.settings import MiningSettings
from piar.evolve.run import EvolveSettings
from piar.evolve.settings import ReviserSettings
from piar.judging.settings import LabelSettings
from piar.llm.privacy import PrivacySettings
from piar.llm.secrets import secret_places
from piar.llm.settings import ModelSettings
from piar.measure.embeddings import BaselineSettings
from piar.project.folder import CONFIG
from piar.review.settings import ReviewSettings
from piar.serve.settings import ServeSettings
from store.errors import UsageError
from store.files import read_text
from store.settings import Settings, with_overrides
from store.splits import SplitSettings
from store.task import explain
from synth.settings import SynthSettings
from trainers.config import AllTrainSettings, StudentSettings

# Settings, or one value of a setting, that are no more -> what stands in their place. A `piar.toml` that has one opens,
# with a line that says so.
REMOVED = {
    "label.permute": "every vote is shown the rules in their order; that other orders help was never measured",
    **{
        f"train.grpo.balance={name}": "the anchor counts `mu` throughout"
        for name in ("cosine", "chord", "chord_phi", "hpt", "srft")
    },
    "train.grpo.pass_rate": "it belonged to `balance = hpt`, which went too",
    "train.grpo.credit=to_go": "`local` stands in its place",
    "train.grpo.credit=masked": "`local` stands in its place",
    "train.grpo.grade_gradient": "the grade's gradient is always summed over the grades",
    "train.grpo.skip_above": "it belonged to `grade_gradient = sampled`, which went too",
    "train.grpo.grade_scale": "the grade's advantages are as they are, as `none` had it",
    "evolve.parents": "the best so far is revised next; drawing from a front was worth no point on test",
    "evolve.merge": "merging two candidates was worth no point on test",
    "mining.random_share": "7 % of the queue are drawn at random",
    "mining.rows_per_range": "a million samples are judged at a time",
    "synth.similar": "texts one word apart are near from 80 % of common words on",
    "evolve.block": "a race decides after every 100 rows of dev, or a third of it",
    "evolve.promotion.guard_alpha": "a loss beyond the margin counts as real at a familywise level of 10 %",
    "evolve.promotion.warn_uses": "three tests on the same holdout are warned of",
    "evolve.promotion.max_uses": "eight tests on the same holdout are the last",
    "curriculum.sigma": "the bell of `gaussian` is half a bucket wide",
    "curriculum.anchor_share": "a fifth of every stage is drawn from anchors",
    "synth.tries": "twelve drafts are made for each sample that is wanted",
    "synth.per_parent": "three kept drafts of a cell may share a parent",
    "train.grpo.trace_scale": "a trace's advantages are divided by its group's deviation, as `std` had it",
}


class Config(Settings):
    """The sections of `piar.toml`; each is owned by the package that reads it."""

    teacher: ModelSettings = ModelSettings()
    reviser: ReviserSettings = ReviserSettings()
    evolve: EvolveSettings = EvolveSettings()
    split: SplitSettings = SplitSettings()
    label: LabelSettings = LabelSettings()
    privacy: PrivacySettings = PrivacySettings()
    baselines: BaselineSettings = BaselineSettings()
    mining: MiningSettings = MiningSettings()
    synth: SynthSettings = SynthSettings()
    review: ReviewSettings = ReviewSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    student: StudentSettings = StudentSettings()
    train: AllTrainSettings = AllTrainSettings()
    serve: ServeSettings = ServeSettings()


def load(folder: Path, overrides: Sequence[str] = (), *, optional: bool = False) -> Config:
    """Read a project's configuration; precedence: defaults, file, overrides.

    Args:
        folder: the project folder.
        overrides: `section.key=value`, as `--set` takes them.
        optional: without a file, take the defaults (training needs shards, not a project).

    Raises:
        UsageError: no such project, broken TOML, an unknown key or an invalid value, with its place.
    """
    path = folder / CONFIG
    try:
        data = tomllib.loads(read_text(path))
    except FileNotFoundError:
        if optional:
            return _config({}, overrides)
        raise UsageError(
            f"{folder.absolute()} is not a piar project: it has no {CONFIG}.",
            f"Make one with `piar init DIR`, or name it with -C DIR.{_beside(folder)}",
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{CONFIG} is not valid TOML: {str(error)[:300]}", "Mend the line that it names.") from None
    return _config(data, overrides)


def _beside(folder: Path) -> str:
    """The projects that lie in a folder, for who stands one too high."""
    try:
        found = sorted(path.name for path in folder.iterdir() if (path / CONFIG).is_file())
    except OSError:
        return ""
    return f" Here lie {', '.join(found[:5])}." if found else ""


def _without_removed(values: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that are no more; each is told once."""
    for setting, instead in REMOVED.items():
        path, _, value = setting.partition("=")
        *sections, key = path.split(".")
        table: Any = values
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if isinstance(table, dict) and key in table and value in ("", table[key]):
            del table[key]
            warnings.warn(f"`{setting}` in {CONFIG} does nothing any more: {instead}. Delete the line.", stacklevel=4)
    return values


def _config(data: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    values = _without_removed(with_overrides(data, overrides))
    if (place := next(secret_places(values), None)) is not None:
        raise UsageError(
            f"{CONFIG}: {place[:80]} looks like a key, and settings are kept with every run.",
            "Put the key in an environment variable and its name in api_key_env or token_env.",
        )
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{CONFIG}: {explain(error)}", f"Mend that key in {CONFIG} or in --set.") from None
