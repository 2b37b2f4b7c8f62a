"""The provider's batch API, through the real `openai` client against the simulated endpoint."""

import json
import subprocess
import sys

import pytest

from piar.llm.cost import Budget
from piar.offline.endpoint import Faults, running
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from store.errors import PiarError
from tests.documents import check
from tests.small_project import small_project


@pytest.fixture
def simulator():
    with running(RulebookClient()) as found:
        yield found


def away(folder, simulator, *more):
    small_project(folder)
    endpoint = ["teacher.model=openai:rulebook", f"teacher.base_url={simulator.url}/v1"]
    return Project.open(folder, [*endpoint, *more])


def test_batches_are_made_watched_and_taken_in_once(tmp_path, simulator):
    project, folder = away(tmp_path / "p", simulator), tmp_path / "batch"
    seen = [set(project.submit_batches(folder, "true").values()) for _ in range(4)]
    assert seen == [{"validating"}, {"in_progress"}, {"downloaded"}, {"downloaded"}]
    report, rejected = project.import_responses(folder, "true")
    assert (report.asked, report.labelled, rejected) == (5, 5, [])
    assert report.tokens_in > 0
    assert simulator.ledger()["calls"] == 5
    direct, _ = project.label("true")
    assert (direct.asked, direct.cached) == (0, 5)


def test_the_verb_waits_and_says_what_came_back(tmp_path, simulator):
    away(tmp_path / "p", simulator)
    command = [
        sys.executable, "-m", "piar", "label", "-C", str(tmp_path / "p"), "--where", "true", "--json",
        "--set", "teacher.model=openai:rulebook", "--set", f"teacher.base_url={simulator.url}/v1",
        "--batch", str(tmp_path / "batch"),
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    check("label", json.loads(first.stdout))
    assert list(json.loads(first.stdout)["batches"].values()) == ["validating"]
    last = subprocess.run([*command, "--wait", "0.01"], capture_output=True, text=True, check=True)
    check("label", json.loads(last.stdout))
    assert json.loads(last.stdout)["labelled"] == 5


def test_no_more_is_uploaded_than_the_cap_allows(tmp_path, simulator):
    project = away(tmp_path / "p", simulator)
    for _ in range(3):
        project.submit_batches(tmp_path / "batch", "true", budget=Budget(max_calls=2))
    assert project.import_responses(tmp_path / "batch", "true")[0].labelled == 2


def test_lines_that_the_provider_failed_stay_open(tmp_path):
    with running(RulebookClient(), faults=Faults(errors=0.5, seed=4)) as simulator:
        project = away(tmp_path / "p", simulator)
        for _ in range(3):
            project.submit_batches(tmp_path / "batch", "true")
        report, _ = project.import_responses(tmp_path / "batch", "true")
        assert 0 < report.failed["server"] < 5
        left = project.export_requests(tmp_path / "left", "true")
        assert left.lines == report.failed["server"]


def test_an_endpoint_without_batches_is_told(tmp_path, simulator):
    project = away(tmp_path / "p", simulator, f"teacher.base_url={simulator.url}/v2")
    with pytest.raises(PiarError, match="batch API said"):
        project.submit_batches(tmp_path / "batch", "true")
