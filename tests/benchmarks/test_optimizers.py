"""The comparison's own parts: worlds whose oracle is right, and an endpoint that reads every optimizer's format."""

import json
from pathlib import Path

import pytest

from benchmarks.optimizers import __main__ as command
from benchmarks.optimizers.arms import accuracy
from benchmarks.optimizers.drafter import Drafter
from benchmarks.optimizers.formats import read
from benchmarks.optimizers.table import grid, plot, table
from benchmarks.optimizers.texts import read_text, write_text
from benchmarks.optimizers.worlds import KINDS, TASK, make_world
from piar.instructions.prompts import judge_prefix
from piar.llm.base import Message, Request

TEXT = "Judge.\n\nThe first rule that fits decides.\n- R01 -> 2: Every word of the query appears in the title."
SHOWN = [("red lamp", "lamp zuzu", "0", "2"), ("red lamp", "zuzu red", "0", "2"), ("old desk", "zuzu desk", "0", "2")]


def answer(drafter, *messages, temperature=0.0):
    chat = tuple(Message(role, content) for role, content in messages)
    return drafter.generate([Request("k", chat, temperature=temperature)])[0].text


def dspy(objective, inputs, outputs):
    system = (
        f"Your output fields are:\n{outputs}All interactions.\n\nIn adhering, your objective is: \n        {objective}"
    )
    user = "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in inputs.items())
    return ("system", system), ("user", f"{user}Respond with the corresponding output fields.")


@pytest.mark.parametrize("kind", ["rules", "noisy", "harmful"])
def test_the_oracle_says_what_is_true_and_the_seed_does_not(kind):
    world = make_world(kind, 77_000)
    assert accuracy(write_text(world.oracle), world.fresh) > 0.99
    assert (accuracy(write_text(world.seed), world.fresh) < 0.8) == (kind != "harmful")
    wrong = sum(r.gold != r.true for r in world.rows) / len(world.rows)
    assert 0.02 < wrong < (0.35 if kind == "noisy" else 0.12)
    assert world == make_world(kind, 77_000)


def test_queries_of_a_null_world_share_what_no_text_tells():
    world = make_world("null", 77_000)
    best = max(accuracy(write_text(i), world.fresh) for i in (world.seed, world.oracle))
    assert best < 0.45
    assert {r.split for r in world.rows} == {"train", "dev", "holdout"}
    assert all(r.gold == r.true for r in world.rows)


def test_a_text_keeps_its_rules_and_advice_comes_first():
    instruction = read_text(TEXT + '\n\n- FIRST7 -> 0: The title contains "zuzu".')
    assert [(r.id, r.grade) for r in instruction.rules] == [("FIRST7", "0"), ("R01", "2")]
    assert read_text(write_text(instruction)).rules == instruction.rules


def test_judging_reads_plain_texts_and_dspys_signatures():
    drafter = Drafter(0)
    sample = {"query": "red lamp", "title": "red old lamp"}
    assert answer(drafter, ("system", TEXT), ("user", json.dumps(sample))).startswith("2\n")
    asked = dspy(TEXT.replace("\n", "\n        "), sample, "1. `grade` (Literal):\n")
    assert answer(drafter, *asked) == "[[ ## grade ## ]]\n2\n\n[[ ## completed ## ]]"
    drawn = {answer(drafter, *asked, temperature=1.0) for _ in range(60)}
    assert len(drawn) > 1  # above temperature 0 a grade is drawn


def test_a_reflection_in_fences_is_rewritten_from_its_examples():
    examples = "\n\n".join(
        f"# Example {i}\n## Inputs\n### query\n{q}\n\n### title\n{t}\n\n## Generated Outputs\n{said}\n\n"
        f"## Feedback\nThe right grade is {right}.\n"
        for i, (q, t, right, said) in enumerate(SHOWN, start=1)
    )
    prompt = (
        f"I provided an assistant with this:\n```\n{TEXT}\n```\n\nExamples:\n```\n{examples}\n```\n\nYour task is it."
    )
    asked = read((Message("user", prompt),))
    assert [(e.fields["query"], e.truth, e.verdict) for e in asked.evidence] == [(q, r, s) for q, _, r, s in SHOWN]
    text = answer(Drafter(0), ("user", prompt), temperature=1.0)
    assert text.startswith("```\nJudge.")
    assert text.endswith("```")
    rules = read_text(text.strip("`")).rules
    assert len(rules) == 2
    assert any(r.text == read_text(TEXT).rules[0].text for r in rules)


def test_a_rewrite_that_loses_every_rule_keeps_the_new_one():
    records = [{"Inputs": {"query": q, "title": t}, "Generated Outputs": {"grade": s},
                "Feedback": f"The right grade is {r}."} for q, t, r, s in SHOWN]  # fmt: skip
    inputs = {"current_instruction": TEXT, "examples_with_feedback": json.dumps(records)}
    asked = dspy("rewrite", inputs, "1. `new_instruction` (str):\n")
    kept, lost = (read_text(json.loads(_json_form(Drafter(0, drop=d), asked))["new_instruction"]).rules for d in (0, 1))
    assert len(kept) == 2
    assert len(lost) == 1


def _json_form(drafter, asked):
    (role, system), user = asked
    return answer(drafter, (role, "Outputs will be a JSON object\n" + system), user)


