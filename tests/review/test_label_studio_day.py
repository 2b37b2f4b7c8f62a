"""A day of a lead and three raters on a real server, from the command line, the browser and the API.

Pictures of what each of them sees are left in the test's folder.
"""

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import requests

from piar import Project
from piar.cli import main
from piar.review.server import Server
from tests.label_studio import ADMIN, browsing
from tests.review.kills import pull_until_killed
from tests.review_world import everything

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
LEAD, BOB, CAT, DAN = ADMIN, "bob@example.com", "cat@example.com", "dan@example.com"
QUESTION = """
[[review.questions]]
name = "intent"
ask = "What does the <b>shopper</b> want?"
choices = ["buy", "compare"]
"""


class Day:
    """The lead's terminal, and the raters' hands on the API."""

    def __init__(self, project: Project, server: str, tokens: dict[str, str], capsys) -> None:
        self.project, self.folder, self.server, self.capsys = project, project.folder, server, capsys
        self.heads = {who: {"Authorization": f"Token {token}"} for who, token in tokens.items()}
        self.truth = dict(project.sql("select sample_id, grade from truth").rows())
        self.toml((f'url = "{server}"', 'url = "http://127.0.0.1:8080"'), (f'lead = "{LEAD}"', 'lead = ""'))
        self.annotators([BOB, CAT, DAN], "[]")
        self.toml((QUESTION + "\n[student]", "\n[student]"))

    def toml(self, *changes: tuple[str, str]) -> None:
        text = (self.folder / "piar.toml").read_text()
        for new, old in changes:
            assert old in text
            text = text.replace(old, new)
        (self.folder / "piar.toml").write_text(text)

    def annotators(self, people: list[str], before: str) -> None:
        self.toml((f"annotators = {json.dumps(people)}", f"annotators = {before}"))

    def piar(self, *arguments: str) -> dict:
        assert main(["review", *arguments, "--json", "-C", str(self.folder)]) == 0
        return json.loads(self.capsys.readouterr().out)

    def ask(self, method: str, place: str, who: str, **body) -> dict:
        answer = requests.request(method, f"{self.server}/api/{place}", json=body, headers=self.heads[who], timeout=30)
        assert answer.ok, answer.text[:300]
        return answer.json() if answer.content else {}

    def tasks(self, desk: Server, project: int) -> list[dict]:
        return sorted(everything(desk, project), key=lambda task: task["id"])

    def says(self, who: str, task: dict, grade: str, *more: dict, **about) -> int:
        said = [said_of("grade", grade), said_of("rule", "R03" if grade in "12" else "R02"), *more]
        body = {"result": said, "lead_time": 8 + 4 * (who == DAN)} | about
        return self.ask("post", f"tasks/{task['id']}/annotations/", who, **body)["id"]

    def grade(self, who: str, key: str) -> str:
        """Dan reads two rules otherwise; the others are right."""
        true = self.truth[key]
        return {"1": "2", "2": "1"}.get(true, true) if who == DAN else true


def said_of(control: str, *choices: str) -> dict:
    return {"from_name": control, "to_name": "f_query", "type": "choices", "value": {"choices": list(choices)}}


def span_of(title: str) -> dict:
    value = {"start": 0, "end": 4, "text": title[:4], "labels": ["evidence"]}
    return {"from_name": "evidence", "to_name": "f_title", "type": "labels", "value": value}


def test_a_day_with_label_studio(running, shop, capsys, monkeypatch, tmp_path):
    server, tokens = running
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", tokens[LEAD])
    day = Day(shop, server.url, tokens, capsys)
    with Server(server.url, tokens[LEAD]) as desk:
        projects = a_calibration_round(day, desk, tmp_path)
        a_pull_killed_ten_times_loses_nothing(day, desk, projects, tokens[LEAD])
        the_rules_that_divide_people(day)
        a_new_instruction_is_announced(day, projects, tmp_path)
        somebody_stops_and_the_others_take_over(day, desk)
        the_lead_settles(day, desk, tmp_path)
    the_page_for_monday(day, tmp_path)


