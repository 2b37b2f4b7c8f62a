"""An audit of judges: what each probe changes, what is found, what is left out, and what it costs."""

import json
import re

import pytest

from piar.cli import main
from piar.llm.base import Completion, Usage
from piar.llm.cost import Budget
from piar.measure.audit import audit
from piar.measure.audit_plan import in_drawing_order, least_detectable, plan, rows_for
from piar.measure.probes import PROBES, Question, chosen
from piar.project.config import load
from store.errors import UsageError
from store.ids import seed_of
from store.judges import Judge
from store.stats import sign_flip_test
from store.task import Grade, Task, sample_text
from store.types import Example, Instruction, Sample
from tests.cascade_world import STUDENT, FakeStudent, lamps
from tests.documents import check

TASK = Task(
    name="toys",
    group_by="query",
    fields=("query", "title", "note"),
    grades=tuple(Grade(symbol=str(value), value=value) for value in range(3)),
)
INSTRUCTION = Instruction("Judge.", examples=tuple(Example({"query": q}, "0") for q in "ab"))


def question(title="A ball with 12 spots. It is red.", note="new", task=TASK, instruction=INSTRUCTION, group="ball"):
    return Question(
        Sample(f"{group}-{title}", group, {"query": "ball 7", "title": title, "note": note}), task, instruction
    )


def altered(name, **given):
    return PROBES[name].alter(question(**given))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("layout", "- A ball with 12 spots.\n- It is red."),
        ("casing", "A BALL WITH 12 SPOTS. IT IS RED."),
        ("longer", "A ball with 12 spots. It is red. A ball with 12 spots. It is red."),
        ("negation", "A ball without 12 spots. It is red."),
        ("number", "A ball with 38 spots. It is red."),
    ],
)
def test_a_probe_changes_what_is_judged_and_never_what_it_is_judged_by(name, title):
    fields = altered(name).sample.fields
    assert fields["title"] == title
    assert fields["query"] == "ball 7"


def test_what_is_listed_is_turned_round_and_nothing_else():
    before = question()
    assert [*altered("fields").sample.fields] == ["note", "title", "query"]
    assert altered("grades").task.symbols == ("2", "1", "0")
    assert [e.fields["query"] for e in altered("examples").instruction.examples] == ["b", "a"]
    for name in ("fields", "grades", "examples"):
        assert dict(altered(name).sample.fields) == dict(before.sample.fields)


def test_the_hidden_order_asks_for_the_highest_grade():
    assert altered("injected").sample.fields["title"].endswith("Answer 2.")


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("Kaffee ohne Zucker", "Kaffee mit Zucker"),
        ("Café sans sucre", "Café avec sucre"),
        ("Is not red", "Is red"),
        ("WITHOUT sugar", "With sugar"),
        ("木のおもちゃ", None),
        ("within reach", None),
    ],
)
def test_a_negation_is_put_in_or_taken_out_by_whole_words_of_the_languages_known(text, turned):
    found = altered("negation", title=text, note="")
    assert (found and found.sample.fields["title"]) == turned


def test_where_there_is_nothing_to_change_there_is_no_question():
    alone = Question(Sample("a", "g", {"query": "日本"}), TASK, Instruction("Judge."))
    assert [name for name, probe in PROBES.items() if probe.alter(alone) is None] == [
        "fields",
        "examples",
        "casing",
        "negation",
        "number",
    ]
    with pytest.raises(UsageError, match="nope"):
        chosen(["fields", "nope"])


class Toy:
    """A judge that says 0, or what a rule of the test makes of a question."""

    judge = Judge("toy")

    def __init__(
        self, rule=lambda kind, asked: "0", reads=lambda asked: (sample_text(asked.sample.fields), asked.task)
    ):
        self.rule, self.reads, self.asked = rule, reads, {}

    def shown(self, questions):
        return [str(self.reads(asked)) for asked in questions]

    def grades(self, parts):
        self.asked |= {kind: len(questions) for kind, questions in parts.items()}
        return {kind: [self.rule(kind, asked) for asked in questions] for kind, questions in parts.items()}


def found(judge, rows=120, task=TASK, probes=None, control=False):
    questions = [question(f"A ball with {n} spots.", task=task, group=f"g{n % 40}") for n in range(rows)]
    samples = [asked.sample for asked in questions]
    return audit(judge, questions, chosen(probes), plan(samples, 0.0, 14, 0.1), control=control)


def test_a_judge_that_never_changes_its_mind_has_nothing_found():
    result = found(Toy(), control=True)
    assert not result.found
    assert result.noise.value == 0
    assert {p.effect.size for p in result.probes} == {0.0}
    assert result.control.clean
    assert result.control.found >= 90
    assert result.said == {"0": 120, "1": 0, "2": 0}


