"""Starting is light: neither `import piar` nor any `--help` loads a heavy package."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "openai",
    "aiohttp",
    "duckdb",
    "polars",
    "pyarrow",
    "sklearn",
    "label_studio_sdk",
    "vllm",
}


def loaded(code: str) -> set[str]:
    """Top-level modules in `sys.modules` after running some code in a fresh interpreter."""
    dump = "import json, sys; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{dump}"], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["init", "--help"], ["--json"]])
def test_help_is_light(arguments: list[str]) -> None:
    modules = loaded(f"from piar.cli import main; main({arguments!r})")
    assert "typer" in modules
    assert not modules & HEAVY


def test_importing_the_package_is_light() -> None:
    modules = loaded("import piar; piar.PiarError; piar.Project")
    assert "piar" in modules
    assert not modules & (HEAVY | {"rich", "typer", "jinja2"})


def test_opening_a_project_loads_no_model_library(tmp_path) -> None:
    code = f"import piar; p = piar.Project.init({str(tmp_path / 'p')!r}); p.config"
    assert not loaded(code) & {"torch", "transformers", "openai", "label_studio_sdk", "vllm"}


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_of_a_student_sleep_while_they_wait_unless_told_otherwise(given):
    """OpenMP reads the process's own environment, which Python's dict writes through to."""
    code = "import trainers.model, ctypes; g = ctypes.CDLL(None).getenv; g.restype = ctypes.c_char_p; "
    code += "print(g(b'OMP_WAIT_POLICY').decode())"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | (
        {"OMP_WAIT_POLICY": given} if given else {}
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == (given or "PASSIVE")