def test_every_draft_of_a_clueless_drafter_is_a_guess():
    request = {
        "task": "revise", "grades": [{"symbol": g} for g in "012"], "candidates": 2,
        "evidence": [{"fields": {"query": q, "title": t}, "truth": r, "verdict": s} for q, t, r, s in SHOWN],
    }  # fmt: skip
    found = json.loads(answer(Drafter(0, clueless=True), ("user", json.dumps(request))))["candidates"]
    assert all(c["note"] == "A guess from one example." for c in found)


def test_advice_from_one_contrast_names_a_word():
    inputs = {
        "modules_defn": "-" * 80 + f"\nModule self\n\tOriginal Instructions: {TEXT}\n" + "-" * 80,
        "program_inputs": json.dumps({"query": "red lamp", "title": "zuzu"}),
        "oracle_metadata": '{"grade": "0"}', "worse_program_outputs": '{"grade": "2"}',
    }  # fmt: skip
    said = answer(Drafter(0), *dspy("advise", inputs, "1. `discussion` (str):\n2. `module_advice` (dict):\n"))
    assert '-> 0: The title contains \\"zuzu\\".' in said


def test_the_table_counts_false_promotions_and_prints_losses():
    rows = [
        {"kind": kind, "world": w, "seed": 0, "arm": arm, "budget": 1000, "drop": 0.0, "seed_accuracy": 0.5,
         "accuracy": 0.5 + (0.2 if kind == "rules" and arm == "ours" else 0.3 if kind == "noisy" and arm == "gepa"
                            else 0.0),
         "oracle": 1.0, "changed": arm == "gepa", "calls": 1200 if arm == "gepa" else 990, "reviser_calls": 2,
         "tokens": 1000, "reached": {"0.5": 300 + w, "0.9": None if w else 700} if arm == "ours" else None}
        for kind in KINDS for w in range(3) for arm in ("gepa", "ours")
    ]  # fmt: skip
    written = table(rows)
    assert "| gepa | 3 of 3, +0.0 points | 3 of 3, +0.0 points |" in written
    assert "| ours | 0 of 3 | 0 of 3 |" in written
    assert "- gepa, noisy worlds: -30.0 points" in written
    assert "| gepa | 1200 | 1200 | 12 |" in written
    assert "| ours | 301 (6 of 6) | 700 (2 of 6) |" in written
    assert "12 worlds (3 rules, 3 noisy, 3 null, 3 harmful), 1 seeds, 24 runs; 1,000 teacher calls each" in written
    assert plot(rows).count("<circle") == 2
    assert "| gepa, 3 ×" not in written


def test_arms_with_cheaper_calls_are_compared_at_equal_tokens():
    used = {"ours": (1000, 200_000, 1), "gepa": (1000, 90_000, 1), "gepa, 3 ×": (3100, 270_000, 3),
            "ours, plain prompt": (1000, 150_000, 1), "ours, errors only": (1000, 210_000, 1)}  # fmt: skip
    rows = [
        {"kind": kind, "world": w, "seed": 0, "arm": arm, "budget": 1000, "seed_accuracy": 0.5, "times": times,
         "accuracy": 0.9 if arm == "ours" else 0.7, "changed": True, "calls": calls, "reviser_calls": 2,
         "tokens": tokens, "reached": None}
        for kind in KINDS for w in range(3) for arm, (calls, tokens, times) in used.items()
    ]  # fmt: skip
    gains, equal, *rest = table(rows).split("\n| arm ")[1:]
    assert "gepa, 3 ×" not in gains
    assert [line.split(" | ")[0] for line in equal.splitlines() if line[:3] in ("| o", "| g")] == [
        "| ours", "| gepa, 3 ×", "| ours, plain prompt",
    ]  # fmt: skip
    assert "| gepa, 3 × | 3100 | 270 | +20.0 | +20.0 | +20.0 | +20.0 |" in equal
    assert "| gepa, 3 × | 3100 | 3100 | 12 |" in rest[1]


def test_the_plain_prompt_is_the_text_that_peers_edit():
    instruction = make_world("rules", 77_000).oracle
    folder = Path(command.__file__).with_name("plain")
    assert judge_prefix(TASK, instruction, folder) == write_text(instruction)


def test_a_part_of_the_plan_is_fair_and_nothing_is_run_twice(tmp_path, monkeypatch):
    measured = []

    def measure(arm, world, budget, seed, drop):
        measured.append((world, seed, drop))
        return {"accuracy": 0.5}

    monkeypatch.setattr(command, "measure", measure)
    places = list(command.plan(8, 2, ["seed", "ours"], 1000))
    assert [{p["kind"] for p in part} for part in places[:4]] == [{kind} for kind in KINDS]
    assert [p["arm"] for p in places[0]] == ["seed", "ours"]
    file = tmp_path / "rows.jsonl"
    one, three = (command.run(file, iter(part), minutes, lambda *world: world) for part, minutes in
                  ((places, 0), (places[:3], 1)))  # fmt: skip
    assert len(one) == 2  # the first world is ended, none is begun
    assert len(three) == len(measured) == 6


def test_the_grid_sets_what_rewrites_lose():
    rows = [{**p, "seed_accuracy": 0.5, "accuracy": 0.9 - p["drop"]} for part in command.grid_plan(1000) for p in part]
    assert "| ours | +40.0 | +35.0 | +30.0 | +20.0 |" in grid(rows)
    world = command.grid_world("rules", 77_000)
    start, best = (accuracy(write_text(i), world.fresh) for i in (world.seed, world.oracle))
    assert len(world.seed.rules) == len(world.oracle.rules) - 2
    assert start < best
