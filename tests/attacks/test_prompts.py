"""Prompt templates from other hands: they write a text, and can do nothing else."""

import pickle
import re

import pytest
from jinja2 import Undefined

from piar.cli import main
from piar.instructions.prompts import judge_prefix, render
from piar.instructions.sandbox import _environment, _plain, render_text
from store.errors import UsageError
from store.types import Example, Instruction, Rule
from tests.small_project import TASK, small_project

INSTRUCTION = Instruction("Judge toys.", (Rule("R1", "It fits.", "1"),), {}, (Example({"query": "a"}, "1", "R1"),))
VALUES = {"task": TASK, "instruction": INSTRUCTION, "most": 6, "x": "x" * 10_000, "n": 3}


class Bomb:
    def __reduce__(self):
        return (open, (self.path, "w"))  # what loading runs


def refused(tmp_path, text):
    (tmp_path / "judge.j2").write_text(text)
    with pytest.raises(UsageError) as told:
        render("judge", VALUES, tmp_path)
    assert len(str(told.value)) < 700
    return str(told.value)


def test_a_template_loads_no_pickle(tmp_path):
    bomb, proof = Bomb(), tmp_path / "ran"
    bomb.path = str(proof)
    payload = pickle.dumps(bomb, 0).decode()
    assert "parse_raw" in refused(tmp_path, f"{{{{ task.parse_raw({payload!r}, proto='pickle', allow_pickle=true) }}}}")
    assert not proof.exists()


@pytest.mark.parametrize("values", [VALUES, {"instruction": INSTRUCTION}, {"parents": [{"title": "a"}]}])
def test_what_a_template_can_reach_has_no_method_but_those_of_plain_values(values):
    """Walk everything that is reachable: attributes that the sandbox gives out, and items."""
    allowed = {"capitalize", "count", "endswith", "find", "get", "index", "isdigit", "items", "keys", "lower", "lstrip",
               "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "values"}  # fmt: skip
    environment, seen = _environment(), set()
    todo = [_plain(values), range(3)]
    while todo:
        value = todo.pop()
        assert type(value).__module__ == "builtins"
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
        for name in dir(value):
            if not isinstance(environment.getattr(value, name), Undefined):
                assert name in allowed or (isinstance(value, dict) and name in value)
                seen.add(name)
    assert {"items", "get"} <= seen


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}", "{{ task['__class__'] }}", "{{ x|attr('__class__') }}",
        "{{ (x|map('__class__'))|list }}", "{{ '{0.__class__}'.format(x) }}", "{{ '%s'|format(x) }}",
        "{{ x.format_map({}) }}", "{{ self.__init__.__globals__ }}", "{{ range.__self__ }}", "{{ namespace.__init__ }}",
        "{{ lipsum.__globals__ }}", "{{ cycler }}", "{{ joiner }}", "{{ dict(a=1) }}", "{{ loop }}",
        "{% for a in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
        "{% macro m() %}{% endmacro %}{{ m._environment }}", "{{ task.model_dump() }}", "{{ task.parse_file('x') }}",
        "{{ task.fields.append('x') }}", "{{ task.clear() }}", "{% import 'os' as o %}", "{% include '../x' %}",
        "{% extends '/etc/passwd' %}", "{% from 'x' import y %}", "{% do x %}", "{% debug %}", "{{ x|tojson }}",
    ],
)  # fmt: skip
def test_what_is_no_plain_value_is_refused(tmp_path, text):
    assert "prompts/judge.j2" in refused(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{% for i in range(999) %}{% for j in range(999) %}{% for k in x %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 10**9 }}", "{{ [1] * 10**9 }}", "{{ 2 ** 9999999 }}", "{{ '%999999999d' % 1 }}",
        "{{ 'x'.center(10**9) }}", "{{ 'x'|center(10**9) }}", "{{ 'x'.ljust(10**9) }}", "{{ 'x'|indent(10**9) }}",
        "{{ [1]|batch(10**9, 0)|list }}", "{{ 5|round(-999999999) }}", "{{ (1).to_bytes(10**9) }}",
        "{{ '{:999999999}'.format(1) }}", "{{ x.replace('x', x) }}",
        "{{ x|replace('x', x) }}", "{{ x|replace('', x) }}", "{{ x|list|join(x) }}", "{{ x.join(x) }}",
        "{% set s = namespace(x='xx') %}{% for i in range(40) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
        "{% set s = namespace(x='xx') %}{% for i in range(40) %}{% set s.x = s.x + s.x %}{% endfor %}",
        "{% set s = namespace(x=[1]) %}{% for i in range(40) %}{% set s.x = s.x + s.x %}{% endfor %}",
        "{% set s = namespace(x='x') %}{% for i in range(40) %}{% set s.x %}{{ s.x }}{{ s.x }}{% endset %}{% endfor %}",
        "{% set s = namespace(x=9) %}{% for i in range(99) %}{% set s.x = s.x * s.x %}{% endfor %}",
        "{% set s = namespace(x=[]) %}{% for i in range(99) %}{% set s.x = [s.x, s.x] %}{% endfor %}{{ s.x == s.x }}",
        "{% set s = namespace(x={}) %}{% for i in range(99) %}{% set s.x = {'a': s.x, 'b': s.x} %}{% endfor %}",
        "{% for i in range(999) %}{% for j in range(99) %}" + "y" * 100 + "{% endfor %}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if x %}" * 300 + "{% endif %}" * 300,
    ],
)  # fmt: skip
def test_what_would_not_end_or_fill_the_memory_is_refused(tmp_path, text):
    assert "prompts/judge.j2" in refused(tmp_path, text)