def a_calibration_round(day: Day, desk: Server, pictures: Path) -> dict[str, int]:
    """Everybody judges the same rows; Bob begins in his browser, Cat does everything that can be done."""
    pushed = day.piar("push", "--batch", "pilot", "--pilot", "14")
    assert pushed["annotators"] == {BOB: 14, CAT: 14, DAN: 14}
    projects = pushed["projects"]
    with browsing(day.server, BOB) as page:
        page.goto(f"{day.server}/projects/{projects[BOB]}/data?labeling=1")
        page.wait_for_selector("text=Labeling Instructions", timeout=60_000)
        page.wait_for_selector("text=Rules, the first that fits decides")
        page.screenshot(path=str(pictures / "bob begins.png"))
        page.keyboard.press("Escape")
        page.wait_for_selector("text=What does the <b>shopper</b> want?")
        page.wait_for_timeout(700)
        page.keyboard.press("2")
        page.locator("text=compare").first.click()
        page.screenshot(path=str(pictures / "bob answers.png"))
        with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST", timeout=30_000):
            page.keyboard.press("Control+Enter")
    for who, project in projects.items():
        for number, task in enumerate(day.tasks(desk, project)):
            odd = number if who == CAT else 99
            if not task["annotations"] and odd > 5:
                day.says(who, task, day.grade(who, task["data"]["sample_key"]))
    first, skipped, drafted, edited, deleted, twice = day.tasks(desk, projects[CAT])[:6]
    note = {"from_name": "comment", "to_name": "f_query", "type": "textarea", "value": {"text": ["why <i>so</i>?"]}}
    day.says(CAT, first, "3", span_of(first["data"]["f_title"]), said_of("intent", "buy"), note)
    day.says(CAT, skipped, "3", was_cancelled=True)
    day.ask("post", f"tasks/{drafted['id']}/drafts", CAT, result=[said_of("grade", "1")], lead_time=3)
    number = day.says(CAT, edited, "0")
    gone = day.says(CAT, deleted, "0")
    day.says(CAT, twice, "1")
    day.says(CAT, twice, "2")
    day.says(DAN, day.tasks(desk, projects[BOB])[3], "0")  # in somebody else's project
    assert day.piar("pull")["pulled"] == 14 + 13 + 14 + 1
    day.ask("patch", f"annotations/{number}/", CAT, result=[said_of("grade", "1")])
    day.ask("delete", f"annotations/{gone}/", CAT)
    return projects


def a_pull_killed_ten_times_loses_nothing(day: Day, desk: Server, projects: dict[str, int], token: str) -> None:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["tests.review.kills"])
    rng, codes = random.Random(3), []
    for _ in range(10):
        began, tell = forks.Pipe(duplex=False)
        child = forks.Process(target=pull_until_killed, args=(day.folder, "pilot", day.server, token, tell))
        child.start()
        began.recv()
        time.sleep(rng.uniform(0, 0.3))
        child.kill()
        child.join()
        codes.append(child.exitcode)
    assert codes.count(-signal.SIGKILL) >= 5
    odd = day.piar("pull")["odd"]
    assert odd.get(f"draft of {CAT}, not submitted") == 1
    assert day.piar("pull")["pulled"] == 0
    there = {}
    for project in projects.values():
        for task in everything(desk, project):
            for said in sorted(task["annotations"], key=lambda a: a["updated_at"]):
                grade = next((r["value"]["choices"][0] for r in said["result"] if r["from_name"] == "grade"), None)
                who = desk.users()[said["completed_by"]]
                there[task["data"]["sample_key"], who] = None if said["was_cancelled"] else grade
    kept = day.project.sql("select sample_id, annotator, grade from reviewed where not list_contains(flags, 'undone')")
    said = {(key, who): grade for key, who, grade in kept.rows()}
    own = {pair for pair in there if pair[1] != DAN}  # Dan's row in Bob's project is his row elsewhere, too
    assert {pair: said[pair] for pair in own} == {pair: there[pair] for pair in own}
    assert said.keys() == there.keys()
    further = day.project.sql("select further from reviewed where further <> '{}' order by length(further)")["further"]
    assert json.loads(further[0]) == {"intent": ["compare"]}
    assert {name: len(words) for name, words in json.loads(further[-1]).items()} == {"evidence": 1, "intent": 1}


