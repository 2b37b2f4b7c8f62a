"""The dataset card: a README.md whose header tells `datasets` where the splits are."""

import glob
from pathlib import Path

import duckdb

from store.figures import many
from store.fragments import literal
from store.manifest import Manifest

CARD = "README.md"
_HEADER = """---
configs:
- config_name: default
  data_files:
{files}
---
"""


def write_card(con: duckdb.DuckDBPyConnection, folder: Path, manifest: Manifest) -> None:
    """Write README.md: header, what the rows are, and their distributions, read back from the shards."""
    splits = ["train", *sorted({s.name for s in manifest.shards if s.kind == "eval"})]
    patterns = [("train", "train/*.parquet"), *((s, f"eval/{s}-*.parquet") for s in splits[1:])]
    files = "\n".join(f"  - split: {split}\n    path: {pattern}" for split, pattern in patterns)
    shards = ", ".join(literal(glob.escape(str(folder / s.file))) for s in manifest.shards if s.kind == "train")
    trained = f"read_parquet([{shards}])"
    tables = [
        _table(con, "grade", f"select grade, count(*) from {trained} group by all order by 1"),
        _table(con, "bucket", f"select bucket, count(*) from {trained} group by all order by 1"),
        _table(con, "origin", f"select origin, count(*) from {trained} group by all order by 1"),
        _table(con, "anchor", f"select if(anchor, 'yes', 'no'), count(*) from {trained} group by all order by 1"),
        _table(
            con,
            "verified trace",
            f"select if(trace_verified, 'yes', 'no'), count(*) from {trained} group by all order by 1",
        ),
        _table(
            con,
            "rule",
            f"select rule, count(*) from (select unnest(rules) as rule from {trained}) "
            "group by all order by 2 desc, 1 limit 30",
        ),
    ]
    told = con.execute("select judge, count(*) as n from difficulty group by judge order by n desc, judge").fetchall()
    judges = " | ".join(f"{_cell(judge)} ({many(n, 'sample')})" for judge, n in told)
    world = "The rows come from a **simulated** world.\n\n" if manifest.simulated else ""
    total = sum(manifest.rows.values())
    text = (
        _HEADER.format(files=files) + f"\n# {_cell(manifest.task.name)}: {total:,} graded rows\n\n{world}"
        f"Each row holds a chat prompt ({manifest.prompt}) and a completion that starts with its grade "
        f"({', '.join(map(_cell, manifest.task.symbols))}), then a trace where one is known. "
        f"Instruction `{manifest.instruction}`. {f'Difficulty by: {judges}. ' if judges else ''}"
        "`manifest.json` names every file with its SHA-256, the schedule, and the SQL and settings that made it.\n\n"
        + "\n".join(tables)
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def _table(con: duckdb.DuckDBPyConnection, name: str, query: str) -> str:
    lines = [f"| {_cell(value)} | {n:,} |" for value, n in con.execute(query).fetchall()]
    return "\n".join([f"| {name} | rows |", "|---|---:|", *lines, ""])


def _cell(text: object) -> str:
    """Text from data inside Markdown: one line, no markup."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else " " if c.isspace() else c for c in str(text))
