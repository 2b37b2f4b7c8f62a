"""What works here and what does not: environment, packages, project, endpoints, keys (by name only)."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from piar.project.endpoints import Check, models
from piar.project.folder import CONFIG, INSTRUCTION, STORE, TASK
from store.errors import PiarError
from store.figures import many
from store.files import read_text

if TYPE_CHECKING:
    from store.db import Store

PACKAGES = ("piar", "synth", "mining", "curriculum", "trainers", "store")
CORE = ("duckdb", "polars", "pyarrow", "numpy", "scikit-learn", "jinja2", "pydantic", "rich", "typer", "tomli-w")
EXTRAS = {
    "teacher": ("openai", 'for `[teacher] model = "openai:NAME"`'),
    "review": ("label_studio_sdk", "for `piar review push` and `pull`"),
    "train": ("torch", "for `piar train`"),
    "ray": ("ray", "for `piar.llm.openai.ray_data` on a cluster"),
    "vllm": ("vllm", 'for `[teacher] model = "vllm:PATH"`; needs an environment without the others'),
}


def diagnose(folder: Path, overrides: Sequence[str] = (), *, ask: bool = False) -> list[Check]:
    """Everything that can be checked here; project checks only where `folder` is a project.

    Args:
        ask: send each endpoint one tiny question.
    """
    checks = [_python(), _one_folder(), *_core(), *_extras()]
    if (folder / CONFIG).exists():
        checks += [*_project(folder, overrides, ask), _disk(folder)]
    return checks


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")


def _one_folder() -> Check:
    """All six packages come from one installation: somebody else's `store` or `trainers` would break us."""
    homes = {name: _home(name) for name in PACKAGES}
    home = homes["piar"]
    strangers = [f"{name} comes from {found or 'nowhere'}" for name, found in homes.items() if found != home]
    if strangers:
        fix = "install piar in an environment of its own (uv tool install, pipx)"
        return Check("packages", False, f"{'; '.join(strangers)}, piar from {home}: {fix}")
    return Check("packages", True, f"all six in {home}")


def _home(name: str) -> Path | None:
    spec = find_spec(name)
    return Path(spec.origin).resolve().parent.parent if spec and spec.origin else None


def _core() -> Iterator[Check]:
    for name in CORE:
        try:
            yield Check(name, True, version(name))
        except PackageNotFoundError:
            yield Check(name, False, f"missing: pip install {name}")


def _extras() -> Iterator[Check]:
    for extra, (module, purpose) in EXTRAS.items():
        missing = f"not installed: pip install 'piar[{extra}]' {purpose}"
        yield Check(f"extra {extra}", True, "installed" if find_spec(module) else missing)


def _disk(folder: Path) -> Check:
    free, writable = shutil.disk_usage(folder).free / 1e9, os.access(folder, os.W_OK)
    return Check("disk", writable and free > 0.5, f"{free:.1f} GB free" + ("" if writable else ", but not writable"))


def _project(folder: Path, overrides: Sequence[str], ask: bool) -> Iterator[Check]:
    """Configuration, task, instruction, store and models, until the first that the next ones cannot do without."""
    from piar.instructions.markdown import parse
    from piar.project.config import load
    from store.db import Store
    from store.task import load_task

    try:
        config = load(folder, overrides)
        yield Check("piar.toml", True, "every key is known")
        task = load_task(folder / TASK)
        yield Check("task.toml", True, f"{task.name}: {', '.join(task.fields)} → {', '.join(task.symbols)}")
        instruction = parse(read_text(folder / INSTRUCTION), task)
        yield Check("instruction.md", True, f"{many(len(instruction.rules), 'rule')}, {instruction.id}")
        yield Check("store", True, _contents(Store.open(folder / STORE, task)))
        yield from models({"teacher": config.teacher, "reviser": config.reviser}, task, config.privacy, ask=ask)
    except PiarError as error:
        yield Check("project", False, f"{error.message} {error.fix}".strip())
    except FileNotFoundError as error:
        yield Check("project", False, f"{Path(str(error)).name} is missing: `piar import FILE` makes it")


def _contents(store: "Store") -> str:
    tables = ("samples", "labels", "verdicts", "completions", "instructions")
    counts = store.frame(f"select {', '.join(f'(select count(*) from {name}) as {name}' for name in tables)}")
    return ", ".join(f"{counts[name].item():,} {name}" for name in tables)
