"""`task.toml`: read back as written, and refused with the place of what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import UsageError
from store.task import Task, dump_task, load_task

GRADES = '[[grades]]\nsymbol = "0"\nvalue = 0\n[[grades]]\nsymbol = "1"\nvalue = 1\n'
HEAD = 'name = "t"\ngroup_by = "query"\nfields = ["query", "title"]\n'
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def tasks(draw):
    symbols = draw(st.lists(st.from_regex(r"[A-Za-z0-9+*-]{1,6}", fullmatch=True), min_size=2, max_size=5, unique=True))
    values = draw(st.lists(st.floats(-9, 9), min_size=len(symbols), max_size=len(symbols), unique=True))
    steps = draw(st.lists(st.sampled_from(["kind", "size", "who"]), unique=True))
    return Task.model_validate(
        {
            "name": draw(texts.filter(bool)),
            "group_by": "query",
            "fields": ["query", "title"],
            "ask": draw(texts),
            "grades": [
                {"symbol": s, "value": v, "name": draw(texts), "meaning": draw(texts)}
                for s, v in zip(symbols, values, strict=True)
            ],
            "steps": [{"name": s, "asks": draw(texts), "choices": draw(st.lists(texts, max_size=2))} for s in steps],
            "slices": {"short": "length(title) < 12"} if draw(st.booleans()) else {},
        }
    )


@given(tasks())
@settings(max_examples=60, deadline=None)
def test_a_task_is_read_back_as_written(tmp_path_factory, task):
    path = tmp_path_factory.mktemp("task") / "task.toml"
    path.write_bytes(dump_task(task).encode())
    assert load_task(path) == task
    assert load_task(path).hash == task.hash
    assert list(task.values.values()) == sorted(task.values.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        (HEAD + "colour = 1\n" + GRADES, "colour: unknown key"),
        (HEAD + GRADES + "weight = 2\n", r"grades\.1\.weight: unknown key"),
        (HEAD, "grades: Field required"),
        (HEAD + '[[grades]]\nsymbol = "0"\nvalue = 0\n', "at least 2"),
        (HEAD + GRADES.replace('"1"', '"0"'), "grade symbols must differ"),
        (HEAD + GRADES.replace('"1"', '"a b"'), r"grades\.1\.symbol"),
        (HEAD + GRADES.replace('"1"', '"\\u0000"'), "printable"),
        (HEAD + GRADES.replace("value = 1", "value = nan"), r"grades\.1\.value"),
        (HEAD.replace('"title"', '"split"') + GRADES, "reserved column"),
        (HEAD.replace('"title"', '"no dots.here"') + GRADES, "letters, digits and underscores"),
        (HEAD.replace('"title"', '"QUERY"') + GRADES, "must differ"),
        (HEAD + GRADES + '[[steps]]\nname = "verdict"\n', "field of every trace"),
        (HEAD + GRADES + '[[steps]]\nname = "a"\n[[steps]]\nname = "a"\n', "step names must differ"),
    ],
)
def test_a_bad_task_names_the_place(tmp_path, text, message):
    path = tmp_path / "task.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_task(path)


@pytest.mark.parametrize(
    "condition",
    [
        "length(titel) < 3",
        "",
        "true; drop table samples",
        "true) or (true",
        "title = 'a', query = 'b'",
        "count(*) > 3",
        "exists (select 1 from labels)",
        "exists (select 1 from read_csv('/etc/hosts'))",
        "title /* open",
        "title",
    ],
)
def test_a_slice_must_be_one_condition_over_the_fields(tmp_path, condition):
    path = tmp_path / "task.toml"
    path.write_text(HEAD + GRADES + f'[slices]\nodd = "{condition}"\n')
    with pytest.raises(UsageError, match=r"slices\.odd is not"):
        load_task(path)


@pytest.mark.parametrize(
    "condition", ["length(query) < 12", "title like '%)%' -- a comment", "split = 'train' or query = ''"]
)
def test_conditions_are_slices(tmp_path, condition):
    path = tmp_path / "task.toml"
    path.write_text(HEAD + GRADES + f'[slices]\nfine = "{condition}"\n')
    assert load_task(path).slices == {"fine": condition}


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_task(tmp_path / "task.toml")


def test_a_task_without_order_says_so_and_an_ordered_one_is_written_as_ever(tmp_path):
    path = tmp_path / "task.toml"
    path.write_text(HEAD + GRADES)
    task = load_task(path)
    assert task.ordered
    assert "ordered" not in task.model_dump_json()
    path.write_text(dump_task(task.model_copy(update={"ordered": False})))
    assert not load_task(path).ordered
    assert load_task(path).hash != task.hash