def test_time_is_bounded_where_steps_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr("piar.instructions.sandbox.SECONDS", -1)
    assert "seconds" in refused(tmp_path, "{% for i in range(2) %}{% endfor %}")


@pytest.mark.parametrize("kind", ["link", "latin", "large", "folder"])
def test_a_template_file_that_is_none_is_told(tmp_path, kind):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (tmp_path / "private.txt").write_text("private")
    path = prompts / "judge.j2"
    if kind == "link":
        path.symlink_to(tmp_path / "private.txt")
    elif kind == "latin":
        path.write_bytes(b"caf\xe9")
    elif kind == "large":
        path.write_text("x" * 300_000)
    else:
        path.mkdir()
    words = {"link": "link out of", "latin": "not UTF-8", "large": "larger than", "folder": "no file"}
    with pytest.raises(UsageError, match=words[kind]):
        judge_prefix(TASK, INSTRUCTION, prompts)


def test_what_templates_are_for_still_works():
    text = (
        "{% macro line(rule) %}{{ rule.id ~ ': ' ~ rule.text }}{% endmacro %}"
        "{% set ns = namespace(n=0) %}{% for g in task.grades|reverse if g.value >= 0 %}{% set ns.n = ns.n + 1 %}"
        "{{ loop.index }}.{{ g.symbol|upper }}{{ ', ' if not loop.last }}{% endfor %} of {{ ns.n }};"
        "{% for rule in instruction.rules %} {{ line(rule) }}{% endfor %};"
        "{% for name, text in instruction.examples[0].fields.items() %} {{ name }}={{ text.strip() }}{% endfor %};"
        " {{ instruction.examples[0].fields|json }} {{ ['a', 'b']|join('/') }} {{ task.fields|join(', ') }}"
        " {{ x[:3]|replace('x', 'y') }} {{ n * 2 + 1 }} {{ most // 4 }} {{ task.symbols|join('|') }}"
    )
    assert render_text(text, VALUES) == (
        '1.1, 2.0 of 2; R1: It fits.; query=a; {"query": "a"} a/b query, title yyy 7 1 0|1'
    )


def test_markup_in_data_is_never_a_template():
    evil = "{{ 7*7 }}{% for x in range(9) %}x{% endfor %}{# no #}"
    shown = judge_prefix(TASK, Instruction(evil, (Rule("R1", evil, "1"),)))
    assert shown.count(evil) == 2
    assert not re.search(r"\b49\b", shown)


def test_the_verb_tells_what_is_wrong_with_a_project_s_template(tmp_path, capsys):
    small_project(tmp_path / "p")
    (tmp_path / "p" / "prompts").mkdir()
    (tmp_path / "p" / "prompts" / "judge.j2").write_text("{{ task.parse_raw('', allow_pickle=true) }}")
    assert main(["label", "-C", str(tmp_path / "p"), "--dry-run"]) == 2
    assert "prompts/judge.j2" in capsys.readouterr().err
