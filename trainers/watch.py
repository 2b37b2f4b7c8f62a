"""Collapse diagnostics: what reward curves hide. Reward rising while the long tail or the entropy falls is an alarm."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.task import Task
from trainers.data import Example

TAIL = 0.25  # share of rows, by rarest rule, that make up the long tail
LIMIT = 256  # rows measured
SMOOTH = 0.02  # added to gold so that KL(policy ‖ data) is finite

Floats = NDArray[np.float64]


def long_tail(examples: Sequence[Example]) -> list[Example]:
    """Rows whose reference rule (or, without one, grade) is rarest, about a quarter of all, at most `LIMIT`."""
    count = Counter(map(_rule, examples))
    ranked = sorted(examples, key=lambda e: (count[_rule(e)], e.row["sample_id"]))
    return ranked[: min(LIMIT, max(1, round(len(ranked) * TAIL)))] if ranked else []


def _rule(example: Example) -> str:
    rules = example.row.get("rules")
    return rules[0] if rules else f"grade {example.grade}"


@dataclass
class Watch:
    """Compares each measurement with the first."""

    examples: list[Example]  # the long-tail slice
    task: Task
    first: dict[str, float] = field(default_factory=dict)  # figures of the first measurement
    right: list[bool] = field(default_factory=list)  # rows that were right then
    told: list[str] = field(default_factory=list)  # figures that had fallen at the last measurement

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"first": self.first, "right": self.right, "told": self.told}

    def measure(self, probs: Floats, reward: float, cited: Sequence[str]) -> dict[str, float]:
        """Figures by name, `collapse_alarm` among them.

        Args:
            probs: [rows, K] of the slice; reward: mean over the last rollouts; cited: rules that they cited.
        """
        gold = np.array([e.grade for e in self.examples])
        hits = probs.argmax(1) == gold
        if not self.right:
            self.right = [bool(hit) for hit in hits]
        found = tail_figures(probs, gold, self.task.symbols)
        by_rule: dict[str, list[bool]] = defaultdict(list)
        for example, hit in zip(self.examples, hits, strict=True):
            by_rule[_rule(example)].append(bool(hit))
        kept = hits[np.array(self.right)]
        found |= {
            "tail/rule_recall": float(np.mean([np.mean(found) for found in by_rule.values()])),
            "tail/rules_lost": float(sum(not any(found) for found in by_rule.values())),
            "tail/retention": float(kept.mean()) if len(kept) else 1.0,
            "distinct_rules_cited": float(len(set(cited))),
            "reward": reward,
        }
        self.first = self.first or dict(found)
        return found | {"collapse_alarm": float(bool(self.collapsed(found)))}

    def collapsed(self, now: Mapping[str, float]) -> dict[str, str]:
        """What fell while the reward did not, with its figures then and now: tail recall by a fifth, retention below
        .7, or entropy to a fifth."""
        first = self.first
        if now["reward"] < first["reward"]:
            return {}
        of = "rules" if any(example.row.get("rules") for example in self.examples) else "grades"
        least = {
            "tail/rule_recall": (f"recall of the rarest {of}", 0.8 * first["tail/rule_recall"]),
            "tail/retention": ("share still right", 0.7),
            "tail/entropy": ("entropy of the grade", 0.2 * first["tail/entropy"]),
        }
        return {k: f"{what} {first[k]:.2f} → {now[k]:.2f}" for k, (what, limit) in least.items() if now[k] < limit}

    def news(self, now: Mapping[str, float]) -> dict[str, str]:
        """Of `collapsed` what was not told before; what has recovered may be told again."""
        fell = self.collapsed(now)
        new = {name: said for name, said in fell.items() if name not in self.told}
        self.told = list(fell)
        return new


def tail_figures(probs: Floats, gold: NDArray[np.int64], symbols: Sequence[str]) -> dict[str, float]:
    """Recall by grade, marginal KL, entropy, exact forward and reverse KL to the data, calibration error."""
    rows, k = probs.shape
    safe = probs.clip(1e-9)
    data = np.full((rows, k), SMOOTH / k)
    data[np.arange(rows), gold] += 1 - SMOOTH
    said, held = safe.mean(0), np.bincount(gold, minlength=k) / rows
    hits, sure = probs.argmax(1) == gold, probs.max(1)
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs(float((hits[bins == b] - sure[bins == b]).sum())) for b in range(10)]
    recall = {f"tail/recall/{symbols[g]}": float(hits[gold == g].mean()) for g in range(k) if (gold == g).any()}
    return recall | {
        "tail/marginal_kl": float((said * np.log(said / held.clip(1e-9))).sum()),
        "tail/entropy": float(-(safe * np.log(safe)).sum(1).mean()),
        "tail/kl_data_policy": float((data * np.log(data / safe)).sum(1).mean()),
        "tail/kl_policy_data": float((safe * np.log(safe / data)).sum(1).mean()),
        "tail/ece": sum(gaps) / rows,
    }