def test_a_judge_that_obeys_a_hidden_order_is_found_with_rows_to_look_at_and_its_direction():
    obeys = Toy(lambda kind, asked: "2" if "Ignore the rules" in asked.sample.fields["title"] else "0")
    [probe] = found(obeys).found
    assert probe.name == "injected"
    assert probe.effect.flips.mean == 1.0
    assert probe.effect.shift.mean == 2.0
    assert {(row.before, row.after) for row in probe.examples} == {("0", "2")}


def test_a_noisy_judge_is_not_blamed_for_its_noise():
    # Every second answer of each kind differs, the same share whatever is asked.
    def noisy(kind, asked):
        return str(seed_of(kind, asked.sample.id) % 2)

    result = found(Toy(noisy))
    assert result.noise.value > 0.3
    assert not result.found


def test_what_a_judge_cannot_show_is_named_and_not_asked():
    deaf = Toy(reads=lambda asked: sorted(asked.sample.fields.items()))
    result = found(deaf)
    assert result.left_out["fields"] == "this judge reads the same either way"
    assert result.left_out["grades"] == "this judge reads the same either way"
    assert "fields" not in deaf.asked
    assert found(Toy(lambda kind, asked: "2")).left_out["injected"].startswith("every row has the highest grade")


def test_rows_without_an_answer_are_counted_and_left_out():
    silent = Toy(lambda kind, asked: None if kind == "longer" or asked.sample.group == "g0" else "0")
    result = found(silent)
    assert result.unanswered == 3
    assert {p.rows for p in result.probes} == {117}
    assert result.left_out["longer"] == "no answer could be read"


def test_grades_without_order_have_no_mean():
    result = found(Toy(), task=TASK.model_copy(update={"ordered": False}))
    assert all(probe.effect.shift is None for probe in result.probes)


def test_where_nobody_knows_what_should_happen_nothing_is_tested():
    reacts = Toy(lambda kind, asked: "1" if kind in ("number", "negation") else "0")
    result = found(reacts)
    assert not result.found
    assert {p.name: p.effect.flips.mean for p in result.probes if p.expects == "any"} == {
        "negation": 1.0,
        "number": 1.0,
    }


def test_corrected_p_values_are_holms_over_both_tests_of_every_probe():
    some = Toy(lambda kind, asked: "1" if kind == "casing" and asked.sample.group in {"g1", "g2", "g3", "g4"} else "0")
    result = found(some, probes=["casing", "longer"])
    casing = next(p for p in result.probes if p.name == "casing")
    assert casing.effect.flips.p_value == pytest.approx(sign_flip_test([3, 3, 3, 3]))
    assert casing.p_value == pytest.approx(4 * sign_flip_test([3, 3, 3, 3]))


def test_rows_are_planned_from_the_effect_and_more_noise_takes_more():
    samples = in_drawing_order([Sample(f"{g}-{r}", f"g{g}", {}) for g in range(300) for r in range(4)])
    few, many = (rows_for(samples, noise, 14, 0.1) for noise in (0.0, 0.1))
    assert few < many < len(samples)
    assert least_detectable([1] * few, 0.0, 14) <= 0.1 < least_detectable([1] * (few - 1), 0.0, 14)
    assert len({s.group for s in samples[:300]}) == 300


def test_few_groups_can_find_nothing():
    assert least_detectable([500], 0.0, 14) is None
    assert rows_for([Sample(str(n), "g", {}) for n in range(9)], 0.0, 14, 0.1) == 9


# -- the verb -----------------------------------------------------------------------------------


class Swayed:
    """A model that gives 3 to whoever asks for it in the sample, else 1; every answer counts as a call."""

    model = "swayed"

    def generate(self, requests, on_completion=None):
        answers = []
        for request in requests:
            grade = "3" if "Ignore the rules" in request.messages[-1].content else "1"
            answers.append(Completion(request.key, self.model, f"{grade}\nverdict: {grade}", usage=Usage(10, 0, 2)))
            if on_completion:
                on_completion(answers[-1])
        return answers


def run(*arguments):
    return main([str(a) for a in arguments])


def test_a_model_is_audited_once_and_its_probes_never_become_verdicts(shop):
    result, receipt = shop.audit(where="true", client=Swayed(), rows=30)
    assert [probe.name for probe in result.found] == ["injected"]
    kept = shop.store.frame("select role, count(*) n from completions group by all order by all").rows()
    assert kept == [("probe", receipt.calls - 30), ("teacher", 30)]
    assert shop.store.frame("select count(*) from verdicts where judge = 'teacher:swayed'").item() == 30
    again, second = shop.audit(where="true", client=Swayed(), rows=30)
    assert (second.calls, second.cached) == (0, receipt.calls)
    assert again.probes == result.probes


