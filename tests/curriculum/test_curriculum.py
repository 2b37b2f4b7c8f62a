"""Plan and export: what the rows hold, which rows are left out, and that only whole exports look whole."""

import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum import CurriculumSettings, export, picture, plan
from curriculum.candidates import equal_quota
from piar.instructions.prompts import judge_prefix
from store.db import Store
from store.errors import PiarError, UsageError
from store.manifest import COLUMNS, MANIFEST, read_manifest
from store.task import sample_text
from store.trace import parse_trace, write_trace
from store.types import Instruction
from tests import ROOT
from tests.random_store import INSTRUCTION, JUDGE, TASK, make, plant

SETTINGS = CurriculumSettings(rows_per_slice=600)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make(tmp_path_factory.mktemp("world") / "piar.duckdb", 2000)


@pytest.fixture
def fresh(tmp_path) -> Store:
    return make(tmp_path / "piar.duckdb", 300)


def rows(folder: Path, pattern: str = "train/*.parquet") -> pl.DataFrame:
    return pl.concat([pl.from_arrow(pq.read_table(file)) for file in sorted(folder.glob(pattern))])


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


# -- what the rows hold -------------------------------------------------------------------------


def test_rows_are_what_the_contract_says(world, tmp_path):
    manifest = export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    assert read_manifest(tmp_path / "out") == manifest
    frame = rows(tmp_path / "out")
    assert list(COLUMNS) == frame.columns
    assert manifest.rows == plan(world, SETTINGS, INSTRUCTION.id).rows
    assert sum(manifest.rows.values()) == len(frame) == frame["sample_id"].n_unique()
    splits = dict(world.frame("select sample_id, split from samples").iter_rows())
    assert {splits[i] for i in frame["sample_id"]} <= {"train", "pool"}
    assert {splits[i] for i in rows(tmp_path / "out", "eval/*.parquet")["sample_id"]} == {"dev"}
    for shard in manifest.shards:
        table = pq.read_table(tmp_path / "out" / shard.file)
        assert table.num_rows == shard.rows
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)


def test_prompt_and_completion_are_those_of_the_house(world, tmp_path):
    export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    traced = 0
    for row in rows(tmp_path / "out").iter_rows(named=True):
        fields = dict(zip(TASK.fields, row["fields"], strict=True))
        assert row["prompt"] == [{"role": "user", "content": sample_text(fields)}]
        text = row["completion"][0]["content"]
        if row["evidence"] is None:
            assert text == row["grade"]
            assert not row["trace_verified"]
            continue
        traced += 1
        trace = parse_trace(text, TASK, strict=True).trace
        assert trace is not None
        assert text == write_trace(trace, TASK)
        assert (trace.grade, trace.evidence, trace.rules) == (row["grade"], tuple(row["evidence"]), tuple(row["rules"]))
        assert list(trace.steps.values()) == row["steps"]
    assert traced > 500


def test_the_rulebook_prompt_carries_the_rubric_in_every_row_and_in_the_manifest(world, tmp_path):
    manifest = export(world, tmp_path / "out", INSTRUCTION, SETTINGS, prompt="rulebook")
    rubric = judge_prefix(TASK, INSTRUCTION)
    assert manifest.rubric == rubric
    for row in rows(tmp_path / "out").head(50).iter_rows(named=True):
        assert [m["role"] for m in row["prompt"]] == ["system", "user"]
        assert row["prompt"][0]["content"] == rubric


def test_grades_are_truth_where_there_is_truth_else_a_trusted_teachers(world, tmp_path):
    export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    frame = rows(tmp_path / "out").select("sample_id", "grade", "grade_probs", "weight")
    truth = world.frame("select sample_id, grade as truth from truth")
    verdicts = world.frame("select sample_id, grade as said, list_max(probs) as confidence from verdict")
    joined = frame.join(truth, on="sample_id", how="left").join(verdicts, on="sample_id")
    held = joined.filter(pl.col("truth").is_not_null())
    assert (held["grade"] == held["truth"]).all()
    told = joined.filter(pl.col("truth").is_null())
    assert len(told) > 10
    assert (told["grade"] == told["said"]).all()
    assert told["confidence"].min() >= SETTINGS.teacher_confidence
    assert (told["weight"] - told["confidence"]).abs().max() < 1e-6


