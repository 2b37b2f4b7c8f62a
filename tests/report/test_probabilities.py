"""The pictures of what probabilities are worth: there where a judge gives them, before and after calibration."""

import re

from piar.measure.calibrate import calibrate
from piar.report.probabilities import probabilities
from store.judges import Judge
from tests.measure.test_calibrate import LEAN, keep, say


def inside(chart) -> bool:
    """Whether every point of both figures lies within the axes."""
    ends, points = chart["axes"], [p for curve in chart["risk"] for p in curve["path"].split()]
    points += [f"{b['x']},{y}" for s in chart["reliability"] for b in s["bins"] for y in (b["y"], b["low"], b["high"])]
    pairs = [tuple(map(float, point.split(","))) for point in points]
    return all(ends["left"] <= x <= ends["right"] and ends["top"] <= y <= ends["bottom"] for x, y in pairs)


def test_a_judge_is_drawn_as_it_is_and_calibrated(shop):
    assert probabilities(shop.store) is None  # nobody has judged test or dev
    say(shop)
    [raw] = probabilities(shop.store)["judges"]
    assert (raw["name"], raw["split"], raw["calibrated"]) == (LEAN.name, "test", False)
    assert [curve["name"] for curve in raw["risk"]] == ["raw"]
    keep(shop, calibrate(shop.store, LEAN))
    [both] = probabilities(shop.store)["judges"]
    assert [curve["name"] for curve in both["risk"]] == ["raw", "calibrated"]
    assert both["risk"][0] == raw["risk"][0]
    assert inside(raw)
    assert inside(both)
    page = shop.report().path.read_text(encoding="utf-8")
    [section] = re.findall(r'<section id="probabilities">.*?</section>', page, flags=re.DOTALL)
    assert section.count("<svg") == 2
    assert 'class="calibrated"' in section
    assert "<script" not in section


def test_dev_is_drawn_where_test_is_closed(shop):
    say(shop, splits=("dev",))
    [found] = probabilities(shop.store)["judges"]
    assert found["split"] == "dev"


def test_a_teacher_is_drawn_under_the_instruction_in_force_whatever_a_search_tried_since(shop):
    in_force = shop.adopt_instruction().id
    say(shop, Judge(LEAN.name, in_force))
    say(shop, Judge(LEAN.name, "tried"), splits=("dev",))
    [found] = probabilities(shop.store)["judges"]
    assert found["split"] == "test"
