"""Rows of files into samples and labels: given ids and splits, each row counted, nothing entered twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import polars as pl

from store.cells import MISSING
from store.columns import asks
from store.db import Store, quote
from store.draw import draw
from store.prepare import ImportMapping, Rows, prepare
from store.readers import Reading, read, read_table, source_name
from store.splits import SplitSettings, assign, fill, near_duplicates, with_forms
from store.tables import Rejection, Table
from store.types import NOTHING_FURTHER, SPLITS

__all__ = [
    "MISSING",
    "ImportMapping",
    "ImportReport",
    "Reading",
    "Rejection",
    "import_files",
    "import_table",
    "read",
    "read_table",
]


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        read: rows that could be read.
        added: samples that are new.
        known: samples that the store had already.
        repeats: rows that repeat the (group, fields) of an earlier row: more votes on one sample.
        labels: labels that are new; `changed` of them correct an earlier one of the same annotator.
        changes: (earlier grade, grade) -> how many corrections; a grade that was taken back is None.
        conflicts: lines of the rows that give one sample different gold grades, by sample.
        cleaned: cells from which control characters were removed.
        ungraded: word for nothing, such as `N/A` -> how often it stood where a grade stands.
        rejected: rows left out, each with its line and reason.
        splits: all samples of the store by split, now that these rows are in.
        same_ids: ids of the owner that stand for more than one content, the group aside: an id may name a document
            that several queries found.
        near_duplicates: pairs of groups in different splits that differ in spelling only.
        given: split that the file names no rows of -> how many of its train groups went there.
    """

    read: int = 0
    added: int = 0
    known: int = 0
    repeats: int = 0
    labels: int = 0
    changed: int = 0
    changes: dict[tuple[str | None, str | None], int] = field(default_factory=dict)
    conflicts: list[tuple[int, ...]] = field(default_factory=list)
    cleaned: int = 0
    ungraded: dict[str, int] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    same_ids: list[str] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    given: dict[str, int] = field(default_factory=dict)


def import_files(
    store: Store,
    paths: Sequence[Path],
    mapping: ImportMapping,
    run_id: str,
    seed: int = 0,
    splits: SplitSettings | None = None,
    report: ImportReport | None = None,
) -> ImportReport:
    """Read files into the store; importing the same rows again adds nothing.

    Args:
        report: counts of earlier files, to go on from.

    Raises:
        UsageError: a column that the mapping or the task names is missing.
        PiarError: a file cannot be read at all.
    """
    report = report or ImportReport()
    for path in paths:
        import_table(store, read(path), mapping, source_name(path), run_id, seed, splits, report)
    return report


def import_table(
    store: Store,
    table: Table,
    mapping: ImportMapping,
    name: str,
    run_id: str,
    seed: int = 0,
    splits: SplitSettings | None = None,
    report: ImportReport | None = None,
    drawn: pl.DataFrame | None = None,
) -> ImportReport:
    """As `import_files`, for a file that has been read.

    Args:
        name: its source unless the mapping names one.
        drawn: the `query` of the groups that were drawn from a larger file and their `inclusion`, which new samples of
            theirs keep; see `store.draw`.
    """
    report = report or ImportReport()
    if mapping.sample:
        table = draw(table, mapping.sample, mapping.weight, seed)
    rows = prepare(table, store.task, mapping)
    with store.write() as con:
        load = _Load(con, store, rows, mapping.source or name, run_id)
        if load.is_first():
            filled, report.given = fill(rows.frame, splits or SplitSettings(), seed)
            load.rows = replace(rows, frame=filled)
        load.stage()
        load.deal(splits or SplitSettings(), seed)
        rejected = load.reject_misplaced()
        same_ids = load.same_ids()
        load.insert_samples(drawn)
        load.name_samples()
        load.insert_labels(report)
        load.move_from_pool()
        load.count(report)
    report.read += len(table.frame)
    report.same_ids += same_ids
    report.cleaned += rows.cleaned
    for word, n in rows.ungraded.items():
        report.ungraded[word] = report.ungraded.get(word, 0) + n
    report.rejected += sorted([*table.rejected, *rows.rejected, *rejected], key=lambda r: r.line)
    return report


