"""The round trip on a real Label Studio server, with two users and a real browser."""

import multiprocessing
import random
import resource
import signal
import time

import pytest
import requests

from piar.project.facade import Project
from piar.review.batch import Assignment, Batch, compose
from piar.review.history import fetch
from piar.review.page import choice
from piar.review.push_pull import pull, push
from piar.review.server import Server
from piar.review.settings import ReviewSettings
from piar.review.status import status
from store.errors import PiarError
from store.prepare import ImportMapping
from store.types import Instruction, Rule
from tests import SOAK
from tests.label_studio import ADMIN, PASSWORD, browsing
from tests.review.kills import push_until_killed
from tests.review_world import ANNOTATORS, HOSTILE, TASK, answer, everything, review_store, taught

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]
INSTRUCTION = Instruction(
    "Judge.", (Rule("R01", "When $the title <names> it & more.", "3"), Rule("R02", "Parts.", "1"))
)
SETTINGS = ReviewSettings(annotators=ANNOTATORS, hours=1.2, overlap=0.5, random=0.5, checks=0.05)


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
        tasks = everything(desk, project)
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
    with browsing(url) as page:
        page.goto(f"{url}/projects/{project}/data?labeling=1")
        page.wait_for_selector("text=Labeling Instructions", timeout=60_000)
        page.keyboard.press("Escape")
        for _ in range(rows):
            page.wait_for_selector("text=How well does this product", timeout=60_000)
            page.wait_for_timeout(700)
            page.keyboard.press("2")
            page.wait_for_timeout(300)
            page.screenshot(path=str(screenshot))
            with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST", timeout=30_000):
                page.keyboard.press("Control+Enter")
            page.wait_for_timeout(700)


def test_hostile_text_is_text_on_the_pages_of_two_people_and_on_the_adjudication_page(running, tmp_path):
    """Every hostile text is on the page as it is in the store, and nothing in it runs; leaves pictures of the pages."""
    server, _ = running
    store, _ = review_store(tmp_path, rows=len(HOSTILE), queued=0, texts=HOSTILE)
    taught(store)
    samples = store.samples()
    with Server(server.url, server.token) as desk:
        projects = {}
        for name, role in (("blind", "queue"), ("informed", "adjudicate")):
            batch = Batch(name, tuple(Assignment(s.id, ADMIN, role, position=i) for i, s in enumerate(samples)), True)
            projects[name] = push(store, desk, batch, INSTRUCTION).projects[ADMIN]
        tasks = desk.listing(projects["blind"])
    texts, alerts = {s.id: s.fields["title"] for s in samples}, []
    with browsing(server.url) as page:
        page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        for task in tasks:
            page.goto(f"{server.url}/projects/{projects['blind']}/data?task={task.id}")
            page.wait_for_selector(".piar-field", timeout=60_000)
            page.wait_for_timeout(500)
            shown = page.locator(".piar-field").nth(1).text_content()
            wanted = texts[task.key]
            assert "".join(wanted.split()) in "".join(shown.split()), wanted[:60]
        assert page.locator(".piar-fields script, .piar-fields b").count() == 0
        page.screenshot(path=str(tmp_path / "blind.png"))
        page.goto(f"{server.url}/projects/{projects['informed']}/data?labeling=1")
        page.wait_for_selector("text=probability 0.70", timeout=60_000)
        page.wait_for_timeout(700)
        page.screenshot(path=str(tmp_path / "informed.png"))
        assert page.locator("text=the existing label is wrong").count() > 0
        assert page.locator(".ant-radio-checked, input[type=radio]:checked").count() == 0  # nothing is filled in before
        page.goto(f"{server.url}/projects/{projects['informed']}/data")
        page.wait_for_timeout(3000)
        page.screenshot(path=str(tmp_path / "manager.png"))
    assert alerts == []


def test_two_people_answer_through_the_api_and_their_reliability_is_found(tour, running):
    store, truth, batch, desk, report, tokens = tour
    accuracy = {ANNOTATORS[0]: 0.95, ANNOTATORS[1]: 0.7}
    for person, project in report.projects.items():
        rng = random.Random(person)
        head = {"Authorization": f"Token {tokens[person]}"}
        for task in everything(desk, project):
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


def test_a_project_of_two_people_comes_back_as_history(tour, tmp_path):
    """What two people left on the server becomes a project of its own: people, seconds and task, and no gold."""
    _, _, _, desk, report, _ = tour
    number = report.projects[ANNOTATORS[0]]
    fetched = fetch(desk, number, tmp_path / "old.json")
    assert fetched.tasks == len(desk.listing(number))
    project = Project.init(
        tmp_path / "shoes",
        from_=fetched.export,
        label_config=fetched.label_config,
        mapping=ImportMapping(group="f_query"),
    )
    assert project.task.fields == ("query", "title")
    assert project.task.symbols == ("0", "1", "2", "3")
    kept = project.sql("select source, annotator, count(*) as n, min(seconds) as least from label group by all")
    assert set(kept["source"]) == {"human"}
    assert set(kept["annotator"]) <= set(ANNOTATORS)
    assert kept["n"].sum() == fetched.annotations
    assert kept["least"].min() > 0


