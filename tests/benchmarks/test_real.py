"""The benchmark on real data, once through with tiny models, and how its results are kept."""

import json
import time
from argparse import ArgumentParser
from types import SimpleNamespace

import pytest

from benchmarks.real import latency, sets, whole
from benchmarks.real.results import put
from benchmarks.real.students import ARMS, BASELINES
from benchmarks.real.table import write_students
from store.errors import PiarError
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_model import make_tiny_model


def asked(out, *more):
    parser = ArgumentParser()
    whole.options(parser)
    return SimpleNamespace(**vars(parser.parse_args(list(more))), out=out)


def found(split, arm, accuracy, n=20, **more):
    rows = [[f"{split}-{i // 2}", int(i < accuracy * n)] for i in range(n)]
    named = {"set": "chorus", "split": split, "train": 300, "learnt": 300, "arm": arm, "rows": rows}
    figures = {"macro_f1": 0.5, "ece": 0.1, "nll": 1.0, "ms": 2.0, "mb": 3.0, "seconds": 4.0}
    return {**named, **figures, "accuracy": [accuracy, None, None], **more}


def written(tmp_path, *arms):
    out = tmp_path / f"work-{time.monotonic_ns()}"
    for one in arms:
        path = out / f"chorus-{one['split']}-300" / f"{one['arm']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one))
    write_students(out, tmp_path / "results")
    return json.loads((tmp_path / "results" / "students.json").read_text())


def test_results_of_more_splits_stay_and_others_are_added(tmp_path, capsys):
    written(tmp_path, *(found(split, "probe", 0.5) for split in range(3)))
    told = written(tmp_path, found(0, "probe", 0.9), found(0, "base270", 0.4))
    assert {(one["arm"], one["splits"]): one["accuracy"] for one in told["arms"]} == {
        ("probe", 3): 0.5,
        ("base270", 1): 0.4,
    }
    assert [(one["arm"], one["over"]) for one in told["gains"]] == [("base270", "probe")]
    again = written(tmp_path, *(found(split, "probe", 0.6) for split in range(3)))
    assert {one["arm"]: one["accuracy"] for one in again["arms"]} == {"probe": 0.6, "base270": 0.4}


def test_calibration_is_told_of_the_splits_where_one_was_kept(tmp_path, capsys):
    after = {"strategy": "temperature", "accuracy": 0.5, "ece": 0.02, "nll": 0.9}
    told = written(tmp_path, found(0, "encoder", 0.5, calibrated=after), found(1, "encoder", 0.5, calibrated=None))
    assert told["arms"][0]["calibrated"] == {"splits": 1, "accuracy": 0.5, "ece": 0.02}
    assert "| 1, 0.020 |" in capsys.readouterr().out


@pytest.mark.integration
def test_the_whole_of_it_runs_and_goes_on(tmp_path, monkeypatch, capsys):
    models = tmp_path / "models"
    make_tiny_encoder(models / "encoder", pooling="mean", length=256)
    for name in ("base270", "instruct05", "instruct15"):
        make_tiny_model(models / name, width=64, layers=1)
    for name, rows in (("TRAIN", 120), ("DEV", 20), ("TEST", 30)):
        monkeypatch.setattr(sets, name, rows)
    one = asked(tmp_path / "work", "--sets", "chorus", "--splits", "0", "--sizes", "100", "--workers", "1")
    whole.main(one, models, tmp_path / "results")
    told = json.loads((tmp_path / "results" / "students.json").read_text())
    assert {arm["arm"] for arm in told["arms"]} == {*BASELINES, *ARMS}
    assert {gain["arm"] for gain in told["gains"]} == set(ARMS)
    assert "students on chorus: about" in capsys.readouterr().out
    whole.main(one, models, tmp_path / "results")
    assert "base270:" not in capsys.readouterr().out  # nothing is done again


def test_a_job_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    done = []

    def fails():
        raise PiarError("No such model.", "Get it.")

    todo = [whole.Job("first", 1, 1, fails), whole.Job("second", 1, 1, lambda: done.append(1))]
    monkeypatch.setattr(whole, "jobs", lambda *_: todo)
    with pytest.raises(SystemExit, match="first: No such model"):
        whole.main(asked(tmp_path / "work", "--workers", "1"), tmp_path, tmp_path / "results")
    assert done == [1]
    assert "1 at once: about" in capsys.readouterr().out


def test_a_request_is_timed_with_and_without_what_all_prompts_share(tmp_path):
    model, encoder = make_tiny_model(tmp_path / "model", width=64, layers=3), make_tiny_encoder(tmp_path / "encoder")
    told = latency.measure("chorus", model, encoder, 3)
    assert 8 < told["shared"] < told["tokens"]
    assert all(0 < low <= middle <= high for middle, low, high in told["ms"].values())


def test_a_run_of_a_part_leaves_the_figures_of_the_others(tmp_path):
    path = tmp_path / "results" / "mining.json"
    whole = [{"set": name, "split": split, "easy": 1} for name in ("chorus", "semeval") for split in (0, 1)]
    put(path, whole, "set", "split")
    every = put(path, [{"set": "semeval", "split": 0, "easy": 2}], "set", "split")
    assert [one["easy"] for one in every] == [1, 1, 2, 1]
    assert json.loads(path.read_text()) == every
