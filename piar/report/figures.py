"""The figures of `piar report`, each with the query it came from."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from piar.evolve.ledger import taught_splits
from piar.measure.baselines import Embed, fit, names
from piar.measure.word_support import support
from piar.report.pair import Pair, paired
from store.db import Store, quote
from store.metrics import evaluate
from store.stats import Gain, paired_gain
from store.types import Instruction, Rule


def _tone(gain: Gain) -> str:
    return "good" if gain.above else "bad" if gain.below else "even"


def _gain(frame: pl.DataFrame, truth: str) -> dict[str, Any] | None:
    """Accuracy before and after against one column of truth, and the gain with its interval by group."""
    known = frame.filter(pl.col(truth).is_not_null())
    if known["group_key"].n_unique() < 2:
        return None
    before = (known["before"] == known[truth]).to_numpy()
    after = (known["after"] == known[truth]).to_numpy()
    gain = paired_gain(before, after, known["group_key"].to_numpy())
    return {
        "n": known.height,
        "groups": known["group_key"].n_unique(),
        "before": float(before.mean()),
        "after": float(after.mean()),
        "mean": gain.mean,
        "low": gain.low,
        "high": gain.high,
        "tone": _tone(gain),
    }


def _scale(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    ends = [0.0, *(r["mean"] if r[end] is None else r[end] for r in rows for end in ("low", "high"))]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin


_ROLES = {"dev": "drove the search: optimistic", "holdout": "decided promotion", "test": "untouched"}


def gains(store: Store, pair: Pair) -> dict[str, Any] | None:
    """Per split and truth: share right under each of two instructions, gain and interval."""
    frame, sql = paired(store, pair)
    if frame.is_empty():
        return None
    truths = {"truth": "gold" if _has_gold(store) else "the raters' majority"}
    if _has_gold(store) and frame["majority"].is_not_null().any():
        truths["majority"] = "the raters' majority"
    rows = []
    taught = taught_splits(store, pair.after.id) if pair.after else frozenset()
    for split, role in _ROLES.items():
        part = frame.filter(pl.col("split") == split)
        for column, name in truths.items():
            if (row := _gain(part, column)) is not None:
                told = "has taught it: flatters" if split in taught else role
                rows.append({"split": split, "role": told, "truth": name, "unseen": split not in taught, **row})
    if not rows:
        return None
    lead = (
        "Share of rows where the teacher's verdict equals the truth, under two instructions. Intervals are by group: "
        "rows of one group rise and fall together. Only test is free of selection."
    )
    return {
        "rows": rows,
        "scale": _scale(rows),
        "lead": lead,
        "source": sql,
        "names": pair.names,
    }


def beside_baselines(
    store: Store, teachers: Sequence[tuple[str, Instruction]], judge: str | None, embed: Embed | None = None
) -> list[dict[str, Any]]:
    """The teacher under each instruction, and plain baselines (learnt from train), on the same test rows; [] unless
    the teacher has judged them.

    Args:
        teachers: what the page calls an instruction, and the instruction; left out where test is not judged under it.
        judge: whose verdicts.
        embed: the encoder of `[baselines]`, which has baselines of its own.
    """
    fields = ", ".join(f"s.{quote(f)}" for f in store.task.fields)
    labelled = store.frame(
        f"select s.sample_id, s.group_key, s.split, t.grade as gold, {fields} "
        "from samples s join truth t using (sample_id) "
        "where s.split in ('train', 'test') and s.origin = 'import' order by s.sample_id"
    )
    train = labelled.filter(pl.col("split") == "train")
    test = labelled.filter(pl.col("split") == "test")
    if train["group_key"].n_unique() < 2 or test["group_key"].n_unique() < 2:
        return []
    rows = []
    for name, instruction in teachers:
        said = store.frame(
            "select sample_id, coalesce(grade, '(failed)') as said from verdict where judge = ? and instruction = ? "
            "and vote = 0",
            [judge, instruction.id],
        )
        known = test.join(said, on="sample_id", how="left", maintain_order="left")
        if known["said"].is_not_null().all():
            rows.append(_judged(f"teacher, instruction {name}", known, store))
    for name in names(store.task, embed) if rows else ():
        fitted = fit(name, train, store.task, groups=train["group_key"], embed=embed)
        best = fitted.predict(test).argmax(axis=1)
        symbols = pl.Series("said", [store.task.symbols[i] for i in best], dtype=pl.String)
        rows.append(_judged(f"baseline: {name}", test.with_columns(symbols), store))
    return rows


def _judged(name: str, test: pl.DataFrame, store: Store) -> dict[str, Any]:
    frame = test.select(group="group_key", gold="gold", predicted="said")
    scores = evaluate(frame, store.task)
    return {"name": name, "accuracy": scores.accuracy, "macro_f1": scores.macro_f1}


def _has_gold(store: Store) -> bool:
    return bool(store.frame("select count(*) from labels where source = 'gold'").item())


def confusions(store: Store, pair: Pair) -> dict[str, Any] | None:
    """Two matrices, truth by verdict, on test (or holdout when test is still closed)."""
    frame, sql = paired(store, pair)
    if frame.is_empty():
        return None
    split = "test" if (frame["split"] == "test").any() else "holdout"
    part = frame.filter((pl.col("split") == split) & pl.col("truth").is_not_null())
    if part.is_empty():
        return None
    matrices = [
        _matrix(part, column, store.task.symbols, title)
        for column, title in zip(("before", "after"), pair.names, strict=True)
    ]
    return {
        "lead": f"Rows of {split} by truth and verdict; colour is the share of each truth.",
        "matrices": matrices,
        "source": sql,
    }


def _matrix(frame: pl.DataFrame, column: str, symbols: Sequence[str], title: str) -> dict[str, Any]:
    counts = {(t, v): n for t, v, n in frame.group_by("truth", column).len().rows()}
    failed = any(v == "(failed)" for _, v in counts)
    columns = [*symbols, *(["(failed)"] if failed else [])]
    rows = []
    for truth in symbols:
        total = sum(counts.get((truth, v), 0) for v in columns) or 1
        cells = [
            {"n": counts.get((truth, v), 0), "share": counts.get((truth, v), 0) / total, "hit": v == truth}
            for v in columns
        ]
        rows.append({"grade": truth, "cells": cells})
    return {"title": title, "columns": columns, "rows": rows}


def slices(store: Store, pair: Pair) -> dict[str, Any] | None:
    """Gain per slice of the task and per true grade, on test (or holdout)."""
    frame, sql = paired(store, pair)
    if frame.is_empty():
        return None
    split = "test" if (frame["split"] == "test").any() else "holdout"
    part = frame.filter((pl.col("split") == split) & pl.col("truth").is_not_null())
    parts = {f"truth is {s}": part.filter(pl.col("truth") == s) for s in store.task.symbols}
    parts |= {name: part.filter(pl.col("slice: " + name)) for name in store.task.slices}
    rows = [{"name": name, **row} for name, p in parts.items() if (row := _gain(p, "truth")) is not None]
    if not rows:
        return None
    return {
        "rows": rows,
        "scale": _scale(rows),
        "source": sql,
        "lead": f"The same comparison on parts of {split}. Of many parts, one in twenty misses zero by chance.",
    }


def rules(store: Store, shown: Instruction | None, judge: str | None, start: Instruction | None) -> dict[str, Any]:
    """An instruction's rules with what each decided, and what each fixes and breaks.

    Args:
        shown: whose rules; None where there is no instruction yet.
        start: what its rules are compared with, to call them new or edited.
    """
    sql = """select v.rules[1] as rule, count(*) as cited, count_if(v.grade = t.grade) as agreed