def test_unchecked_suspects_stay_out_until_a_review_confirms_them(fresh):
    before = plan(fresh, SETTINGS, INSTRUCTION.id)
    assert before.rows["suspect"] == 0
    assert before.left_out["unchecked suspect"] > 0
    with fresh.write() as con:
        con.execute("insert into review_batches values ('batch-1', '{}', 'r', now()::timestamp)")
        con.execute(
            "insert into labels by name select uuid() as label_id, d.sample_id, 'human' as source, 'ann' as annotator, "
            "t.grade, 'batch-1' as batch, 'r' as run_id, now()::timestamp as created_at "
            "from difficulty d join truth t using (sample_id) join samples s using (sample_id) "
            "where bucket = 'suspect' and s.split = 'train' limit 3"
        )
    assert plan(fresh, SETTINGS, INSTRUCTION.id).rows["suspect"] == 3


def test_traces_count_as_verified_only_when_they_pass_the_strict_rules(fresh, tmp_path):
    with fresh.write() as con:
        ids = [r[0] for r in con.execute(
            "select sample_id from verdict v join truth t using (sample_id) join samples s using (sample_id) "
            "join difficulty d using (sample_id) where s.split = 'train' and v.grade = t.grade "
            "and d.bucket <> 'suspect' order by 1 limit 6").fetchall()]  # fmt: skip
        for sample, change in zip(ids, [
            "evidence = ['not in the sample']", "evidence = ['no']", "rules = ['R0', 'R1']", "rules = ['R99']",
            "trace_verdict = 'x'", "evidence = [upper(evidence[1])]"], strict=True):  # fmt: skip
            con.execute(f"update verdicts set {change} where sample_id = ?", [sample])
    export(fresh, tmp_path / "out", INSTRUCTION, SETTINGS)
    verified = dict(rows(tmp_path / "out").select("sample_id", "trace_verified").iter_rows())
    assert [verified[str(i)] for i in ids] == [False] * 5 + [True]
    assert sum(verified.values()) > len(verified) / 2


def test_the_anchor_takes_rare_rules_whole_and_common_ones_alike(world, tmp_path):
    export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    frame = rows(tmp_path / "out")
    share = frame["anchor"].mean()
    assert 0.15 < share < 0.25
    assert frame.filter("anchor")["trace_verified"].all()
    eligible = frame.filter(pl.col("trace_verified") & pl.col("evidence").is_not_null()).with_columns(
        rule=pl.col("rules").list.first()
    )
    by_rule = dict(eligible.group_by("rule").agg(pl.col("anchor").mean()).iter_rows())
    assert by_rule["R5"] > 1.3 * max(by_rule["R0"], by_rule["R2"])


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 1000), min_size=1), st.floats(0, 3000))
def test_equal_quotas_spend_the_budget_and_favour_the_rare(counts, budget):
    rates = equal_quota(counts, budget)
    spent = sum(counts[rule] * rate for rule, rate in rates.items())
    assert spent == pytest.approx(min(budget, sum(counts.values())), abs=1e-6)
    ordered = sorted(counts, key=lambda rule: counts[rule])
    assert all(rates[a] >= rates[b] - 1e-9 for a, b in pairwise(ordered))


# -- leaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "leaks"),
    [
        ("upper(title) || '!'", True),
        ("title || ' new'", True),
        ("replace(title, 'size', 'width')", True),
        ("split_part(title, ' ', 2) || ' ' || title", False),
        ("'something else entirely'", False),
    ],
)
def test_rows_that_repeat_a_closed_sample_but_for_a_word_are_left_out(fresh, tmp_path, title, leaks):
    like = fresh.frame("select sample_id from samples where split = 'test' order by 1 limit 1").item()
    settings = SETTINGS.model_copy(update={"leak_similarity": 0.75})
    before = plan(fresh, settings, INSTRUCTION.id).left_out.get("near a closed sample", 0)
    planted = plant(fresh, like, title=title if leaks else title + " || ' two more'")
    export(fresh, tmp_path / "out", INSTRUCTION, settings)
    after = plan(fresh, settings, INSTRUCTION.id).left_out.get("near a closed sample", 0)
    assert after - before == leaks
    assert (planted in rows(tmp_path / "out")["sample_id"].to_list()) != leaks


# -- same bytes -----------------------------------------------------------------------------------


