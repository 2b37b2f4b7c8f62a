"""Text from data, people, rules, models and settings is text on every page, never markup."""

from html.parser import HTMLParser

import pytest

from piar.cli import main
from piar.instructions.markdown import write
from piar.project.facade import Project
from piar.report.page import report
from store.db import Store, now
from store.ids import content_id, sample_id
from store.task import Grade, Step, Task, dump_task
from store.types import Instruction, Label, Rule, Verdict

EVIL = [
    "<script>document.title='XSS'</script>", '"><img src=x onerror=alert(1)>',
    "</pre></script><script>alert(1)</script>",
    "'><svg onload=alert(1)>", "</style><style>*{display:none}</style>", '<iframe srcdoc="<script>1</script>">',
    "javascript:alert(1)", "{{ 7*7 }}{% for x in range(9) %}x{% endfor %}", "]]><!--", "</title><base href=//evil>",
    "<a href=javascript:alert(1)>x</a>", '" onmouseover="alert(1)', "<meta http-equiv=refresh content=0;url=//evil>",
]  # fmt: skip
TAGS = {"script", "img", "iframe", "base", "object", "embed", "form", "link"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which every text that can be chosen is hostile."""
    folder = tmp_path_factory.mktemp("evil") / "p"
    Project.init(folder)
    task = Task(
        name=EVIL[0], group_by="query", fields=("query", "title"), ask=EVIL[1],
        grades=(Grade(symbol="<b>", name=EVIL[2], value=0, meaning=EVIL[3]), Grade(symbol="1", name=EVIL[4], value=1)),
        steps=(Step(name="kind", asks=EVIL[5]),), slices={EVIL[6]: "length(title) > 3", EVIL[1]: "length(query) > 3"},
    )  # fmt: skip
    (folder / "task.toml").write_text(dump_task(task))
    rules = tuple(Rule(f"R{i:02}", text, "1") for i, text in enumerate(EVIL, 1))
    (folder / "instruction.md").write_text(write(Instruction(EVIL[0], rules), task))
    store = Store.create(folder / "piar.duckdb", task)
    rows = [(f"{EVIL[i % 13]} {i // 4}", f"{EVIL[i % 7]} {i}", "test" if i % 2 else "train") for i in range(80)]
    with store.write() as con:
        for group, title, split in rows:
            con.execute(
                "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
                "values (?, ?, ?, ?, 'r', ?, ?, ?)",
                [sample_id(group, (group, title)), group, split, EVIL[1], now(), group, title],
            )
    project = Project.open(folder)
    ids = [sample_id(group, (group, title)) for group, title, _ in rows]
    store.add_labels([Label(key, "gold", EVIL[2], ("1", "<b>")[i % 3 == 0]) for i, key in enumerate(ids)], "r")
    store.add_labels([Label(key, "human", EVIL[i % 13], "<b>", comment=EVIL[i % 13], rule=EVIL[i % 5])
                      for i, key in enumerate(ids)], "r")  # fmt: skip
    current = project.instruction().id
    store.record_verdicts(
        [Verdict(content_id(key), key, f"teacher:openai:{EVIL[0]}", current, 0, "1", None, None) for key in ids], "r"
    )
    store.start_run(EVIL[0], {"model": EVIL[1]})
    return project


def test_the_report_shows_text_as_text(project, tmp_path):
    report(project.store, tmp_path / "report.html", current=project.instruction(), offline=True, notes=tuple(EVIL))
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not TAGS & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "srcdoc"]
    assert not [value for name, value in page.attributes if name in ("href", "src") and not value.startswith("#")]
    policy = dict(page.attributes).get("content"), [v for n, v in page.attributes if n == "content" and "none" in v]
    assert "default-src 'none'" in policy[1][0]
    assert page.tags.count("meta") == text.count("<meta")
    assert page.tags.count("style") == text.count("<style>") == 1
    for words in EVIL[:5]:
        assert words in page.text


def test_markdown_shows_text_as_text(project, tmp_path, capsys):
    assert main(["show", "instruction", "-C", str(project.folder)]) == 0
    capsys.readouterr()
    project.mine()
    shards = project.curriculum_export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert shards.rows
    assert "<script>" not in card
    assert "<img" not in card