from verdict v join truth t using (sample_id)
where v.vote = 0 and v.instruction = $1 and v.judge = $2 group by 1"""
    if shown is None:
        lead = "There is no instruction in the store yet."
        return {"id": "", "lead": lead, "preamble": "", "rows": [], "dropped": [], "source": sql}
    decided = {r: (n, right) for r, n, right in store.frame(sql, [shown.id, judge]).rows()}
    effects = attribution(store, shown.id)
    words = support(store, shown.rules)
    rows = [
        {
            "id": rule.id,
            "grade": rule.grade,
            "text": rule.text,
            "parts": rule.parts,
            "status": _status(start, shown, rule),
            "cited": decided.get(rule.id, (0, 0))[0],
            "right": decided.get(rule.id, (0, 0))[1],
            "words": [found.sentence() for found in words.get(rule.id, ())],
            "effect": effects.get(rule.id),
        }
        for rule in shown.rules
    ]
    kept = {r.id for r in shown.rules}
    lead = "Rules apply in order; the first that fits decides." + (
        _BARS.format(taught=_TAUGHT if taught_splits(store, shown.id) else "") if effects else ""
    )
    dropped = [{"id": r.id, "text": r.text} for r in (start.rules if start else ()) if r.id not in kept]
    return {"id": shown.id, "lead": lead, "preamble": shown.preamble, "rows": rows, "dropped": dropped, "source": sql}


_BARS = (
    " The bars compare the instruction with and without the rule, on the dev and holdout rows that cite it{taught}: "
    "green it makes right, red it makes wrong; the points are the gain on those rows with a 95 % interval by group."
)


_TAUGHT = ", many of which have taught it and flatter it"


def _status(start: Instruction | None, shown: Instruction, rule: Rule) -> str:
    if start is None or start.id == shown.id:
        return ""
    old = start.rule(rule.id)
    return "new" if old is None else "edited" if old != rule else ""


def attribution(store: Store, champion: str) -> dict[str, dict[str, Any]]:
    """Rule id -> what leaving it out changes, as the run that proposed the champion measured it."""
    sql = """select e.detail from run_events e join runs r using (run_id)
