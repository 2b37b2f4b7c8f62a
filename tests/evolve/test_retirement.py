"""Who labels every week: worn holdout groups leave for train when fresh ones have come, and nothing leaks."""

import csv

from piar.cli import main
from piar.evolve.ledger import fingerprints, ledger, record
from piar.project.facade import Project


def week(file, queries):
    with file.open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["query", "title", "grade"])
        lines.writerows((q, f"{q} title {i}", i % 3) for q in queries for i in range(3))
    return file


def by_split(project):
    return dict(project.store.frame("select distinct group_key, split from samples").rows())


def decide(project, groups, times):
    for n in range(times):
        detail = {"level": 0.01, "holdout_groups": fingerprints(groups)}
        record(project.store, "promotion", f"c{n}", "seed", "refused", "chance", detail, "piar", f"run {n}")


def test_worn_holdout_groups_leave_for_train_once_as_many_fresh_ones_are_there(tmp_path, capsys):
    project = Project.init(tmp_path / "shop", from_=week(tmp_path / "one.csv", [f"lamp {i}" for i in range(40)]))
    first = by_split(project)
    worn = [q for q, split in first.items() if split == "holdout"]
    decide(project, worn, 2)
    found = project.import_([week(tmp_path / "two.csv", [f"desk {i}" for i in range(20)])])
    assert found.retired == 0  # decided twice: not worn yet
    decide(project, worn, 3)
    found = project.import_([week(tmp_path / "few.csv", ["chair 1"])])
    assert found.retired == 0  # six fresh groups are not as many as twelve
    twin = f"{worn[0].split()[1]} Lamps"  # the same but for spelling
    assert main(["import", str(week(tmp_path / "more.csv", [twin, *(f"bag {i}" for i in range(30))])),
                 "-C", str(project.folder)]) == 0  # fmt: skip
    assert f"{len(worn) + 1} holdout groups left for train: they decided several" in " ".join(
        capsys.readouterr().out.split()
    )
    now = by_split(project)
    assert {now[q] for q in (*worn, twin)} == {"train"}
    assert all(now[q] == split for q, split in first.items() if split != "holdout")
    fresh = [q for q, split in now.items() if split == "holdout"]
    assert len(fresh) >= len(worn)
    assert ledger(project.store, fresh, "next").uses == 0
    assert project.import_([week(tmp_path / "again.csv", ["chair 2"])]).retired == 0
