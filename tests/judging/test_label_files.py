"""`piar label` beside the plain way: pools, request files, and which labels to trust."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from piar.judging.trust import trust
from piar.project.facade import Project
from store.db import now
from store.errors import PiarError, UsageError
from store.ids import content_id, sample_id
from tests.documents import check
from tests.faulty_server import FaultyServer

EVERYTHING = "true"


def endpoint(toys):
    return Project.open(toys.folder, ["teacher.model=openai:m", "teacher.base_url=http://127.0.0.1:9/v1"])


def answer_all(folder):
    server = FaultyServer(logprobs=False, schema=False)
    for file in folder.glob("requests-*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        replies = [
            {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": server.answer(line["body"])}}
            for line in lines
        ]
        (folder / file.name.replace("requests", "responses")).write_text("\n".join(map(json.dumps, replies)))


def test_requests_go_out_and_answers_come_in(toys, tmp_path):
    away, folder = endpoint(toys), tmp_path / "requests"
    assert away.export_requests(folder, EVERYTHING).lines == 5
    answer_all(folder)
    report, rejected = away.import_responses(folder, EVERYTHING)
    assert (report.asked, report.labelled + report.failed.total(), rejected) == (5, 5, [])
    again, _ = away.import_responses(folder, EVERYTHING)
    assert again.asked == report.failed.total()
    left = away.export_requests(tmp_path / "left", EVERYTHING)
    assert left.lines == report.failed.total()


def test_what_has_not_come_back_stays_open(toys, tmp_path):
    away, folder = endpoint(toys), tmp_path / "requests"
    away.export_requests(folder, EVERYTHING)
    answer_all(folder)
    file = folder / "responses-00000.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:2]))
    report, _ = away.import_responses(folder, EVERYTHING)
    assert report.asked == 2
    assert away.export_requests(tmp_path / "left", EVERYTHING).lines == 5 - report.labelled


def test_a_teacher_without_an_api_has_no_requests(toys, tmp_path):
    with pytest.raises(UsageError, match="no requests to export"):
        toys.export_requests(tmp_path / "requests", EVERYTHING)


def test_a_pool_is_judged_without_entering_the_store(toys, tmp_path):
    pl.DataFrame({"query": ["ball", "doll"], "title": ["a ball", "a car"]}).write_parquet(tmp_path / "pool.parquet")
    before = toys.store.frame("select * from samples").height
    report = toys.label_pool(tmp_path / "pool.parquet", tmp_path / "out.parquet")
    assert (report.rows, report.labelled) == (2, 2)
    assert pl.read_parquet(tmp_path / "out.parquet")["piar_grade"].null_count() == 0
    assert toys.store.frame("select * from samples").height == before
    assert toys.store.frame("select * from verdicts").height == 0


def test_a_pool_is_forecast_without_asking(toys, tmp_path):
    pool = tmp_path / "pool.parquet"
    pl.DataFrame({"query": ["ball", "doll"], "title": ["a ball", "a car"]}).write_parquet(pool)
    found = toys.forecast_pool(pool, votes=3, sure=0.99)
    assert (found.asked, found.most_asked) == (2, 6)
    command = [sys.executable, "-m", "piar", "label", str(pool), "-o", str(tmp_path / "out.parquet"), "--dry-run"]
    done = subprocess.run([*command, "--json", "-C", str(toys.folder)], capture_output=True, text=True, check=True)
    check("label", json.loads(done.stdout))
    assert json.loads(done.stdout)["asked"] == 2
    assert not (tmp_path / "out.parquet").exists()
    report = toys.label_pool(pool, tmp_path / "out.parquet", votes=3, sure=0.99)
    assert (report.rows, report.labelled, report.asked) == (2, 2, 6)
    assert pl.read_parquet(tmp_path / "out.parquet")["piar_votes"].to_list() == [3, 3]


def test_privacy_is_kept_by_every_verb_that_asks(toys, tmp_path):
    away = Project.open(toys.folder, ["teacher.model=openai:m", "privacy.hosts=[]"])
    with pytest.raises(UsageError, match=r"api\.openai\.com"):
        away.label(EVERYTHING)
    with pytest.raises(UsageError, match=r"api\.openai\.com"):
        away.label_pool(tmp_path / "pool.parquet", tmp_path / "out.parquet")


def fill(store, count, seed=0):
    """Verdicts that are right as often as they say; half of the rows have truth."""
    draw = np.random.default_rng(seed)
    with store.write() as con:
        for i in range(count):
            key, sure, moment = sample_id(f"g{i // 4}", (f"g{i // 4}", f"t{i}")), draw.uniform(0.5, 1), now()
            truth = "1" if draw.uniform() < sure else "0"
            con.execute(
                "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
                "values (?, ?, ?, 's', 'r', ?, ?, ?)",
                [key, f"g{i // 4}", "pool" if i % 2 else "train", moment, f"g{i // 4}", f"t{i}"],
            )
            con.execute(
                "insert into verdicts (key, sample_id, judge, instruction, vote, grade, probs, run_id, created_at) "
                "values (?, ?, 'teacher:t', 'i', 0, '1', ?, 'r', ?)",
                [str(i), key, [1 - sure, sure], moment],
            )
            if i % 2 == 0:
                con.execute(
                    "insert into labels (label_id, sample_id, source, annotator, grade, run_id, created_at) "
                    "values (?, ?, 'gold', 'o', ?, 'r', ?)",
                    [content_id(key), key, truth, moment],
                )


def test_labels_below_the_target_go_to_people(toys):
    fill(toys.store, 600)
    found = trust(toys.store, "teacher:t", "i", 0.85, "run")
    assert found.measured == 300
    assert found.trusted + found.queued == 300
    assert 0 < found.trusted < 300
    assert found.threshold.low <= 0.85 + 0.05
    queue = toys.store.frame("select * from queue order by rank")
    assert queue.height == found.queued
    assert queue["score"].to_list() == sorted(queue["score"], reverse=True)
    sure = toys.store.frame("select max(list_max(probs)) from verdicts join queue using (sample_id)").item()
    assert sure < 0.95


def test_a_judge_that_never_says_how_sure_it_is_cannot_be_calibrated(toys):
    fill(toys.store, 20)
    with toys.store.write() as con:
        con.execute("update verdicts set probs = null")
    with pytest.raises(PiarError, match="how sure"):
        trust(toys.store, "teacher:t", "i", 0.9, "run")


def test_the_queue_holds_what_mining_and_labelling_put_there(toys):
    fill(toys.store, 600)
    first = trust(toys.store, "teacher:t", "i", 0.85, "run-1")
    again = trust(toys.store, "teacher:t", "i", 0.85, "run-2")
    assert again.queued == first.queued == toys.store.frame("select count(*) from queue").item()
    unsure = toys.store.frame("select sample_id from label_queue order by rank")["sample_id"].to_list()
    mined = [
        *toys.store.frame("select sample_id from samples where split = 'train' limit 2")["sample_id"],
        unsure[5],
    ]
    with toys.store.write() as con:
        rows = [(key, "suspect gold", 1.0, None, rank, "mine-1") for rank, key in enumerate(mined, 1)]
        con.executemany("insert into queue values (?, ?, ?, ?, ?, ?)", rows)
    both = toys.store.frame("select rank, sample_id, reason from label_queue order by rank")
    assert both["rank"].to_list() == list(range(1, first.queued + 3))
    assert both["sample_id"].to_list()[:6] == [mined[0], unsure[0], mined[1], unsure[1], mined[2], unsure[2]]
    assert both["reason"].to_list()[4] == "suspect gold"