class _Load:
    """One table on its way into the store, inside one transaction; works on temporary tables."""

    def __init__(self, con: duckdb.DuckDBPyConnection, store: Store, rows: Rows, source: str, run_id: str) -> None:
        self.con = con
        self.task = store.task
        self.rows = rows
        self.source = source
        self.run_id = run_id
        self.at = store.moment()
        self.groups = pl.DataFrame()

    def is_first(self) -> bool:
        """Whether the store has no split yet."""
        return not self._one("select count(*) from samples where split <> 'pool'")

    def stage(self) -> None:
        """`staged`: the rows with `sample_id`, `ordinal` (0 for the first row of a sample) and `known`."""
        fields = ", ".join(f"nfc_normalize(f{i})" for i in range(len(self.task.fields)))
        self._table(
            "hashed",  # as `store.ids.sample_id`
            f"""select *, sha256(concat_ws(chr(31), 'sample', nfc_normalize("group"), {fields}))[:32]::uuid as sample_id
            from incoming""",
            incoming=self.rows.frame,
        )
        self._table(
            "repeated",
            """select * from (
                select "row", row_number() over (partition by sample_id order by "row") - 1 as ordinal
                from hashed
                where sample_id in (select sample_id from hashed group by sample_id having count(*) > 1))
            where ordinal > 0""",
        )
        self._table("present", "select distinct sample_id from samples semi join hashed using (sample_id)")
        self.con.execute(
            """create or replace temp view staged as
            select h.*, coalesce(r.ordinal, 0) as ordinal, p.sample_id is not null as known
            from hashed h left join repeated r using ("row") left join present p on p.sample_id = h.sample_id"""
        )

    def deal(self, settings: SplitSettings, seed: int) -> None:
        """`dealt`: the split of each group that has one: held already, said by the file, or dealt now."""
        ours, theirs = self._query()
        held = self.con.sql(
            f"""select group_key as "group", max(split) as split, {_stands_for("group_key", theirs)} as text
            from samples where split <> 'pool' group by group_key order by group_key"""
        ).pl()
        fresh = self.con.sql(
            f"""select "group", avg(value) as value, count(value) as rows, count(inclusion) > 0 as chosen,
                {_stands_for('"group"', ours)} as text
            from staged where "group" not in (select group_key from samples where split <> 'pool')
            group by "group" """
        ).pl()
        said = self._said(fresh).join(fresh.select("group", "text"), on="group")
        known = with_forms(pl.concat([held, said]), "text")
        fresh = with_forms(fresh.filter(pl.col("rows") > 0).join(known, on="group", how="anti"), "text")
        chosen = fresh.filter("chosen").select("group", "form", split=pl.lit("train"))
        # A new group that differs in spelling only from one that has a split goes where that is.
        places = known.select("form", "split").unique("form", keep="first", maintain_order=True)
        alike = fresh.filter(~pl.col("chosen")).join(places, on="form").select("group", "form", "split")
        new = fresh.filter(~pl.col("chosen")).join(alike, on="group", how="anti")
        dealt = assign(new, settings, seed).join(new.select("group", "form"), on="group")
        self.groups = pl.concat([frame.select("group", "form", "split") for frame in (known, chosen, alike, dealt)])
        self._table("dealt", "select * from every", every=self.groups)

    def _query(self) -> tuple[str, str]:
        """The column of the query in `staged` and in `samples`, where the group is an id beside it; else two ""."""
        place = next((i for i, name in enumerate(self.task.fields) if asks(name)), None)
        if place is None or self.task.group_by in self.task.fields:
            return "", ""
        return f"f{place}", quote(self.task.fields[place])

    def _said(self, fresh: pl.DataFrame) -> pl.DataFrame:
        """The split that the file says for each new group: the one of most of its rows."""
        order = {split: i for i, split in enumerate(SPLITS)}
        return (
            self.rows.frame.filter(pl.col("split").is_not_null() & (pl.col("split") != "pool"))
            .join(fresh, on="group", how="semi")
            .group_by("group", "split")
            .len()
            .sort(pl.col("len"), -pl.col("split").replace_strict(order, return_dtype=pl.Int64), descending=True)
            .unique("group", keep="first", maintain_order=True)
            .select("group", "split")
        )

    def reject_misplaced(self) -> list[Rejection]:
        """Take out rows whose place would let a split leak into another."""
        self._table(
            "misplaced",
            """select "row", line, case
                when inclusion is not null and d.split in ('holdout', 'test')
                    then 'chosen by a queue, but its group ' || left("group", 60) || ' is in ' || d.split
                else 'said to be in ' || s.split || ', but its group ' || left("group", 60) || ' is in ' || d.split
                end as reason
            from staged s join dealt d using ("group")
            where (inclusion is not null and d.split in ('holdout', 'test'))
               or (s.split <> d.split and not (s.split = 'pool' and d.split = 'train')
                   and not (s.split = 'train' and (known or d.split in ('dev', 'holdout'))))
            order by "row" """,
        )
        self.con.execute('delete from hashed where "row" in (select "row" from misplaced)')
        found = self.con.execute("select line, reason from misplaced").fetchall()
        return [Rejection(line, f"{reason}: a group is never in two splits") for line, reason in found]

    def insert_samples(self, drawn: pl.DataFrame | None) -> None:
        """New samples. Unlabelled rows of a train group stay in the pool; those of a closed group stay with it."""
        names = "".join(f", {quote(name)}" for name in self.task.fields)
        fields = "".join(f", f{i}" for i in range(len(self.task.fields)))
        nothing = pl.DataFrame(schema={"query": pl.String, "inclusion": pl.Float64})
        chances = (nothing if drawn is None else drawn).select("query", "inclusion")
        self._table("drawn_groups", "from chances", chances=chances)
        self.con.execute(
            f"""insert into samples
                (sample_id, group_key, split, source, external_id, inclusion, run_id, created_at{names})
            select sample_id, "group", {_ROW_SPLIT}, ?, nullif(external, ''),
                   coalesce(s.inclusion, q.inclusion), ?, ?{fields}
            from staged s left join dealt d using ("group") left join drawn_groups q on q.query = s."group"
            where ordinal = 0 and not known""",
            [self.source, self.run_id, self.at],
        )

    def name_samples(self) -> None:
        """Give the owner's ids to samples that came without one."""
        if self.rows.frame["external"].null_count() < len(self.rows.frame):
            self.con.execute(
                """update samples set external_id = h.external from
                (select sample_id, min(external) as external from hashed where external <> '' group by 1) h
                where samples.sample_id = h.sample_id and samples.external_id is null"""
            )

    def insert_labels(self, report: ImportReport) -> None:
        """New labels of gold, raters and annotators, counted in the report."""
        self._table(
            "held",
            """select *, batch in (select batch from review_batches) as reviewed
            from label where sample_id in (from present)""",
        )
        columns = [("gold", "gold", "gold"), *((column, "human", name) for column, name in self.rows.raters.items())]
        for column in columns:
            self._insert_column(*column, report=report)
        if not self.rows.votes.is_empty():
            self._insert_votes(report)
        conflicts = self.con.execute(
            """select list("line" order by "line") from staged
            where sample_id in (select sample_id from label where source = 'gold' group by sample_id
                                having count(distinct grade) > 1)
            group by sample_id order by min("line")"""
        ).fetchall()
        report.conflicts += [tuple(lines) for (lines,) in conflicts]

    def _insert_column(self, column: str, kind: str, annotator: str, report: ImportReport) -> None:
        self._enter(
            f"""select sample_id, {column} as grade, ordinal, '' as comment, []::varchar[] as flags,
                       null::double as seconds, $at as created_at, '{kind}' as source, $annotator as annotator,
                       '{NOTHING_FURTHER}' as further, {_UNSAID}
            from staged where {column} is not null""",
            {"at": self.at, "annotator": annotator},
            report,
        )

    def _insert_votes(self, report: ImportReport) -> None:
        self._table("votes", "from incoming", incoming=self.rows.votes.with_row_index("nth"))
        if "batch" in self.rows.votes.columns:  # labels that piar exported
            self._enter(
                """select s.sample_id, v.grade, v.comment, v.flags, v.seconds, coalesce(v."at", $at) as created_at,
                          v.source, v.annotator, v.ordinal, v.rule, v.blind, v.further, v.batch as said
                from votes v join staged s using ("row")""",
                {"at": self.at},
                report,
            )
            return
        further = "v.further" if "further" in self.rows.votes.columns else f"'{NOTHING_FURTHER}'"
        self._enter(
            f"""select s.sample_id, v.grade, v.comment, v.flags, v.seconds, coalesce(v."at", $at) as created_at,
                      'human' as source, v.annotator,
                      row_number() over (partition by s.sample_id, v.annotator order by nth) - 1 as ordinal,
                      {further} as further, {_UNSAID}
            from votes v join staged s using ("row")""",
            {"at": self.at},
            report,
        )

    def _enter(self, entering: str, params: dict[str, object], report: ImportReport) -> None:
        """Keep the labels that say something new, beside what an annotator said before or in its place.

        A vote that another file gave already is not counted twice. One that differs corrects the earlier one: it takes
        its place (its batch), and is dated after it whatever the clocks say. Where a file has one gold grade for a
        sample, that corrects all that were there. What came back from a review stays beside. A label that says which it
        was (`said`, its batch) meets that one alone.
        """
        params["batch"] = self.source
        if not self._one("select count(*) from held"):
            report.labels += self._insert(f"select e.*, coalesce(said, $batch) as batch from ({entering}) e", params)
            return
        self._table(
            "entering",
            f"""select e.*, count(*) over (partition by e.sample_id, e.source, e.annotator) = 1 as alone,
                       h.label_id is not null as exact
            from ({entering}) e left join held h on {_SAME_LABEL}""",
            params={name: value for name, value in params.items() if name != "batch"},
        )
        self._table("met", f"select *, exists (from entering e where {_SAME_LABEL}) as claimed from held h")
        who = f"""h.sample_id = e.sample_id and h.source = e.source and h.annotator = e.annotator and if(e.exact,
            {_SAME_LABEL}, not h.claimed and (h.ordinal = e.ordinal or (e.alone and e.source = 'gold')))"""
        same = """h.grade is not distinct from e.grade and h.comment = e.comment and h.flags = e.flags and (
            not e.exact or (h.rule is not distinct from e.rule and h.blind is not distinct from e.blind
                            and h.further::varchar = e.further))"""
        self._table(
            "corrections",
            f"""select e.* replace (h.ordinal as ordinal, greatest(e.created_at, h.created_at + interval 1 microsecond)
                                    as created_at), h.batch, h.grade as before
            from entering e join met h on {who} where (e.exact or not h.reviewed) and not ({same})""",
        )
        report.labels += self._insert("from corrections", {})
        report.labels += self._insert(
            f"""select e.*, coalesce(said, $batch) as batch from entering e
            where not exists (from met h where {who} and (not h.reviewed or {same} or e.exact))""",
            {"batch": self.source},
        )
        report.changed += self._one("select count(*) from corrections")
        for before, after, n in self.con.execute(
            "select before, grade, count(*) from corrections where before is distinct from grade group by all"
        ).fetchall():
            report.changes[before, after] = report.changes.get((before, after), 0) + n

    def _insert(self, query: str, params: dict[str, object]) -> int:
        """Enter the labels of a query; returns how many."""
        return self._one(
            f"""insert into labels (label_id, sample_id, source, annotator, grade, ordinal, comment, flags, rule,
                                    seconds, blind, batch, origin, run_id, created_at, further)
            select md5(concat_ws(chr(31), 'label', sample_id, source, annotator, ordinal, batch,
                                 coalesce(grade, ''), comment, array_to_string(flags, ','), coalesce(rule, ''),
                                 nullif(further::varchar, '{NOTHING_FURTHER}')))::uuid,
                   sample_id, source, annotator, grade, ordinal, comment, flags, rule, seconds, blind,
                   batch, $origin, $run, created_at, further
            from ({query})""",
            {**params, "origin": self.source, "run": self.run_id},
        )

    def move_from_pool(self) -> None:
        """Samples that waited unlabelled follow their group once it has a split: see `insert_samples`."""
        self.con.execute(
            """update samples set split = d.split from dealt d
            where samples.split = 'pool' and samples.group_key = d."group" and (
                d.split <> 'train'
                or samples.sample_id in (select sample_id from staged where known and value is not null))"""
        )

    def count(self, report: ImportReport) -> None:
        """Add what this table did to the report."""
        added, known, repeats = self.con.execute(
            """select count(*) filter (ordinal = 0 and not known), count(*) filter (ordinal = 0 and known),
                      count(*) filter (ordinal > 0) from staged"""
        ).fetchall()[0]
        report.added += added
        report.known += known
        report.repeats += repeats
        report.splits = dict(self.con.execute("select split, count(*) from samples group by 1 order by 1").fetchall())
        report.near_duplicates += near_duplicates(self.groups).select("group", "other").rows()

    def same_ids(self) -> list[str]:
        """Ids of the owner that stand for more than one content, here or together with what the store has."""
        if self.rows.frame["external"].null_count() == len(self.rows.frame):
            return []
        own = [(i, name) for i, name in enumerate(self.task.fields) if name != self.task.group_by]
        if not own:
            own = list(enumerate(self.task.fields))
        ours = "[" + ", ".join(f"nfc_normalize(f{i})" for i, _ in own) + "]"
        held = "[" + ", ".join(f"s.{quote(name)}" for _, name in own) + "]"
        found = self.con.execute(
            f"""select external as id from hashed where external <> ''
            group by external having min({ours}) <> max({ours})
            union
            select h.external from hashed h join samples s on s.external_id = h.external
            where {held} <> {ours}
            order by id"""
        ).fetchall()
        return [str(row[0]) for row in found]

    def _table(self, name: str, query: str, params: dict[str, object] | None = None, **frames: pl.DataFrame) -> None:
        for frame_name, frame in frames.items():
            self.con.register(frame_name, frame.to_arrow())
        self.con.execute(f"create or replace temp table {name} as {query}", params or {})
        for frame_name in frames:
            self.con.unregister(frame_name)

    def _one(self, query: str, params: dict[str, object] | None = None) -> int:
        return int(self.con.execute(query, params or {}).fetchall()[0][0])


def _stands_for(group: str, query: str) -> str:
    """SQL of the text that a group is known by: its one query, where the group is an id beside it, else its name."""
    return f"if(min({query}) = max({query}) and min({query}) <> '', min({query}), {group})" if query else group


# The split of a row: its group's, but rows without a grade are not for learning from or measuring on.
_ROW_SPLIT = """case
    when d.split is null then 'pool'
    when d.split = 'train' and value is null and coalesce(s.split, 'pool') = 'pool' then 'pool'
    else d.split end"""

# What only labels that piar exported say.
_UNSAID = "null::varchar as rule, null::boolean as blind, null::varchar as said"
_SAME_LABEL = """(h.sample_id = e.sample_id and h.source = e.source and h.annotator = e.annotator
    and h.ordinal = e.ordinal and h.batch = e.said)"""
