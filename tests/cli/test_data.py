"""mine, synth and curriculum from the command line, on the simulated shop."""

import json
import shlex
import shutil

import pytest

from piar.cli import main
from piar.project.facade import Project
from piar.shop.policies import oracle_instruction
from store.manifest import read_manifest
from tests.documents import check


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A simulated shop, judged under its own policies."""
    from piar.instructions.markdown import write
    from piar.project.folder import simulate_shop

    folder = tmp_path_factory.mktemp("data") / "shop"
    project = Project.init(folder)
    project.import_([folder / "shop.csv"], simulate_shop(folder, 400, 1))
    (folder / "instruction.md").write_text(write(oracle_instruction(), project.task), encoding="utf-8")
    project = Project.open(folder)
    project.label()
    return folder


def run(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check(" ".join(arguments), document)
    return document


def test_the_walk_from_verdicts_to_shards(shop, capsys, tmp_path):
    mined = run(capsys, "mine", "--top", "30", "-C", str(shop))
    assert set(mined) >= {"signals", "buckets", "queue"}
    assert list(mined["buckets"]) == ["easy", "mid", "hard", "suspect"]
    assert sum(mined["queue"].values()) == 30
    sample = run(capsys, "sql", "select sample_id from label_queue limit 1", "-C", str(shop))["rows"][0][0]
    told = run(capsys, "mine", "--explain", sample, "-C", str(shop))
    assert told["queued"].startswith("rank 1")

    forecast = run(capsys, "synth", "--n", "6", "--dry-run", "-C", str(shop))
    assert forecast["calls"] == 3 * forecast["drafts"] > 0
    model = run(capsys, "synth", "--n", "6", "--dry-run", "--set", "teacher.model=openai:m", "-C", str(shop))
    assert {cell["rule"] for cell in model["cells"]} == {""}
    assert model["calls"] > 3 * model["drafts"] > 0  # it writes them, too
    assert run(capsys, "sql", "select count(*) from synthesis", "-C", str(shop))["rows"] == [[0]]
    made = run(capsys, "synth", "--n", "6", "--set", "synth.votes=1", "-C", str(shop))
    assert set(made) == {"asked", "kept", "dropped", "borderline"}
    assert made["kept"] > 0

    planned = run(capsys, "curriculum", "plan", "-C", str(shop))
    exported = run(
        capsys, "curriculum", "export", str(tmp_path / "shards"), "--format", "parquet,jsonl", "-C", str(shop)
    )
    assert planned["rows"] == exported["rows"] == sum(exported["buckets"].values())
    manifest = read_manifest(tmp_path / "shards")
    assert manifest.simulated
    assert manifest.copies


def test_another_name_for_the_task_hides_not_that_the_data_is_simulated(shop, capsys, tmp_path):
    renamed = shutil.copytree(shop, tmp_path / "renamed")
    text = (renamed / "task.toml").read_text()
    assert text.count("(simulated)") == 1
    (renamed / "task.toml").write_text(text.replace(" (simulated)", ""))
    run(capsys, "curriculum", "export", str(tmp_path / "shards"), "-C", str(renamed))
    assert read_manifest(tmp_path / "shards").simulated


def test_shards_go_into_the_project_unless_a_folder_is_named(shop, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "curriculum", "export", "-C", str(shop))["manifest"] == str(shop / "shards" / "manifest.json")
    assert run(capsys, "curriculum", "export", "mine", "-C", str(shop))["manifest"] == "mine/manifest.json"
    assert sum(read_manifest(shop / "shards").rows.values()) == sum(read_manifest(tmp_path / "mine").rows.values())


def test_people_see_a_table_and_a_picture(shop, capsys):
    assert main(["mine", "--top", "20", "-C", str(shop)]) == 0
    capsys.readouterr()
    assert main(["curriculum", "plan", "-C", str(shop)]) == 0
    assert "all rows are in one bucket" in " ".join(capsys.readouterr().out.split())
    store = Project.open(shop).store
    with store.write() as con:  # as a teacher would leave it that finds some rows harder than others
        con.execute("update difficulty set bucket = 'hard' where hash(sample_id) % 2 = 0")
    assert main(["curriculum", "plan", "-C", str(shop)]) == 0
    out = capsys.readouterr().out
    assert "long tail" in out
    assert "natural" in out
    assert "start" in out
    assert any(bar in out for bar in "▁▂▃▄▅▆▇█")
    assert main(["mine", "--top", "20", "-C", str(shop)]) == 0
    assert "suspicion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mine", "--explain", "zz"), "No samples"),
        (("synth", "--targets", "select 1"), "rule"),
        (("curriculum", "export", "x", "--format", "csv"), "cannot be written"),
        (("mine", "--set", "mining.quotas.boredom=1"), "no reason"),
        (("mine", "--set", "mining.thresholds.easy=0.2"), "must fall"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_two(shop, capsys, arguments, says):
    assert main([*arguments, "-C", str(shop)]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_removed_option_prints_the_line_that_replaces_it(shop, capsys):
    known = run(capsys, "sql", "select instruction from verdicts limit 1", "-C", str(shop))["rows"][0][0]
    assert main(["label", "--since", known, "-C", str(shop)]) == 2
    out = " ".join(capsys.readouterr().err.split())
    line = out[out.index("`piar label --where") :].strip("`. ").split("`")[0]
    assert run(capsys, *shlex.split(line)[1:], "--dry-run")["asked"] == 0  # every row that cited it was asked
