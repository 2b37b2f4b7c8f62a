"""From the command line: evolve, look at the proposal, accept or reject it."""

import json

import pytest

from piar.cli import main
from piar.project.facade import Project
from store.errors import PiarError
from tests.documents import check


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A shop whose first round found a proposal, and what `evolve --json` printed."""
    folder = tmp_path_factory.mktemp("improve") / "shop"
    project = Project.init(folder, example="shop", pairs=800)
    report = project.evolve(rounds=1)
    assert report.proposal
    return folder, report


@pytest.fixture
def shop(evolved, tmp_path):
    import shutil

    return shutil.copytree(evolved[0], tmp_path / "shop")


def run(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check(" ".join(arguments), document)
    return document


def test_an_accepted_proposal_is_the_instruction_and_says_by_whom(evolved, shop, capsys) -> None:
    report = evolved[1]
    shown = run(capsys, "show", "proposal", "-C", str(shop))
    assert run(capsys, "show", "candidate", "-C", str(shop))["difference"] == shown
    assert (shown["before"], shown["after"]) == (report.seed_instruction, report.proposal)
    assert shown["measured"]["holdout"]["gain"]["mean"] == pytest.approx(report.holdout["gain"]["mean"])
    decision = run(capsys, "accept", "--by", "Ada", "-C", str(shop))
    assert (decision["instruction"], decision["by"], decision["outcome"]) == (report.proposal, "Ada", "accepted")
    assert not (shop / "instruction.proposed.md").exists()
    project = Project.open(shop)
    assert project.instruction().id == report.proposal
    diff = run(capsys, "show", "diff", "-C", str(shop))
    assert (diff["before"], diff["after"]) == (report.seed_instruction, report.proposal)
    known = run(capsys, "show", "instruction", "-C", str(shop))
    assert known["instruction"]["id"] == report.proposal
    assert {v["outcome"] for v in known["versions"] if v["id"] == report.proposal} == {"accepted"}
    assert main(["accept", "-C", str(shop)]) == 1


def test_a_rejected_proposal_leaves_the_instruction_alone(evolved, shop, capsys) -> None:
    before = (shop / "instruction.md").read_text()
    assert run(capsys, "reject", "--by", "Ada", "-C", str(shop))["outcome"] == "rejected"
    assert (shop / "instruction.md").read_text() == before
    assert not (shop / "instruction.proposed.md").exists()


def test_a_proposal_that_an_edit_broke_can_be_sent_away(evolved, shop, capsys) -> None:
    with (shop / "instruction.proposed.md").open("a") as file:
        file.write("<<<<<<< HEAD\n")
    assert main(["accept", "-C", str(shop)]) == 2
    capsys.readouterr()
    assert run(capsys, "reject", "-C", str(shop))["instruction"] == evolved[1].proposal
    assert not (shop / "instruction.proposed.md").exists()


def test_an_edit_made_since_the_test_is_not_undone(shop) -> None:
    file = shop / "instruction.md"
    file.write_text(file.read_text() + "- **R90** → 0: the title is empty\n")
    with pytest.raises(PiarError, match="undo that edit"):
        Project.open(shop).accept(by="Ada")
    assert "R90" in file.read_text()


def test_a_proposal_edited_by_hand_is_a_new_version_of_it(evolved, shop) -> None:
    file = shop / "instruction.proposed.md"
    file.write_text(file.read_text() + "- **R91** → 0: the title is empty\n")
    project = Project.open(shop)
    decision = project.accept(by="Ada")
    accepted = project.store.instruction(decision.instruction)
    assert (accepted.author, accepted.parent) == ("Ada", evolved[1].proposal)
    assert project.instruction() == accepted


def test_the_same_evolve_again_asks_nothing(shop, capsys) -> None:
    found = run(capsys, "evolve", "--rounds", "1", "-C", str(shop))
    asked = Project.open(shop).sql("select count(*) as n from completions").item()
    again = run(capsys, "evolve", "--rounds", "1", "-C", str(shop))
    assert again == found
    assert Project.open(shop).sql("select count(*) as n from completions").item() == asked


def test_auto_accept_for_scripts(evolved, shop) -> None:
    project = Project.open(shop)
    assert project.evolve(rounds=1, accept="auto").proposal == evolved[1].proposal
    assert project.instruction().id == evolved[1].proposal


def test_views_for_people(shop, capsys) -> None:
    for arguments in (
        ["show", "proposal"],
        ["show", "instruction"],
        ["show", "run", "evolve"],
        ["evolve", "--rounds", "1"],
    ):
        assert main([*arguments, "-C", str(shop)]) == 0
    out = capsys.readouterr().out
    assert "+ R" in out
    assert "holdout" in out
    assert "in force" in out
    assert "passed" in out
