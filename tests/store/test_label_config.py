"""A Label Studio label configuration becomes a task; hostile ones become a message."""

import json

import pytest

from piar.project.facade import Project
from piar.review.page import page
from store.errors import UsageError
from store.label_config import read_label_config
from store.task import Grade, Task
from store.types import Instruction, Rule

CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<View>
  <!-- two years old -->
  <Style><![CDATA[ .x > p { color: red } ]]></Style>
  <Header value="Does the product answer the query?"/>
  <Header value="Query: $query"/>
  <Text name="t" value="$title"/>
  <Image name="i" value="$picture"/>
  <Choices name="seen" toName="t" choice="multiple"><Choice value="blurred"/><Choice value="cut"/></Choices>
  <Choices name="relevance" toName="t" required="true">
    <Choice value="Highly relevant" hint="What was asked for."><Choice value="and cheap"/></Choice>
    <Choice value="Partly"/>
    <Choice value="Not at all"/>
  </Choices>
</View>"""


def test_choices_become_grades_and_texts_become_fields() -> None:
    found = read_label_config(CONFIG)
    assert (found.control, found.columns, found.ask) == (
        "relevance",
        ("query", "title"),
        "Does the product answer the query?",
    )
    assert [(g.symbol, g.name, g.value, g.meaning) for g in found.grades] == [
        ("0", "Not at all", 0, ""),
        ("Partly", "", 1, ""),
        ("2", "Highly relevant", 2, "What was asked for."),
    ]
    assert not found.ordered


def test_choices_of_a_known_scale_come_in_its_order() -> None:
    config = '<View><Text name="t" value="$a"/><Choices name="g" toName="t">{}</Choices></View>'
    found = read_label_config(config.format("".join(f'<Choice value="{w}"/>' for w in ("bad", "perfect", "fair"))))
    assert [grade.symbol for grade in found.grades] == ["bad", "fair", "perfect"]
    assert found.ordered


def test_numbers_in_captions_are_values_and_stars_are_grades() -> None:
    view = '<View><Text name="t" value="$a"/>{}</View>'
    choices = '<Choices name="g" toName="t"><Choice value="3 - good"/><Choice value="-1 bad"/></Choices>'
    found = read_label_config(view.format(choices))
    assert [(g.symbol, g.name, g.value) for g in found.grades] == [("-1", "-1 bad", -1), ("3", "3 - good", 3)]
    stars = read_label_config(view.format('<Rating name="r" toName="t" maxRating="3"/>'))
    assert [g.symbol for g in stars.grades] == ["1", "2", "3"]


def test_the_page_that_piar_makes_reads_back_as_its_task() -> None:
    task = Task(name="t", group_by="query", fields=("query", "title"), ask="How well?", grades=tuple(
        Grade(symbol=s, name=n, value=v) for s, n, v in [("a", "no & never", 0), ("b", "<so>", 1), ("c", "yes", 2)]
    ))  # fmt: skip
    found = read_label_config(page(task, Instruction("Judge.", (Rule("R1", "A rule.", "b"),))))
    assert found.control == "grade"
    assert found.columns == ("f_query", "f_title")
    assert [g.symbol for g in found.grades] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<View>",
        "no markup",
        "<View/>",
        '<!DOCTYPE v [<!ENTITY a "b">]><View>&a;</View>',
        '<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]><View>&a;</View>',
        '<View><Text name="t" value="$a"/></View>',
        '<View><Choices name="g" toName="t"><Choice value="1"/><Choice value="2"/></Choices></View>',
        "<View>" * 200_000,
        "\x00",
    ],
)
def test_what_is_no_configuration_is_explained(text) -> None:
    with pytest.raises(UsageError, match="label configuration"):
        read_label_config(text)


def annotation(grade, person, **more):
    chosen = [
        {"from_name": "seen", "type": "choices", "value": {"choices": ["cut"]}},
        {"from_name": "relevance", "type": "choices", "value": {"choices": [grade]}},
    ]
    return {"completed_by": {"id": 1, "email": person}, "result": chosen, "lead_time": 7.5,
            "created_at": "2024-03-01T10:00:00Z", **more}  # fmt: skip


def test_an_old_project_comes_in_with_people_dates_and_seconds_and_without_gold(tmp_path) -> None:
    grades = ["Highly relevant", "Partly", "Not at all"]
    tasks = [
        {
            "data": {"query": f"query {i // 3}", "title": f"thing number {i}", "label": "Partly"},
            "annotations": [annotation(grades[i % 3], "ann@example.com"), annotation(grades[0], "bob@example.com")],
        }
        for i in range(12)
    ]
    (tmp_path / "old.json").write_text(json.dumps(tasks))
    (tmp_path / "old.xml").write_text(CONFIG)
    project = Project.init(tmp_path / "p", from_=tmp_path / "old.json", label_config=tmp_path / "old.xml")
    assert project.task.fields == ("query", "title")
    assert project.task.group_by == "query"
    assert project.task.ask == "Does the product answer the query?"
    assert "grades" in project.imported.reasons
    rows = project.sql(
        "select source, annotator, grade, count(*) as n, any_value(seconds) as seconds, any_value(batch) as batch, "
        "year(any_value(created_at)) as y from label group by all order by all"
    ).rows()
    assert rows == [
        ("human", "ann@example.com", "0", 4, 7.5, "old", 2024),
        ("human", "ann@example.com", "2", 4, 7.5, "old", 2024),
        ("human", "ann@example.com", "Partly", 4, 7.5, "old", 2024),
        ("human", "bob@example.com", "2", 12, 7.5, "old", 2024),
    ]