def test_the_same_store_and_seed_give_the_same_bytes(world, tmp_path):
    settings = SETTINGS.model_copy(update={"formats": ("parquet", "jsonl"), "eval_splits": ("dev", "test")})
    export(world, tmp_path / "a", INSTRUCTION, settings)
    export(world, tmp_path / "b", INSTRUCTION, settings)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    other = settings.model_copy(update={"seed": 1})
    export(world, tmp_path / "b", INSTRUCTION, other)
    assert rows(tmp_path / "a")["anchor"].to_list() != rows(tmp_path / "b")["anchor"].to_list()
    lines = (tmp_path / "a/jsonl/train/mid-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["sample_id"] for line in lines] == pq.read_table(tmp_path / "a/train/mid-00000.parquet")[
        "sample_id"
    ].to_pylist()


CHILD = """
import sys
from pathlib import Path
from tests.random_store import INSTRUCTION, TASK
from curriculum import CurriculumSettings, export
from store.db import Store
print("go", flush=True)
export(Store.open(Path(sys.argv[1]), TASK), Path(sys.argv[2]), INSTRUCTION, CurriculumSettings(rows_per_slice=300))
"""


def child(store: Store, folder: Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(store.path), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                            **options)  # fmt: skip


@pytest.mark.integration
def test_twenty_interruptions_never_leave_something_that_looks_whole(world, tmp_path):
    settings = CurriculumSettings(rows_per_slice=300)
    began = time.monotonic()
    export(world, tmp_path / "expected", INSTRUCTION, settings)
    took = time.monotonic() - began
    rng, interrupted = random.Random(0), 0
    for how in [signal.SIGKILL, signal.SIGINT] * 10:
        process = child(world, tmp_path / "out")
        assert process.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0, took))
        process.send_signal(how)
        process.communicate()
        interrupted += process.returncode != 0
        if (tmp_path / "out" / MANIFEST).exists():
            read_manifest(tmp_path / "out")
    assert interrupted > 5
    export(world, tmp_path / "out", INSTRUCTION, settings)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "expected")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["expected", "out"]