def test_somebody_in_anothers_project_is_flagged(tour, running):
    store, _, batch, desk, report, tokens = tour
    task = everything(desk, report.projects[ANNOTATORS[0]])[0]
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
    with pytest.raises(PiarError, match="no Label Studio API"):
        Server(f"{running[0].url}/some/where", running[0].token)
    with pytest.raises(PiarError, match="must look like https://host"):
        Server("no address", "0" * 40)


@pytest.mark.filterwarnings("ignore:The `parse_obj` method:DeprecationWarning")  # the SDK's own
def test_a_personal_token_is_no_wrong_token(running):
    with requests.Session() as session:
        session.get(f"{running[0].url}/user/login/", timeout=30)
        form = {"email": ADMIN, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        session.post(f"{running[0].url}/user/login/", data=form, headers={"Referer": running[0].url}, timeout=30)
        head = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": running[0].url}
        made = session.post(f"{running[0].url}/api/token/", headers=head, timeout=30)
        if made.status_code == 409:  # the data folder had one before
            made = session.get(f"{running[0].url}/api/token/", timeout=30)
        found = made.json()[0] if isinstance(made.json(), list) else made.json()
    with Server(running[0].url, found["token"]) as desk:
        assert desk.email == ADMIN


def test_a_push_killed_twenty_times_loses_and_doubles_nothing(running, tmp_path):
    """Each time one process is killed with -9 at a random moment; now and then one would have come to its end."""
    server, _ = running
    store, _ = review_store(tmp_path, rows=700, queued=500)
    settings = SETTINGS.model_copy(update={"hours": 500 * 20 / 3600})
    batch = compose(store, "killed", settings, "r")  # a name of its own: a project is found again by its batch
    rng = random.Random(7)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["tests.review.kills"])
    counts = []
    with Server(server.url, server.token) as desk:
        for _ in range(20):
            began, tell = forks.Pipe(duplex=False)
            child = forks.Process(target=push_until_killed, args=(tmp_path, server.url, server.token, tell))
            child.start()
            began.recv()
            time.sleep(rng.uniform(0, 1.2))
            child.kill()
            child.join()
            counts.append(child.exitcode)
        report = push(store, desk, batch, INSTRUCTION)
        time.sleep(5)  # a request of a dead process may still be under way in the server, whatever came after it
        assert push(store, desk, batch, INSTRUCTION).pushed == 0
        for person, project in report.projects.items():
            keys = [t.key for t in desk.listing(project)]
            assert sorted(keys) == sorted(a.sample_id for a in batch.of(person))
    assert counts.count(-signal.SIGKILL) >= 15
    assert report.known > 0


class Answered(Server):
    """Every other task comes to the server with its answer, since the API takes them one at a time.

    Attributes:
        known: what stands for the list of tasks; None: the server is asked.
    """

    known = None

    def listing(self, project, progress=None):
        return super().listing(project, progress) if self.known is None else self.known

    def add(self, project, tasks, progress=None):
        said = {"completed_by": 1, "result": [choice(TASK, "grade", "2")], "lead_time": 12.5}
        super().add(project, [t | {"annotations": [said] * (i % 2)} for i, t in enumerate(tasks)], progress)


def test_thousands_of_tasks_with_predictions_go_and_come(running, tmp_path):
    """Ten pulls break off on the way. The figures are printed for docs/experiments, never asserted."""
    rows = 10_000 if SOAK else 2_500
    store, _ = review_store(tmp_path, rows=rows, queued=0)
    taught(store)
    ids = store.frame("select sample_id from samples order by sample_id")["sample_id"]
    batch = Batch("big", tuple(Assignment(s, ADMIN, "adjudicate", position=i) for i, s in enumerate(ids)), True)
    told = []
    with Answered(running[0].url, running[0].token) as desk:
        marks = [(time.monotonic(), peak())]
        report = push(store, desk, batch, INSTRUCTION, lambda done, total: told.append((done, total)))
        marks.append((time.monotonic(), peak()))
        [project] = report.projects.values()
        desk.known = desk.listing(project)  # asked once for the ten, which spares a minute
        for chunks in range(10):
            with pytest.raises(ConnectionError):
                pull(store, desk, batch, "r", breaking(1 + chunks % 3))
        desk.known = None
        marks.append((time.monotonic(), peak()))
        first = pull(store, desk, batch, "r", lambda done, total: told.append((done, total)))
        marks.append((time.monotonic(), peak()))
        again = pull(store, desk, batch, "r")
        marks.append((time.monotonic(), peak()))
    parts = ("pushed", "ten pulls broken off", "pulled", "pulled again")
    for what, (t0, m0), (t1, m1) in zip(parts, marks, marks[1:], strict=False):
        print(f"\n{what} in {t1 - t0:.0f} s, peak memory {m0:.0f} -> {m1:.0f} MB")
    assert (report.pushed, first.pulled, again.pulled) == (rows, rows // 2, 0)
    assert store.frame("select count(*) from labels where batch = 'big'").item() == rows // 2
    assert told.count((rows, rows)) == 2
    assert len(told) > rows // 250


def breaking(chunks):
    """A listener at whose n-th word the connection is gone."""
    left = [chunks]

    def heard(done, total):
        left[0] -= 1
        if not left[0]:
            raise ConnectionError("the network went away")

    return heard


def peak():
    """Greatest resident size of this process until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
