"""First-token scoring through shared prefixes, grade symbols, checkpoints as plain folders."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from store.calibration import CARD, Calibration
from store.decision_rule import DecisionRule
from store.errors import PiarError, UsageError
from store.task import sample_text
from tests.precision import CLOSE
from tests.shards_fixture import RULES, TASK
from tests.tiny_model import make_tiny_model
from trainers.checkpoint import MARKER, StudentCard, check, keep_calibration, save
from trainers.loading import load_policy
from trainers.model import EVERY, Policy, beginnings, completion_ids, prompt_ids, symbol_ids
from trainers.scoring import Student, messages
from trainers.session import Session
from trainers.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.precision
TEXTS = [
    sample_text({"query": f"{c} lamp", "title": f"{c} chair number {i}"}) for i, c in enumerate(["red", "blue"] * 20)
]
RUBRIC = "Grade how well the title fits the query. R01: another kind of thing is bad."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = tiny_tokenizer([*TEXTS, RUBRIC], TASK.symbols, 400)
    card = StudentCard(task=TASK, prompt="rulebook", rubric=RUBRIC, rules=RULES)
    lm = tiny_model(len(tokenizer), hidden=64, layers=2)
    return save(tmp_path_factory.mktemp("student") / "final", lm, tokenizer, card)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@pytest.mark.exact
@given(st.lists(st.tuples(st.sampled_from(["red lamp", "red chair", ""]), words), min_size=1, max_size=12))
@settings(max_examples=10, deadline=None)
def test_scores_are_those_of_a_plain_forward_in_the_order_given(folder, pairs):
    student = Student.load(folder)
    samples = [{"query": q, "title": t} for q, t in pairs]
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for fields, scored in zip(samples, student.score(samples), strict=True):
        [ids] = prompt_ids(tokenizer, [messages(student.card, fields)])
        logits = lm(input_ids=torch.tensor([ids])).logits[0, -1]
        naive = logits[symbol_ids(tokenizer, TASK.symbols)].softmax(-1)
        assert scored.probs == pytest.approx(naive.tolist(), abs=1e-5)
        assert sum(scored.probs) == pytest.approx(1)
        assert scored.expected == pytest.approx(naive[1].item() + 2 * naive[2].item(), abs=1e-5)


def test_of_a_short_context_half_is_kept_for_the_trace(folder, tmp_path):
    short = shutil.copytree(folder, tmp_path / "short")
    (short / MARKER).unlink()
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 128}))
    student = Student.load(short)
    assert (student.most, student.trace_tokens) == (64, 63)
    samples = [{"query": "red lamp", "title": "a chair " * 100}]
    [scored] = student.score(samples, trace=True)
    assert scored.text.startswith(scored.grade)
    assert len(student.fitting(samples)[0]) <= 64


def test_batches_are_cut_and_joined(folder, monkeypatch):
    samples = [{"query": f"red lamp {i % 5}", "title": f"chair {i}"} for i in range(30)]
    whole = Student.load(folder).score(samples)
    monkeypatch.setattr("trainers.scoring.BATCH_TOKENS", 100)
    done = []
    parts = Student.load(folder).score(samples, on_progress=done.append)
    assert len(done) > 3
    assert sum(done) == 30
    assert [s.probs for s in parts] == [pytest.approx(s.probs, abs=CLOSE) for s in whole]


def test_a_trace_follows_the_grade_and_does_not_change_it(folder):
    samples = [{"query": "red lamp", "title": f"blue chair {i}"} for i in range(3)]
    plain, traced = Student.load(folder).score(samples), Student.load(folder).score(samples, trace=True)
    assert [s.grade for s in plain] == [s.grade for s in traced]
    assert all(s.text.startswith(s.grade) for s in traced)
    assert all(s.trace is not None for s in traced)


def test_a_missing_field_and_a_folder_without_student_are_explained(folder, tmp_path):
    with pytest.raises(PiarError, match="lacks the field 'title'"):
        Student.load(folder).score([{"query": "x"}])
    with pytest.raises(PiarError, match=r"no student\.json"):
        Student.load(tmp_path)


@pytest.mark.parametrize("harm", ["truncate", "remove"])
def test_a_harmed_checkpoint_is_refused(folder, tmp_path, harm):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "model.safetensors"
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PiarError, match=r"model\.safetensors is missing, truncated"):
        Student.load(copy)
    (copy / CARD).write_text("{}")
    with pytest.raises(PiarError, match="task: Field required"):
        Student.load(copy)


def test_the_folder_is_a_plain_hugging_face_folder(folder):
    assert {"config.json", "model.safetensors", "tokenizer.json", CARD, MARKER} <= {p.name for p in folder.iterdir()}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_words_can_be_grades_of_a_model_made_from_nothing():
    symbols = ("irrelevant", "exact", "部分")
    tokenizer = tiny_tokenizer(TEXTS, symbols, 400)
    ids = symbol_ids(tokenizer, symbols)
    assert [tokenizer.decode([i]) for i in ids] == list(symbols)
    assert completion_ids(tokenizer, ["exact\nevidence: "])[0][0] == ids[1]


def test_symbols_of_several_tokens_are_read_at_their_first_which_must_tell_them_apart():
    tokenizer = tiny_tokenizer(TEXTS, ("0", "1"), 400)
    assert [tokenizer.decode([i]) for i in symbol_ids(tokenizer, ("0", "10", "20"))] == ["0", "1", "2"]
    assert beginnings(tokenizer, ("0", "10", "20")) == {"10": "1", "20": "2"}
    with pytest.raises(UsageError, match=r"'1' and '10' begin with the same token for this model \('1'\)"):
        symbol_ids(tokenizer, ("1", "10"))


@pytest.mark.parametrize("window", [EVERY, 0])
def test_a_grade_of_several_tokens_is_written_once(tmp_path, window):
    names = {"0": "contradictory", "1": "incorrect", "2": "right"}
    grades = tuple(grade.model_copy(update={"symbol": names[grade.symbol]}) for grade in TASK.grades)
    task = TASK.model_copy(update={"grades": grades})
    policy, tokenizer = load_policy(str(make_tiny_model(tmp_path / "model", width=64, layers=1)))
    student = Student(Policy(policy.lm, window=window), tokenizer, StudentCard(task=task))
    [offline] = student.score([{"query": "red lamp", "title": "a lamp"}], trace=True)
    assert offline.grade in names.values()
    [whole] = completion_ids(tokenizer, [offline.grade])
    assert len(whole) > 2
    writes = iter(whole[1:])
    writing = Session(student).begin({"query": "red lamp", "title": "a lamp"})
    writing._model = SimpleNamespace(read=lambda rows: torch.eye(len(tokenizer))[[next(writes)]])
    said = [writing.text]
    while not writing.done:
        said.append(writing.step())
    assert "".join(said) == writing.text == offline.grade


def test_a_symbol_that_the_vocabulary_lacks_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "1": 1, "2": 2, "evidence": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    assert symbol_ids(tokenizer, ("1", "2")) == [1, 2]
    with pytest.raises(UsageError, match="'3' is not in this model's vocabulary"):
        symbol_ids(tokenizer, ("1", "3"))


def test_a_name_that_is_no_model_is_explained(tmp_path):
    with pytest.raises(PiarError, match="Cannot load"):
        load_policy(str(tmp_path))
    for path in (str(tmp_path / "missing"), "students/sft/finl", "./final"):
        with pytest.raises(PiarError, match="There is no folder"):  # without asking the hub
            load_policy(path)


def test_a_name_that_the_hub_does_not_give_is_asked_for_once(monkeypatch):
    asked = []

    def no_network(self, name, **how):
        asked.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    with pytest.raises(PiarError, match="the hub does not give it: Name or service not known"):
        load_policy("nope")
    assert asked == ["nope"]


def test_a_calibration_is_kept_in_the_folder_and_raw_probabilities_with_the_answer(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "final")
    (own / "notes").mkdir()
    (own / "notes" / "a.txt").write_text("kept")
    samples = [{"query": "red lamp", "title": f"blue chair {i}"} for i in range(4)]
    before = Student.load(own).score(samples)
    assert all(one.probs == one.raw for one in before)
    leans = Calibration(strategy="bias", temperature=2.0, bias=(9.0, 0.0, 0.0))
    weights = (own / "model.safetensors").stat().st_ino
    keep_calibration(own, leans)
    assert (own / "model.safetensors").stat().st_ino == weights  # not copied
    assert (own / "notes" / "a.txt").read_text() == "kept"
    check(own, hashes=True)
    student = Student.load(own)
    after = student.score(samples)
    assert [one.grade for one in after] == [TASK.symbols[0]] * 4
    assert [one.raw for one in after] == [one.probs for one in before]
    expected = leans.apply([one.raw for one in after])
    assert [one.probs for one in after] == [pytest.approx(row) for row in expected.tolist()]
    assert [one.expected for one in after] == pytest.approx(expected @ [g.value for g in TASK.grades])
    [warm] = Session(student).score(student.prompts(samples[:1]))
    assert warm.probs == pytest.approx(after[0].probs, abs=CLOSE)
    keep_calibration(own, None)
    assert [one.probs for one in Student.load(own).score(samples)] == [one.probs for one in before]


def test_a_decision_rule_in_the_card_decides_and_the_probabilities_stay(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "final")
    samples = [{"query": "red lamp", "title": f"blue chair {i}"} for i in range(4)]
    before = Student.load(own).score(samples)
    keep_calibration(own, None, DecisionRule(name="cumulative", threshold=1e-6))
    check(own, hashes=True)
    judge = Student.load(own)
    after = judge.score(samples)
    assert [one.probs for one in after] == [one.probs for one in before]
    assert [one.grade for one in after] == [TASK.symbols[0]] * 4 != [one.grade for one in before]
    warm = Session(judge)
    assert [one.grade for one in warm.score(judge.prompts(samples))] == [one.grade for one in after]
    keep_calibration(own, None)
    assert [one.grade for one in Student.load(own).score(samples)] == [one.grade for one in before]
