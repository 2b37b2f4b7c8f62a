"""Whether an encoder does where a language model is shipped: the cheaper one is named where no loss is told."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from piar.measure.score import compare
from store.calibrated import student_folder
from store.calibration import CARD
from store.db import Store

ENCODERS = ("baseline:cosine", "baseline:probe")
RULES = "teacher:rulebook"  # no model at all


def cheaper(store: Store, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence with both figures where the best encoder is as good on test as the best language model; else None.

    As good: the interval by group of what it gains reaches zero. Without an interval nothing is advised.

    Args:
        rows: judges measured on test: `judge`, `name`, `scores`, and `size` in megabytes or None.
    """
    encoders = [row for row in rows if _encodes(store, row["name"])]
    models = [row for row in rows if row not in encoders and row["name"].startswith(("student:", "teacher:"))]
    models = [row for row in models if row["name"] != RULES]
    if not encoders or not models:
        return None
    small, large = (max(some, key=lambda row: row["scores"].accuracy.value) for some in (encoders, models))
    gain = compare(store, small["judge"], large["judge"], "test").gain
    heavier = small["size"] is not None and large["size"] is not None and small["size"] >= large["size"]
    if gain.low is None or gain.high is None or gain.high < 0 or heavier:
        return None
    told = "better" if gain.low > 0 else "as good, as far as these rows tell"
    return (
        f"{small['name']}, an encoder, is {told}: {_share(small)} against {_share(large)} of {large['name']} on test, "
        f"{100 * gain.mean:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}){_sizes(small, large)}. "
        "It is the cheaper one to serve; a language model is worth its price where somebody reads its reasons."
    )


def _encodes(store: Store, name: str) -> bool:
    kind, _, path = name.partition(":")
    if kind != "student":
        return name in ENCODERS
    try:
        card = json.loads((student_folder(store, path) / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # its verdicts outlive the student
        return False
    return isinstance(card, dict) and card.get("kind") == "encoder"


def _share(row: Mapping[str, Any]) -> str:
    return f"{100 * row['scores'].accuracy.value:.1f} %"


def _sizes(small: Mapping[str, Any], large: Mapping[str, Any]) -> str:
    known = small["size"] is not None and large["size"] is not None
    return f", {small['size']:,.0f} MB of weights against {large['size']:,.0f}" if known else ""