def the_rules_that_divide_people(day: Day) -> None:
    found = day.piar("status", "--batch", "pilot")
    assert found["rules"][0]["rule"] == "R03"
    assert found["rules"][0]["same"]["value"] < 0.9
    people = {p["annotator"]: p for p in found["annotators"]}
    assert people[DAN]["agreement"]["value"] < people[BOB]["agreement"]["value"]
    assert (people[CAT]["assigned"], people[CAT]["answered"], people[CAT]["skipped"]) == (14, 12, 1)
    assert people[DAN]["foreign"] == 1
    assert people[BOB]["hours"] > 0


def a_new_instruction_is_announced(day: Day, projects: dict[str, int], pictures: Path) -> None:
    file = day.folder / "instruction.md"
    before = day.project.instruction().rule("R03").text
    file.write_text(file.read_text().replace(before, "Most words of the query, <b>but not the product</b>."))
    pushed = day.piar("push", "--batch", "pilot")
    assert (pushed["pushed"], pushed["by_hand"]) == (0, [])
    assert all(n > 0 for n in pushed["announced"].values())
    with browsing(day.server, CAT) as page:
        page.goto(f"{day.server}/projects/{projects[CAT]}/data?labeling=1")
        page.wait_for_selector("text=Changed since you began", timeout=60_000)
        page.wait_for_selector("text=of your answers here rest on words that have changed")
        assert page.locator("text=but not the product").count() > 0
        page.screenshot(path=str(pictures / "cat reads the news.png"))
    assert day.piar("push", "--batch", "pilot")["announced"] == {}


def somebody_stops_and_the_others_take_over(day: Day, desk: Server) -> None:
    projects = day.piar("push", "--batch", "w1", "--hours", "0.05", "--overlap", "40%", "--random", "100%")["projects"]
    for who, project in projects.items():
        for task in day.tasks(desk, project)[: 2 if who == DAN else None]:
            day.says(who, task, day.grade(who, task["data"]["sample_key"]))
    day.piar("pull", "--batch", "w1")
    dan = next(p for p in day.piar("status", "--batch", "w1")["annotators"] if p["annotator"] == DAN)
    day.annotators([BOB, CAT], json.dumps([BOB, CAT, DAN]))
    rest = day.piar("push", "--batch", "w1-rest", "--rest", "w1")
    assert DAN not in rest["annotators"]
    assert 0 < sum(rest["annotators"].values()) <= dan["assigned"] - dan["answered"]
    for who, project in rest["projects"].items():
        for task in day.tasks(desk, project):
            day.says(who, task, day.grade(who, task["data"]["sample_key"]))
    assert day.piar("pull", "--batch", "w1-rest")["pulled"] == sum(rest["annotators"].values())


def the_lead_settles(day: Day, desk: Server, pictures: Path) -> None:
    pushed = day.piar("push", "--batch", "settle", "--adjudicate", "pilot")
    [(lead, rows)] = pushed["annotators"].items()
    assert lead == LEAD
    assert rows > 0
    with browsing(day.server) as page:
        page.goto(f"{day.server}/projects/{pushed['projects'][LEAD]}/data?labeling=1")
        page.wait_for_selector("text=Labeling Instructions", timeout=60_000)
        page.keyboard.press("Escape")
        page.wait_for_selector(f"text={DAN} ·")
        page.wait_for_timeout(700)
        page.screenshot(path=str(pictures / "the lead settles.png"))
    for task in day.tasks(desk, pushed["projects"][LEAD]):
        day.says(LEAD, task, "3")
    assert day.piar("pull", "--batch", "settle")["pulled"] == rows
    settled = day.project.sql("select grade from truth where basis = 'settled'")["grade"].to_list()
    assert settled == ["3"] * rows


def the_page_for_monday(day: Day, pictures: Path) -> None:
    file = pictures / "monday.html"
    day.piar("agenda", "--out", str(file))
    wrong = []
    with browsing(day.server) as page:
        page.on("console", lambda message: wrong.append(message.text))
        page.goto(file.as_uri())
        page.screenshot(path=str(pictures / "monday.png"), full_page=True)
        text = page.inner_text("body")
    assert wrong == []
    assert "Agreement in pilot" in text
    assert LEAD not in text  # who settles is nobody among the raters
    assert "None: everything that was given out has come back" not in text
    assert "rule R03" in text
    assert "--relabel stale" in text
