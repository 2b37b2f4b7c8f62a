"""The whole walk in small: every step from the rough guideline to the served student, and on again after a stop."""

import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
STEPS = 24


def walk(folder):
    return subprocess.Popen([sys.executable, "-m", "benchmarks.walk", str(folder), "--scale", "0.02"])


def test_a_walk_that_was_killed_goes_on_to_its_report(tmp_path):
    kept = tmp_path / "steps"
    first = walk(tmp_path)
    while not (kept / "03-label.json").exists():
        assert first.poll() is None
        time.sleep(0.2)
    first.kill()
    first.wait()
    evolved = (kept / "02-evolve.json").read_bytes()
    assert walk(tmp_path).wait() == 0
    assert (kept / "02-evolve.json").read_bytes() == evolved
    assert len(list(kept.glob("*.json"))) == STEPS
    page = (tmp_path / "shop" / "report.html").read_text()
    for section in ("gains", "people", "difficulty", "training", "students"):
        assert f'<section id="{section}">' in page
    served = json.loads((kept / "15-serve.json").read_text())["found"]
    assert len(served["grades"]) == served["asked"]
    assert "event: trace" in served["explained"]
    live = json.loads((kept / "19-live.json").read_text())["found"]
    assert live["accuracy"]["low"] < live["accuracy"]["high"]
    assert live["gold"] > 1
