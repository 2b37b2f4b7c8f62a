"""From shards to examples, and the order in which training meets them.

The curriculum is a plan: the row of every draw of the whole run, made at the start from the manifest's
schedule and the seed. Resuming is a position in the plan, and the shuffled baseline is the same plan in
random order. Left out: streaming; shards are read whole (30 bytes a token).
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from store.errors import PiarError
from store.ids import seed_of, short_hash
from store.manifest import MANIFEST, Manifest, file_sha256, mixture_at, read_manifest
from store.task import Task
from store.types import BUCKETS
from trainers.config import Completion, Order
from trainers.layout import Item, Tokens
from trainers.model import completion_ids, prompt_ids

READ = (
    "sample_id",
    "group",
    "fields",
    "prompt",
    "completion",
    "grade",
    "grade_probs",
    "evidence",
    "steps",
    "rules",
    "trace_verified",
    "bucket",
    "anchor",
    "weight",
)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a shard, in tokens."""

    prompt: Tokens
    completion: Tokens  # its first is the grade, its last the end of turn
    grade: int  # position of the gold grade in the task's order
    probs: tuple[float, ...] | None  # the teacher's distribution over grades
    weight: float
    group: str
    row: dict[str, Any]  # the reference trace and what else rewards look at, by column

    @property
    def item(self) -> Item:
        """Prompt and completion as a branch of a tree."""
        return Item(self.prompt, [self.completion])


@dataclass(frozen=True)
class Corpus:
    """What a shard folder holds for a trainer."""

    manifest: Manifest
    digest: str  # of the manifest
    train: list[Example]  # in the order of the shards
    buckets: dict[str, NDArray[np.int64]]  # bucket -> positions in `train`
    evaluation: dict[str, list[Example]]  # split -> rows to measure on
    left_out: dict[str, int]  # reason -> rows that cannot be used

    @property
    def anchors(self) -> list[Example]:
        """The rule-stratified replay; all verified rows where the export marked none."""
        marked = [e for e in self.train if e.row["anchor"]]
        return marked or [e for e in self.train if e.row["trace_verified"]] or self.train


def read_rows(folder: Path, manifest: Manifest, kind: Literal["train", "eval"]) -> dict[str, list[dict[str, Any]]]:
    """Rows of all shards of a kind, by bucket or split."""
    found: dict[str, list[dict[str, Any]]] = {}
    for shard in manifest.shards:
        if shard.kind == kind:
            found.setdefault(shard.name, []).extend(pq.read_table(folder / shard.file, columns=list(READ)).to_pylist())
    return found


def texts(folder: Path) -> list[str]:
    """All training texts, for a tokenizer of one's own."""
    manifest = read_manifest(folder)
    rows = [row for part in read_rows(folder, manifest, "train").values() for row in part]
    said = [message["content"] for row in rows for message in (*row["prompt"][-1:], *row["completion"])]
    return [*said, manifest.rubric]


def read_corpus(folder: Path, tokenizer: Any, *, max_length: int, completion: Completion = "trace") -> Corpus:
    """Read and tokenize a shard folder.

    Args:
        max_length: tokens of prompt and completion together.
        completion: `grade` keeps the grade symbol alone of every completion.

    Raises:
        PiarError: shards missing or altered, or no usable training row.
    """
    manifest = read_manifest(folder)
    left_out: Counter[str] = Counter()
    encode = partial(
        _examples,
        tokenizer=tokenizer,
        max_length=max_length,
        grade_only=completion == "grade",
        task=manifest.task,
        left_out=left_out,
    )
    train: list[Example] = []
    buckets: dict[str, NDArray[np.int64]] = {}
    for bucket, rows in read_rows(folder, manifest, "train").items():
        found = encode(rows)
        buckets[bucket] = np.arange(len(train), len(train) + len(found))
        train += found
    if not train:
        why = "; ".join(f"{n} {reason}" for reason, n in left_out.items()) or "the shards are empty"
        raise PiarError(
            f"No training row can be used: {why}.",
            "Raise max_length, export a shorter rulebook, or use a model with a longer context.",
        )
    evaluation = {split: encode(rows) for split, rows in read_rows(folder, manifest, "eval").items()}
    return Corpus(manifest, file_sha256(folder / MANIFEST), train, buckets, evaluation, dict(left_out))


