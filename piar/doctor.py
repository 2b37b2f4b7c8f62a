"""What works here and what does not: environment, packages, project, endpoints, keys (by name only)."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("piar", "synth", "mining", "curriculum", "trainers", "store")
CORE = ("duckdb", "polars", "pyarrow", "numpy", "scikit-learn", "jinja2", "pydantic", "rich", "typer", "tomli-w")
EXTRAS = {
    "teacher": ("openai", "for `[teacher] model = \"openai:NAME\"`"),
    "review": ("label_studio_sdk", "for `piar review push` and `pull`"),
    "train": ("torch", "for `piar train`"),
    "vllm": ("vllm", "for `[teacher] model = \"vllm:PATH\"`; needs an environment without the others"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `detail` says what was found, or how to mend it."""

    name: str
    ok: bool
    detail: str


def environment() -> list[Check]:
    """Checks that need no project."""
    return [_python(), _one_folder(), *_core(), *_extras()]


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")


def _one_folder() -> Check:
    """All six packages come from one installation: `store` or `trainers` of somebody else would break us."""
    homes = {name: _home(name) for name in PACKAGES}
    strangers = [f"{name} from {home or 'nowhere'}" for name, home in homes.items() if home != homes["piar"]]
    if strangers:
        return Check(
            "packages", False, f"{'; '.join(strangers)}, but piar from {homes['piar']}: install piar in an environment of its own"
        )
    return Check("packages", True, f"all six in {homes['piar']}")


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
        there = find_spec(module) is not None
        yield Check(f"extra {extra}", True, "installed" if there else f"not installed: pip install 'piar[{extra}]' {purpose}")


def folder(path: Path) -> list[Check]:
    """Checks of one project folder: its files, its store, its journal, the disk it lies on."""
    return [_disk(path), *_files(path)]


def _disk(path: Path) -> Check:
    free = shutil.disk_usage(path).free / 1e9
    writable = os.access(path, os.W_OK)
    return Check("disk", writable and free > 0.5, f"{free:.1f} GB free" + ("" if writable else ", but not writable"))
