"""A store full of random rows, made in SQL so that ten rows and ten million cost one statement each.

Samples are products under queries; a teacher judges each with probabilities and a trace that quotes
the title; truth is known for a share of them. Nothing here means anything: for behaviour, use the shop.
"""

from pathlib import Path

from store.db import Store
from store.task import Grade, Step, Task
from store.types import Instruction, Rule

TASK = Task(
    name="random search",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=s, value=int(s)) for s in "0123"),
    steps=(Step(name="kind"),),
)
INSTRUCTION = Instruction("Grade the product.", tuple(Rule(f"R{i}", f"Rule number {i}.", str(i % 4)) for i in range(8)))
JUDGE = "teacher:random"

_SAMPLES = """
insert into samples by name
select sha256(concat_ws(chr(31), 'sample', query, query, title))[:32]::uuid as sample_id, query as group_key,
       if(h % 10 < 6, 'train', (['dev', 'test', 'pool', 'pool'])[(h % 10)::int - 5]) as split,
       'random' as source, 'random-0' as run_id, timestamp '2026-01-01' as created_at, query, title
from (
    select 'query ' || (i // 20) as query, hash(i // 20, {seed}) as h,
           'brand' || hash(i, 1, {seed}) % 5000 || ' thing' || hash(i, 2, {seed}) % 5000 || ' size ' ||
           hash(i, 3, {seed}) % 5000 || ' colour' || hash(i, 4, {seed}) % 1000 || ' no ' || i as title
    from range({rows}) r(i)
)
"""

_LABELS = """
insert into labels by name
select uuid() as label_id, sample_id, 'gold' as source, 'owner' as annotator,
       (hash(sample_id, 5) % 4)::varchar as grade, 'random-0' as run_id, timestamp '2026-01-01' as created_at
from samples where split <> 'pool' and hash(sample_id, 9) % {labelled} = 0
"""

# The teacher is right on about four in five; its trace quotes the end of the title. The third opinion is a student's
# or the teacher's under an older instruction where `others` are wanted.
_VERDICTS = """
insert into verdicts by name
with base as (
    select sample_id, title, vote, hash(sample_id, 5) % 4 as truth, hash(sample_id, 6, vote) % 1000 / 1000 as u
    from samples, range({votes}) r(vote)
), told as (
    select *, if(u < .8, truth, (truth + 1) % 4) as g,
           .4 + .59 * (hash(sample_id, 7, vote) % 1000) / 1000 as p from base
)
select sha256(sample_id::varchar || vote) as key, sample_id,
       if({others} and vote = 2 and hash(sample_id, 10) % 2 = 0, 'student:random', '{judge}') as judge,
       if({others} and vote = 2 and hash(sample_id, 10) % 2 = 1, 'older', '{instruction}') as instruction,
       if({others} and vote = 2, 0, vote)::integer as vote,
       g::varchar as grade, list_transform([0, 1, 2, 3], lambda k: if(k = g, p, (1 - p) / 3)::float) as probs,
       ['no ' || string_split(title, ' ')[-1]] as evidence, ['thing'] as steps,
       ['R' || (g + 4 * (hash(sample_id, 8) % 20 = 0)::int)] as rules, g::varchar as trace_verdict,
       'random-0' as run_id, timestamp '2026-01-01' as created_at
from told
"""

_DIFFICULTY = """
insert into difficulty
select sample_id, p, case when p > .9 then 'easy' when p > .5 then 'mid' when p > .1 then 'hard' else 'suspect' end,
       '{judge}', 'mine-0'
from (select v.sample_id, avg(v.probs[t.grade::int + 1]) as p
      from verdicts v join truth t using (sample_id) group by v.sample_id)
"""


def make(
    path: Path,
    rows: int,
    *,
    votes: int = 1,
    seed: int = 0,
    difficulty: bool = True,
    labelled: int = 1,
    others: bool = False,
) -> Store:
    """A new store at `path` with that many samples, `votes` verdicts each.

    Args:
        labelled: one in so many samples outside the pool has gold.
        others: the third verdict is a student's or an older instruction's.
    """
    store = Store.create(path, TASK)
    values = {"rows": rows, "seed": seed, "votes": votes, "judge": JUDGE, "instruction": INSTRUCTION.id,
              "labelled": labelled, "others": others}  # fmt: skip
    with store.write() as con:
        for statement in (_SAMPLES, _LABELS, _VERDICTS, *([_DIFFICULTY] if difficulty else [])):
            con.execute(statement.format(**values))
    store.put_instruction(INSTRUCTION, "random-0")
    return store


def plant(store: Store, like: str, *, title: str, split: str = "train") -> str:
    """Copy a sample and its gold under another title (SQL over `title`) into another split; returns the copy's id."""
    with store.write() as con:
        new, grade = con.execute("select uuid()::varchar, grade from truth where sample_id = ?", [like]).fetchone()
        con.execute(
            f"insert into samples by name select ?::uuid as sample_id, group_key, ? as split, 'planted' as source, "
            f"run_id, created_at, query, {title} as title from samples where sample_id = ?",
            [new, split, like],
        )
        con.execute(
            "insert into labels by name select uuid() as label_id, ?::uuid as sample_id, 'gold' as source, "
            "'owner' as annotator, ? as grade, 'random-1' as run_id, timestamp '2026-01-01' as created_at",
            [new, grade],
        )
    return new