def _examples(
    rows: Sequence[dict[str, Any]],
    *,
    tokenizer: Any,
    max_length: int,
    grade_only: bool,
    task: Task,
    left_out: Counter[str],
) -> list[Example]:
    answers = [row["grade"] if grade_only else row["completion"][0]["content"] for row in rows]
    prompts, completions = prompt_ids(tokenizer, [row["prompt"] for row in rows]), completion_ids(tokenizer, answers)
    found = []
    for row, answer, prompt, completion in zip(rows, answers, prompts, completions, strict=True):
        if row["grade"] not in task.symbols or answer.split("\n")[0] != row["grade"]:
            left_out["grade unknown, or not the answer's first line"] += 1
        elif len(prompt) + len(completion) > max_length:
            left_out[f"longer than {max_length} tokens"] += 1
        else:
            probs = None if row["grade_probs"] is None else tuple(row["grade_probs"])
            weight = 1.0 if row["weight"] is None else row["weight"]
            found.append(Example(prompt, completion, task.index(row["grade"]), probs, weight, row["group"], row))
    return found


class Sampler:
    """Draws rows as the manifest's schedule says.

    At every draw the bucket that is furthest behind the schedule is next; within a bucket, rows come
    in random order and none twice before all came once. Draws are counted over the whole run, so an
    epoch has no boundary to lose rows at.

    Args:
        total: draws of the whole run; the schedule's progress is draw / total.
    """

    def __init__(self, corpus: Corpus, total: int, *, seed: int, order: Order = "curriculum") -> None:
        self.examples = corpus.train
        self.plan = _plan(corpus, total, seed)
        if order == "shuffled" or corpus.manifest.schedule.kind == "shuffled":
            random.Random(seed_of(seed, "shuffled")).shuffle(self.plan)
        self.position = 0

    def draw(self, n: int) -> list[Example]:
        """The next `n` examples (fewer at the very end)."""
        rows = self.plan[self.position : self.position + n]
        self.position += len(rows)
        return [self.examples[row] for row in rows]

    def state_dict(self) -> dict[str, Any]:
        """Where the run is, and a hash of the plan that it follows."""
        return {"position": self.position, "plan": short_hash(self.plan)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position.

        Raises:
            PiarError: the plan differs (other data, schedule, seed, steps or batch size).
        """
        if state["plan"] != short_hash(self.plan):
            raise PiarError(
                "The run to resume drew its rows in another order: data, schedule, seed, steps or batch size changed.",
                "Resume with the settings it started with, or start anew.",
            )
        self.position = state["position"]


def _plan(corpus: Corpus, total: int, seed: int) -> list[int]:
    sizes: dict[str, int] = {b: len(corpus.buckets[b]) for b in BUCKETS if len(corpus.buckets.get(b, ()))}
    owed, drawn = dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes, 0)
    orders: dict[str, NDArray[np.int64]] = {}
    plan: list[int] = []
    for draw in range(total):
        if draw % max(1, total // 2000) == 0:
            shares = mixture_at(corpus.manifest.schedule, draw / total, sizes)
        for bucket, share in shares.items():
            owed[bucket] += share
        bucket = max(sizes, key=lambda b: owed[b] - drawn[b])
        turn, place = divmod(drawn[bucket], sizes[bucket])
        if place == 0:
            rng = np.random.default_rng(seed_of(seed, bucket, turn))
            orders[bucket] = rng.permutation(corpus.buckets[bucket])
        plan.append(int(orders[bucket][place]))
        drawn[bucket] += 1
    return plan


def micro_batches(items: Sequence[Item], budget: int, window: int) -> list[list[int]]:
    """Indices of items in groups of about `budget` tokens, common prefixes side by side and counted once.

    Items deeper than `window` share nothing (see `Policy`): they form groups of their own, alike in length.
    """
    long = [item.depth if item.depth > window else 0 for item in items]
    groups: list[list[int]] = []
    size = 0
    previous: Tokens = ()
    for i in sorted(range(len(items)), key=lambda j: (long[j], list(items[j].prompt))):
        own = sum(map(len, items[i].completions))
        common = 0 if long[i] else common_prefix(previous, items[i].prompt)
        apart = bool(groups) and bool(long[i]) != bool(long[groups[-1][-1]])
        if not groups or apart or size + len(items[i].prompt) - common + own > budget:
            groups.append([])
            size, common = 0, 0
        groups[-1].append(i)
        size += len(items[i].prompt) - common + own
        previous = items[i].prompt
    return groups


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Length of the longest common prefix."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
