"""A project with judged documents, and two rankings of them as TREC runs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from piar import Project
from piar.project.comparing import Runs
from store.importers import ImportMapping


@dataclass(frozen=True)
class World:
    """The project, the rows behind it (query, document, title, grade), and both rankings' files."""

    project: Project
    rows: list[tuple[str, str, str, int]]
    a: Path
    b: Path

    @property
    def runs(self) -> Runs:
        return Runs(self.a, self.b)


def make_world(
    folder: Path,
    queries: int = 40,
    documents: int = 12,
    seed: int = 0,
    graded: int = 1000,
    grades: tuple[str, ...] = (),
) -> World:
    """Ranking B follows the grades more closely than A; the first `graded` queries have gold."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"query {q}", f"D{d:03}", f"title {d}", int(rng.integers(0, 4)))
        for q in range(queries)
        for d in rng.choice(200, documents, replace=False)
    ]
    table = folder / "gold.csv"
    asked = list(dict.fromkeys(query for query, *_ in rows))
    known = set(asked[:graded])
    lines = [f"{query},{title},{doc},{grade if query in known else ''}" for query, doc, title, grade in rows]
    table.write_text("\n".join(["query,title,docid,grade", *lines]))
    fields = {"query": "query", "title": "title"}
    columns = ImportMapping(gold="grade" if graded else None, group="query", id="docid", fields=fields, grades=grades)
    project = Project.init(folder / "p", from_=table, mapping=columns)
    paths = []
    for name, noise in (("a", 3.0), ("b", 1.0)):
        scored = [(query.replace(" ", "%20"), doc, grade + noise * rng.normal()) for query, doc, _, grade in rows]
        ranked = sorted(scored, key=lambda row: (row[0], -row[2]))
        paths.append(folder / f"{name}.run")
        paths[-1].write_text("".join(f"{q} Q0 {d} 1 {s:.6f} {name}\n" for q, d, s in ranked))
    queries_file = folder / "queries.csv"
    parts = ["head" if i < len(asked) / 2 else "tail" for i in range(len(asked))]
    queries_file.write_text(
        "id,text,weight,one,kind\n"
        + "".join(f"{q.replace(' ', '%20')},{q},{1 + i},1,{parts[i]}\n" for i, q in enumerate(asked))
    )
    return World(project, rows, *paths)
