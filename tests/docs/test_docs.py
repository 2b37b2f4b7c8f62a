"""What is documented is what there is."""

import re

import pytest

from piar.cli.docs import options, reference, verbs
from tests import ROOT

VERBS = dict(verbs())
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = {  # what a page names, and how its name becomes a path
    "link": re.compile(r"\]\((?!https?:)([^)#]+)"),
    "file": re.compile(r"`((?:\w+/)+\w+\.(?:py|md))`"),
    "module": re.compile(r"python -m ((?:benchmarks|piar|tests)(?:\.\w+)*)"),
}


def test_the_reference_is_up_to_date() -> None:
    message = "run: python -m piar.cli.docs > docs/cli.md"
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), message


@pytest.mark.parametrize("path", VERBS)
def test_every_verb_teaches(path: str) -> None:
    command = VERBS[path]
    assert command.help, f"{path} has no help"
    if not hasattr(command, "commands"):
        assert f"piar {path.removeprefix('piar ')}" in command.help, f"{path} shows no example of itself"
    for parameter in options(command):
        assert parameter.help, f"{path}: {parameter.name} has no help"


def test_the_readme_names_only_verbs_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bpiar ([a-z]+)\b", "\n".join(re.findall(r"```bash.*?```|`piar [^`]+`", text, re.S))))
    assert named <= {path.split()[1] for path in VERBS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_module_that_a_page_names_exists(page) -> None:
    text = page.read_text(encoding="utf-8")
    named = {(kind, one) for kind, pattern in NAMED.items() for one in pattern.findall(text)}
    assert not sorted(one for kind, one in named if not any(at.exists() for at in _places(page, kind, one)))


def _places(page, kind, one):
    if kind == "module":
        at = ROOT.joinpath(*one.split("."))
        return [at.with_suffix(".py"), at / "__main__.py"]
    return [page.parent / one] if kind == "link" else [ROOT / one, page.parent / one]
