"""The shipped prompts, word for word; with `PIAR_SNAPSHOTS=write` these tests take new words over."""

import os
from pathlib import Path

import pytest

from piar.evolve.settings import RevisionSettings
from piar.instructions.prompts import judge_prefix, render
from store.errors import UsageError
from store.types import Example, Instruction, Rule
from tests.worlds import TASK

SNAPSHOTS = Path(__file__).parent / "snapshots"
INSTRUCTION = Instruction(
    "Say how well the title fits the query.",
    (Rule("R01", "No word is shared.", "0"), Rule("R02", "Units are compared after conversion.")),
    meanings={"2": "It fits."},
    examples=(Example({"query": "red lamp", "title": "lamp, red"}, "2", "R02"),),
)
VALUES = {"task": TASK.model_copy(update={"ask": "How well does it fit?"}), "instruction": INSTRUCTION,
          "settings": RevisionSettings(), "most": 6,
          "neighbours": [{"text": '{"query": "lamp", "title": "red lamp"}', "grade": "2"}]}  # fmt: skip


def shown(name):
    return judge_prefix(TASK, INSTRUCTION, name=name) if name in ("judge", "decide") else render(name, VALUES)


@pytest.mark.parametrize("name", ["judge", "decide", "diagnose", "revise", "exemplify", "neighbours"])
def test_a_prompt_says_what_it_said(name):
    file, text = SNAPSHOTS / f"{name}.txt", shown(name) + "\n"
    if os.environ.get("PIAR_SNAPSHOTS") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_a_project_overrides_a_prompt_and_a_broken_one_is_named(tmp_path):
    (tmp_path / "diagnose.j2").write_text("Why? At most {{ most }}.")
    assert render("diagnose", VALUES, tmp_path) == "Why? At most 6."
    (tmp_path / "diagnose.j2").write_text("{{ nothing_like_this }}")
    with pytest.raises(UsageError, match=r"diagnose\.j2"):
        render("diagnose", VALUES, tmp_path)