def test_a_disk_that_fills_leaves_the_earlier_export_and_clear_words(world, tmp_path):
    out = tmp_path / 'an "out"'  # DuckDB escapes the quotes where it wraps an error in another
    before = child(world, out)
    assert before.communicate()[1] == ""
    kept = fingerprint(out)
    # No file may grow beyond 4 kB: the system call fails as it does on a full disk.
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))  # noqa: E731
    process = child(world, out, preexec_fn=limit)
    words = process.communicate()[1]
    assert process.returncode != 0
    assert "could not be written" in words
    assert "Make room on the disk" in words
    assert "exception_type" not in words
    assert fingerprint(out) == kept
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_altered_and_truncated_shards_are_refused_by_name_and_hash(world, tmp_path):
    manifest = export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    shard = manifest.shards[0]
    path = tmp_path / "out" / shard.file
    whole = path.read_bytes()
    for bad in (whole[:-7], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        path.write_bytes(bad)
        with pytest.raises(PiarError, match=f"{shard.file}.*{shard.sha256[:12]}"):
            read_manifest(tmp_path / "out")
    path.unlink()
    with pytest.raises(PiarError, match=f"{shard.file} is missing"):
        read_manifest(tmp_path / "out")


# -- bad input ------------------------------------------------------------------------------------


def test_a_folder_of_other_things_is_not_overwritten(world, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="no earlier export"):
        export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_nothing_to_learn_from_is_said_with_reasons(tmp_path):
    store = make(tmp_path / "piar.duckdb", 100)
    with store.write() as con:
        con.execute("delete from labels")
        con.execute("update verdicts set probs = null")
    with pytest.raises(PiarError, match=r"nothing to learn from: .* no trusted grade"):
        export(store, tmp_path / "out", INSTRUCTION, SETTINGS)
    assert not (tmp_path / "out").exists()


def test_one_grade_only_is_refused_in_words(fresh, tmp_path):
    with fresh.write() as con:
        con.execute("update labels set grade = '2'")
        con.execute("update verdicts set grade = '2'")
    with pytest.raises(PiarError, match=r"All .* training rows have grade 2"):
        export(fresh, tmp_path / "out", INSTRUCTION, SETTINGS)


def test_probabilities_that_are_none_are_not_exported(fresh, tmp_path):
    bad = ["[0.5, 0.5, 0.5, 0.5]", "['nan'::float, 0, 0, 1]", "[1]", "[-0.5, 0.5, 0.5, 0.5]"]
    with fresh.write() as con:
        for i, probs in enumerate(bad):
            con.execute(f"update verdicts set probs = {probs} where hash(sample_id) % 8 = {i}")
    export(fresh, tmp_path / "out", INSTRUCTION, SETTINGS)
    frame = rows(tmp_path / "out")
    assert frame["grade_probs"].null_count() > 20
    assert frame["grade_probs"].drop_nulls().list.sum().is_between(0.999, 1.001).all()


def test_without_a_teacher_or_difficulty_there_are_grades_alone_and_the_plan_says_so(tmp_path):
    store = make(tmp_path / "piar.duckdb", 200, difficulty=False)
    the_plan = plan(store, SETTINGS, Instruction("Another one.").id)
    assert the_plan.teacher == ""
    assert the_plan.unmined == the_plan.rows["mid"] == sum(the_plan.rows.values())
    assert the_plan.schedule.kind == "shuffled"  # no stages of what nobody can tell apart
    export(store, tmp_path / "out", Instruction("Another one."), SETTINGS)
    frame = rows(tmp_path / "out")
    assert frame["evidence"].null_count() == frame["grade_probs"].null_count() == len(frame)
    assert {c[0]["content"] for c in frame["completion"].to_list()} <= set(TASK.symbols)


def test_fields_may_have_the_names_of_our_own_columns(tmp_path):
    task = TASK.model_copy(update={"fields": ("rule", "bucket", "order"), "group_by": "rule"})
    store = Store.create(tmp_path / "piar.duckdb", task)
    with store.write() as con:
        con.execute(
            "insert into samples by name select uuid() as sample_id, 'g' as group_key, 'train' as split, '' as source, "
            "'r' as run_id, now()::timestamp as created_at, 'a \"b\" ' || i as rule, "
            "'''; drop' as bucket, '\\x' as \"order\" from range(40) r(i)"
        )
        con.execute(
            "insert into labels by name select uuid() as label_id, sample_id, 'gold' as source, 'o' as annotator, "
            "(hash(sample_id) % 4)::varchar as grade, 'r' as run_id, now()::timestamp as created_at from samples"
        )
    export(store, tmp_path / "out", INSTRUCTION, SETTINGS)
    row = rows(tmp_path / "out").row(0, named=True)
    assert json.loads(row["prompt"][0]["content"]) == dict(zip(task.fields, row["fields"], strict=True))
    assert row["fields"][1:] == ["'; drop", "\\x"]


def test_the_picture_shows_a_bar_for_each_bucket_that_has_rows(world):
    bars = dict(picture(plan(world, SETTINGS, INSTRUCTION.id), width=20))
    assert set(bars) == {"easy", "mid", "hard"}
    assert all(len(bar) == 20 for bar in bars.values())
    assert bars["hard"].startswith(" ")
    assert plan(world, SETTINGS, INSTRUCTION.id).teacher == JUDGE


# -- other tools ------------------------------------------------------------------------------------


@pytest.mark.peers
def test_datasets_loads_the_folder_as_it_is(world, tmp_path):
    import datasets

    manifest = export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == sum(manifest.rows.values())
    assert loaded["dev"].num_rows == sum(s.rows for s in manifest.shards if s.kind == "eval")
    assert loaded["train"][0]["completion"][0]["role"] == "assistant"


TRAIN_WITH_TRL = """
import sys
import datasets, tokenizers, torch, transformers, trl
folder, out = sys.argv[1:]
data = datasets.load_dataset(folder, cache_dir=out + "/cache")["train"]
text = [m["content"] for row in data.select(range(200)) for m in row["prompt"] + row["completion"]]
raw = tokenizers.Tokenizer(tokenizers.models.BPE())
raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
raw.decoder = tokenizers.decoders.ByteLevel()
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
raw.train_from_iterator(text, tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=special,
                        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=special[2], pad_token=special[0])
tokenizer.chat_template = ("{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor %}"
                           "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}")
model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(vocab_size=len(tokenizer), hidden_size=32,
    intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16))
config = trl.SFTConfig(output_dir=out, max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True,
                       bf16=False, max_length=256, logging_steps=1, save_strategy="no")
trainer = trl.SFTTrainer(model, args=config, train_dataset=data.select(range(64)), processing_class=tokenizer)
trainer.train()
print("losses", [h["loss"] for h in trainer.state.log_history if "loss" in h])
"""


@pytest.mark.peers
def test_trls_sft_trainer_takes_the_folder_as_it_is(world, tmp_path):
    export(world, tmp_path / "out", INSTRUCTION, SETTINGS)
    command = [sys.executable, "-c", TRAIN_WITH_TRL, str(tmp_path / "out"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "losses [" in done.stdout
