"""What is documented is what there is."""

import pytest

from piar.cli.docs import options, reference, verbs
from tests import ROOT

VERBS = dict(verbs())


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
    import re

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bpiar ([a-z]+)\b", "\n".join(re.findall(r"```bash.*?```|`piar [^`]+`", text, re.S))))
    assert named <= {path.split()[1] for path in VERBS}
