"""Which sample a line of a run means: its query and its document found among the columns of the store's samples.

A run names queries and documents by ids or by texts. Of the columns that may hold them (the group, the owner's id, the
task's fields) those are taken that know most of the run's names, unless the user names them. Chosen by us: where no
name is known to the letter, case, blanks and a `.0` behind a number are overlooked, if that makes no two names one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from piar.rankings.runs import Ranking
from store.db import Store, quote
from store.errors import PiarError, UsageError

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Matched:
    """Rankings and samples by the same names.

    Attributes:
        rankings: with the names of the samples.
        samples: `sample_id`, `query`, `document`, `unit` (the sample's group), one row a pair.
        queries: `said` (the runs' name of a query) and `query` (the samples').
        notes: by which columns, and what was overlooked.
    """

    rankings: tuple[Ranking, ...]
    samples: pl.DataFrame
    queries: pl.DataFrame
    notes: tuple[str, ...]


def match(
    store: Store,
    rankings: Sequence[Ranking],
    query: str | None = None,
    document: str | None = None,
    where: str = "true",
    tables: Mapping[str, pl.DataFrame] = MappingProxyType({}),
) -> Matched:
    """Bring rankings and samples together.

    Args:
        query, document: columns of `samples`: `group_key`, `external_id` or a field; the best one when None.
        where: trusted SQL over `samples`.
        tables: `query`, `document` -> a table with the runs' names in one column and what they stand for in others.

    Raises:
        UsageError: no such column.
        PiarError: no query, or no document, of one of the runs is known.
    """
    named = {"group_key": "group_key", "external_id": "external_id"} | {name: name for name in store.task.fields}
    for option, column in (("--query", query), ("--doc", document)):
        if column is not None and column not in named:
            raise UsageError(f"{option} {column!r} is no column of the samples.", f"Choose one of {', '.join(named)}.")
    columns = ", ".join(quote(name) for name in named)
    samples = store.frame(f"select sample_id, {columns} from samples where {where} order by sample_id")
    if samples.is_empty():
        raise PiarError("The store has no sample there.", "Import the judged pairs: `piar import FILE`.")
    texts = [name for name in store.task.fields if name != store.task.group_by]
    asked = {
        "query": [query] if query else ["group_key", *texts],
        "document": [document] if document else ["external_id", *texts],
    }
    found, notes, rows = dict[str, str](), list[str](), [ranking.rows for ranking in rankings]
    turned: dict[str, pl.DataFrame] = {}
    for role, candidates in asked.items():
        names = pl.concat([part.select(role) for part in rows]).unique(maintain_order=True).to_series()
        column, turned[role], said = _found(role, samples, candidates, names, tables.get(role))
        for ranking, part in zip(rankings, rows, strict=True):  # it could only lose, whatever it ranks
            if not part[role].is_in(turned[role]["said"].implode()).any():
                raise _strangers(role, part[role].unique(), samples, candidates, f"run {ranking.name}")
        rows = [_renamed(part, role, turned[role]) for part in rows]
        found[role] = column
        notes += said
    pairs = samples.select("sample_id", *(pl.col(c).alias(role) for role, c in found.items()), unit="group_key")
    pairs = pairs.filter(pl.col("document").is_not_null())
    pairs = pairs.unique(["query", "document"], keep="first", maintain_order=True)
    placed = tuple(Ranking(r.name, part, r.notes) for r, part in zip(rankings, rows, strict=True))
    return Matched(placed, pairs, turned["query"].rename({"known": "query"}), tuple(notes))


def _renamed(rows: pl.DataFrame, role: str, turned: pl.DataFrame) -> pl.DataFrame:
    """The rows with the samples' names; a name that stands for one that is there already keeps its best place."""
    joined = rows.join(turned.rename({"said": role}), on=role, how="left", maintain_order="left")
    named = joined.with_columns(pl.coalesce("known", role).alias(role)).drop("known")
    return named.unique(["query", "document"], keep="first", maintain_order=True)


def _found(
    role: str, samples: pl.DataFrame, candidates: Sequence[str], names: pl.Series, table: pl.DataFrame | None
) -> tuple[str, pl.DataFrame, list[str]]:
    """The samples' column, the names of the runs with the samples' own (`said`, `known`), and what to tell of it."""
    column, turned, note = _best(samples, candidates, names)
    if turned.is_empty() and table is not None:
        key = max(table.columns, key=lambda name: int(names.is_in(table[name].unique().implode()).sum()))
        stands = table.filter(pl.col(key).is_in(names.implode())).unique(key, keep="first", maintain_order=True)
        for other in [name for name in table.columns if name != key]:
            found, through, said = _best(samples, candidates, stands[other].unique(maintain_order=True))
            joined = stands.select(said=key, name=other).join(through.rename({"said": "name"}), on="name")
            if len(joined) > len(turned):
                column, turned = found, joined.select("said", "known")
                note = f"through {other!r} of the table{said and f'; {said}'}"
    if turned.is_empty():
        raise _strangers(role, names, samples, candidates)
    told = f"{'queries' if role == 'query' else 'documents'} by {_called(column)}"
    known = f"{told}: {len(turned):,} of {len(names):,} are known"
    return column, turned, [f"{known}; {note}" if note else known]


def _called(column: str) -> str:
    return {"group_key": "the group", "external_id": "your ids"}.get(column, column)


def _best(samples: pl.DataFrame, candidates: Sequence[str], names: pl.Series) -> tuple[str, pl.DataFrame, str]:
    """The column that knows most of the names, the names with those that it has, and what had to be overlooked."""
    held = {column: samples[column].drop_nulls().unique(maintain_order=True) for column in candidates}
    known = {column: names.filter(names.is_in(values.implode())) for column, values in held.items()}
    best = max(candidates, key=lambda column: len(known[column]))
    if len(known[best]):
        return best, pl.DataFrame({"said": known[best], "known": known[best]}), ""
    for column, values in held.items():
        forms = pl.DataFrame({"known": values, "form": _plain(values)})
        ours = pl.DataFrame({"said": names, "form": _plain(names)})
        turned = ours.join(forms, on="form", maintain_order="left").select("said", "known")
        if len(turned) and forms["form"].n_unique() == len(forms) and ours["form"].n_unique() == len(ours):
            return column, turned, "case, blanks and a .0 behind numbers are overlooked"
    return best, pl.DataFrame(schema={"said": pl.String, "known": pl.String}), ""


def _plain(names: pl.Series) -> pl.Series:
    words = names.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return words.str.replace(r"^(-?\d+)\.0+$", "$1")


def _strangers(
    role: str, names: pl.Series, samples: pl.DataFrame, candidates: Sequence[str], whose: str = "runs"
) -> PiarError:
    """No name is known: show both sides, and what may be done."""
    theirs = ", ".join(repr(name[:40]) for name in names.sort().head(_SHOWN))
    ours = "; ".join(
        f"{_called(c)}: {', '.join(repr(v[:40]) for v in values.head(_SHOWN))}"
        for c in candidates
        if len(values := samples[c].drop_nulls().unique().sort())
    )
    table = "queries" if role == "query" else "documents"
    return PiarError(
        f"No {role} of the {whose} is one of the samples. There are {theirs}; the samples have {ours or 'none'}.",
        f"If the runs have ids and the samples texts, join them: --{table} FILE with a column of these ids and one of "
        f"the texts. If another column holds them, name it: --{'query' if role == 'query' else 'doc'} COLUMN. "
        "Ids come in with "
        "`piar import FILE --id COLUMN`.",
    )
