"""The pictures of the house are drawn from the code as it is."""

from benchmarks.house import FIGURES, drawn_floors, drawn_walk, survey


def test_no_circle_few_floors_and_the_pictures_show_them() -> None:
    house = survey()
    assert house.circles == ()
    assert max(house.floors.values()) <= 10
    assert house.arrows <= 60
    assert (FIGURES / "floors.svg").read_text(encoding="utf-8") == drawn_floors(house)
    assert (FIGURES / "walk.svg").read_text(encoding="utf-8") == drawn_walk(house)
