"""The round trip on a real Label Studio server, with two users and a real browser."""

import random
import shutil
import time

import pytest
import requests
from label_studio import ADMIN, PASSWORD, label_studio, second_user
from review_world import ANNOTATORS, HOSTILE, answer, review_store

from piar.review.batch import compose
from piar.review.push_pull import pull, push
from piar.review.server import Server
from piar.review.settings import ReviewSettings
from piar.review.status import status
from store.errors import PiarError
from store.types import Instruction, Rule

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]
INSTRUCTION = Instruction(
    "Judge.", (Rule("R01", "When $the title <names> it & more.", "3"), Rule("R02", "Parts.", "1"))
)
SETTINGS = ReviewSettings(annotators=ANNOTATORS, hours=1.2, overlap=0.5, random=0.5, checks=0.05)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with label_studio(tmp_path_factory.mktemp("label-studio")) as server:
        tokens = {ADMIN: server.token, ANNOTATORS[1]: second_user(server, ANNOTATORS[1])}
        yield server, tokens


@pytest.fixture(scope="module")
def tour(running, tmp_path_factory):
    """A batch pushed to two people."""
    server, tokens = running
    store, truth = review_store(tmp_path_factory.mktemp("project"), rows=300, queued=120, texts=HOSTILE)
    batch = compose(store, "w47", SETTINGS, "r")
    with Server(server.url, server.token) as desk:
        report = push(store, desk, batch, INSTRUCTION)
        yield store, truth, batch, desk, report, tokens


def test_push_is_idempotent_and_texts_arrive_byte_for_byte(tour):
    store, _, batch, desk, report, _ = tour
    assert report.pushed == len(batch.assignments)
    again = push(store, desk, batch, INSTRUCTION)
    assert (again.pushed, again.known) == (0, len(batch.assignments))
    texts = dict(store.frame("select sample_id, title from samples").rows())
    for person, project in report.projects.items():
        tasks = desk.tasks(project)
        assert sorted(t["data"]["sample_key"] for t in tasks) == sorted(a.sample_id for a in batch.of(person))
        assert all(texts[t["data"]["sample_key"]] == t["data"]["f_title"] for t in tasks)


def test_ten_rows_by_hotkey_in_a_browser_come_back(tour, running, tmp_path):
    store, _, batch, desk, report, _ = tour
    project = report.projects[ANNOTATORS[0]]
    label_by_hotkey(running[0].url, project, rows=10, screenshot=tmp_path / "page.png")
    pulled = pull(store, desk, batch, "browser")
    assert pulled.annotators == {ANNOTATORS[0]: 10}
    kept = store.frame("select grade, blind, seconds from label where batch = 'w47' and source = 'human'")
    assert set(kept["grade"]) == {"2"}
    assert kept["blind"].all()
    assert (kept["seconds"] > 0).all()


def label_by_hotkey(url, project, rows, screenshot):
    """Press 2 and submit, as an annotator would; leaves a screenshot of the page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the browser test needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", ADMIN)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        page.goto(f"{url}/projects/{project}/data?labeling=1")
        for _ in range(rows):
            page.wait_for_selector("text=How well does this product", timeout=60_000)
            page.wait_for_timeout(700)
            page.keyboard.press("2")
            page.wait_for_timeout(300)
            page.screenshot(path=str(screenshot))
            with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST", timeout=30_000):
                page.keyboard.press("Control+Enter")
            page.wait_for_timeout(700)
        browser.close()


def test_two_people_answer_through_the_api_and_their_reliability_is_found(tour, running):
    store, truth, batch, desk, report, tokens = tour
    accuracy = {ANNOTATORS[0]: 0.95, ANNOTATORS[1]: 0.7}
    for person, project in report.projects.items():
        rng = random.Random(person)
        head = {"Authorization": f"Token {tokens[person]}"}
        for task in desk.tasks(project):
            grade = answer(truth[task["data"]["sample_key"]], accuracy[person], rng)
            said = [{"from_name": "grade", "to_name": "f_query", "type": "choices", "value": {"choices": [grade]}}]
            body = {"result": said, "lead_time": 5 + rng.random()}
            place = f"{running[0].url}/api/tasks/{task['id']}/annotations/"
            if not task["annotations"]:
                assert requests.post(place, json=body, headers=head, timeout=30).ok
    assert pull(store, desk, batch, "api").pulled > 0
    assert pull(store, desk, batch, "again").pulled == 0
    ann, bob = status(store, batch).annotators
    assert (ann.answered, bob.answered) == (ann.assigned, bob.assigned)
    assert (ann.foreign, bob.foreign) == (0, 0)
    assert ann.reliability > bob.reliability


def test_somebody_in_anothers_project_is_flagged(tour, running):
    store, _, batch, desk, report, tokens = tour
    task = desk.tasks(report.projects[ANNOTATORS[0]])[0]
    said = [{"from_name": "grade", "to_name": "f_query", "type": "choices", "value": {"choices": ["0"]}}]
    head = {"Authorization": f"Token {tokens[ANNOTATORS[1]]}"}
    place = f"{running[0].url}/api/tasks/{task['id']}/annotations/"
    assert requests.post(place, json={"result": said, "lead_time": 1}, headers=head, timeout=30).ok
    pull(store, desk, batch, "foreign")
    bob = status(store, batch).annotators[1]
    assert bob.foreign == 1


def test_a_wrong_token_and_a_wrong_place_are_explained(running):
    with pytest.raises(PiarError, match="does not know this token"):
        Server(running[0].url, "0" * 40)
    with pytest.raises(PiarError, match="does not answer"):
        Server("http://127.0.0.1:9", "0" * 40)


def test_ten_thousand_tasks_go_and_come(running, tmp_path):
    """Bounded in count; the figures are printed for LOG.md, never asserted."""
    store, _ = review_store(tmp_path, rows=11_200, queued=10_000)
    settings = ReviewSettings(annotators=(ADMIN,), hours=10_000 * 20 / 3600, overlap=0, random=0, checks=0)
    batch = compose(store, "big", settings, "r")
    start = time.monotonic()
    with Server(running[0].url, running[0].token) as desk:
        report = push(store, desk, batch, INSTRUCTION)
        pushed = time.monotonic() - start
        pull(store, desk, batch, "r")
    pulled = time.monotonic() - start - pushed
    print(f"\n{report.pushed} tasks pushed in {pushed:.0f} s, pulled in {pulled:.0f} s")
    assert report.pushed == len(batch.assignments) > 9_000