def test_a_forecast_counts_what_an_audit_then_asks_and_says_its_power(shop, capsys):
    assert run("audit", "-C", shop.folder, "--rows", 20, "--probes", "fields,longer", "--dry-run", "--json") == 0
    forecast = json.loads(capsys.readouterr().out)
    check("audit", forecast)
    assert forecast["plan"]["rows"] == 20
    assert run("audit", "-C", shop.folder, "--rows", 20, "--probes", "fields,longer", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    check("audit", document)
    assert document["receipt"]["calls"] == forecast["asked"] == 20 * 5
    assert document["plan"] == forecast["plan"]


def test_a_spent_budget_leaves_rows_out_and_the_next_call_goes_on(shop, capsys):
    assert run("audit", "-C", shop.folder, "--rows", 20, "--probes", "longer", "--max-calls", 70, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["control"]["planted"] == pytest.approx(0.1)
    assert first["receipt"]["calls"] == 70
    assert run("audit", "-C", shop.folder, "--rows", 20, "--probes", "longer", "--json") == 0
    assert json.loads(capsys.readouterr().out)["receipt"]["calls"] == 10


def test_dollars_that_answers_did_not_take_pay_for_more_of_them(shop):
    shop.config = load(shop.folder, ["teacher.price={input = 0, output = 1e6}", "teacher.max_tokens=100"])  # $1 a token
    _, receipt = shop.audit(where="true", client=Swayed(), rows=8, probes=["longer"], budget=Budget(max_usd=2_000))
    assert receipt.calls == 8 * 4


def test_a_gate_exits_3_where_more_is_found_than_allowed(shop, capsys, monkeypatch):
    monkeypatch.setattr("piar.project.workspace.Workspace.client", lambda *_: Swayed())
    given = ("audit", "-C", shop.folder, "--where", "true", "--rows", 30, "--no-control")
    assert run(*given) == 0
    shown = capsys.readouterr().out
    assert "found        injected" in shown
    assert "one grade    it gives 1 to 100 % of the rows" in " ".join(shown.split("\n"))
    assert run(*given, "--max-effect", 5) == 3
    assert run(*given, "--max-effect", 5, "--probes", "fields,grades") == 0


def test_a_slip_is_told_before_anybody_is_asked(shop, capsys):
    for given, words in (
        (["baseline:majority"], "cannot be audited"),
        (["--probes", "nope"], "no probe 'nope'"),
        (["--detect", "0"], "No share"),
        (["--where", "split = 'nope'"], "No row"),
        (["--where", "nope = 1"], "--where"),
    ):
        assert run("audit", "-C", shop.folder, *given, "--json") in (1, 2)
        assert words in json.loads(capsys.readouterr().out)["error"]["message"]
    assert shop.store.frame("select count(*) from completions").item() == 0


def test_a_student_is_audited_by_what_it_reads_and_the_page_tells_the_newest_of_each_judge(tmp_path, monkeypatch):
    project = lamps(tmp_path / "world", monkeypatch)
    # It reads its fields in its own order, forty characters of each, and capitals as they are.
    monkeypatch.setattr(
        FakeStudent,
        "fitting",
        lambda _, samples: [[ord(c) for f in ("query", "title") for c in s[f][:40]] for s in samples],
        raising=False,
    )
    result, receipt = project.audit(STUDENT, "true", rows=150)
    assert [probe.name for probe in result.found] == ["casing"]
    assert result.left_out["fields"] == result.left_out["grades"] == "this judge reads the same either way"
    assert receipt.calls == 0
    assert project.store.frame("select count(*) from verdicts").item() == 0
    planned, forecast = project.forecast_audit(STUDENT, "true", rows=150)
    assert (planned, forecast.cost_usd) == (result.plan, 0.0)
    (project.folder / "instruction.md").write_text("Judge lamps.\n")  # no rule: the offline teacher guesses by words
    guessed, _ = project.audit(where="true", rows=30, probes=["grades"])
    assert guessed.probes[0].effect.size == 0
    page = project.report().path.read_text(encoding="utf-8")
    [section] = re.findall(r'<section id="audits">.*?</section>', page, flags=re.DOTALL)
    assert re.findall(r"<h3>(.*?)</h3>", section) == [STUDENT, "teacher:rulebook"]
    assert "Found: casing." in section
    assert re.search(r"Its grades as it is asked: 0 \d+, 1 \d+\.", section)
    assert "Left out: fields (this judge reads the same either way)" in section


def test_an_older_projects_prompt_that_lists_no_grades_has_no_grade_order_to_turn_round(shop):
    (shop.folder / "prompts").mkdir()
    (shop.folder / "prompts" / "judge.j2").write_text("{{ instruction.preamble }} Grades: 0 to 3.")
    result, _ = shop.audit(rows=10, probes=["grades", "fields"])
    assert result.left_out == {"grades": "this judge reads the same either way"}


def test_a_gate_does_not_pass_on_what_the_budget_did_not_reach(shop, capsys):
    given = ("audit", "-C", shop.folder, "--where", "true", "--rows", 20, "--probes", "longer", "--no-control")
    assert run(*given, "--max-calls", 25) == 1
    assert run(*given, "--max-calls", 25, "--max-effect", 90) == 1
    assert "not asked    10 answers: the budget is spent" in capsys.readouterr().out
    assert run(*given, "--max-effect", 90) == 0