where r.verb = 'evolve' and e.status = 'done' and e.detail->>'champion' = ? order by e.created_at desc limit 1"""
    found = store.frame(sql, [champion])
    effects = {}
    for worth in json.loads(found.item()).get("attribution", []) if found.height else []:
        total = max(1, worth["fixes"] + worth["breaks"])
        effects[worth["rule"]] = {
            "fixes": worth["fixes"],
            "breaks": worth["breaks"],
            "fix_share": 100 * worth["fixes"] / total,
            "break_share": 100 * worth["breaks"] / total,
            "state": worth["state"],
            **(worth["gain"] or {"mean": None, "low": None, "high": None}),
        }
    return effects


def lineage(store: Store, current: Instruction | None) -> dict[str, Any]:
    """The tree of instructions with their accuracy on dev, and the decisions taken."""
    sql = """select i.instruction_id, i.parent, i.author, i.note, l.accuracy from instructions i
left join (select instruction, accuracy from leaderboard where split = 'dev' and starts_with(judge, 'teacher:')
           qualify row_number() over (partition by instruction order by n desc) = 1) l
  on l.instruction = i.instruction_id
order by i.created_at"""
    decisions = store.frame("select * from decisions order by created_at").rows(named=True)
    rows = store.frame(sql).rows(named=True)
    ids = {r["instruction_id"] for r in rows}
    children: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows:
        children.setdefault(row["parent"] if row["parent"] in ids else None, []).append(row)
    marks = {
        d["instruction"]: {"text": d["outcome"], "tone": "good" if d["outcome"] in ("proposed", "accepted") else "bad"}
        for d in decisions
        if d["kind"] in ("promotion", "acceptance", "rejection")
    }
    if current is not None:
        marks[current.id] = {"text": "in force", "tone": "good"}

    def node(row: dict[str, Any]) -> dict[str, Any]:
        pills = [marks[row["instruction_id"]]] if row["instruction_id"] in marks else []
        return {
            "id": row["instruction_id"],
            "author": row["author"],
            "note": row["note"],
            "accuracy": row["accuracy"],
            "pills": pills,
            "children": [node(c) for c in children.get(row["instruction_id"], [])],
        }

    shown = [
        {
            "at": f"{d['created_at']:%Y-%m-%d %H:%M}",
            "kind": d["kind"],
            "instruction": d["instruction"],
            "outcome": d["outcome"],
            "by": d["decided_by"],
            "reason": d["reason"],
        }
        for d in decisions
    ]
    return {
        "lead": "Each instruction stands under the one that it was revised from.",
        "roots": [node(r) for r in children.get(None, [])],
        "decisions": shown,
        "revisers": revisers(store),
        "source": sql,
    }


def revisers(store: Store) -> list[dict[str, Any]]:
    """How far the proposals of each reviser of the last search came; none for one of an earlier version."""
    sql = """select e.detail from run_events e join runs r using (run_id)
where r.verb = 'evolve' and e.status = 'done' order by e.created_at desc limit 1"""
    found = store.frame(sql)
    told = json.loads(found.item()).get("revisers", []) if found.height else []
    return [{**one, "why": ", ".join(f"{reason} ({n})" for reason, n in one["refused"].items()) or "–"} for one in told]


def splits(store: Store) -> dict[str, Any]:
    """Rows, groups and grades per split."""
    sql = "select s.split, t.grade, count(*) as n from samples s left join truth t using (sample_id) group by all"
    groups = dict(store.frame("select split, count(distinct group_key) from samples group by split").rows())
    counts = {(s, g): n for s, g, n in store.frame(sql).rows()}
    names = [s for s in ("train", "dev", "holdout", "test", "pool") if s in groups]
    rows = [
        {
            "split": s,
            "groups": groups[s],
            "n": sum(n for (x, _), n in counts.items() if x == s),
            "counts": [counts.get((s, g), 0) for g in store.task.symbols],
        }
        for s in names
    ]
    return {
        "rows": rows,
        "symbols": store.task.symbols,
        "n": sum(r["n"] for r in rows),
        "groups": sum(groups.values()),
        "source": sql,
        "lead": "Split by group: no group stands on two sides. Train is shown to the reviser, dev drives the search, "
        "holdout decides promotion, test stays closed until a report.",
    }


def cost(store: Store) -> dict[str, Any]:
    """Answers, tokens and dollars by role and model."""
    sql = """select role, model, sum(calls)::bigint as calls, sum(failures)::bigint as failures,
       sum(tokens_in)::bigint as tokens_in, sum(tokens_cached)::bigint as tokens_cached,
       sum(tokens_out)::bigint as tokens_out, sum(cost_usd) as cost_usd
from spend group by role, model order by role, model"""
    rows = store.frame(sql).rows(named=True)
    return {
        "rows": rows,
        "calls": sum(r["calls"] for r in rows),
        "usd": sum(r["cost_usd"] for r in rows),
        "source": sql,
        "lead": "Every answer is kept and none is paid for twice." if rows else "Nothing has been asked yet.",
    }


def runs(store: Store) -> list[dict[str, Any]]:
    """Every run with its resolved configuration."""
    sql = """select r.*, e.status from runs r
left join (select run_id, status from run_events where status in ('done', 'failed', 'interrupted')
           qualify row_number() over (partition by run_id order by created_at desc) = 1) e using (run_id)
order by r.started"""
    return [
        {**r, "config": json.dumps(json.loads(r["config"]), indent=2, ensure_ascii=False)}
        for r in store.frame(sql).rows(named=True)
    ]
