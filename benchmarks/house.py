"""`python -m benchmarks.house [--draw]`: the floors of the code, by its own imports, and two pictures of it.

A room is a package of `piar/` or one of the other five; an arrow says that it imports another room, at any depth or
inside a function; a room's floor is one above the highest that it imports. Exit 1 when there is a circle.
"""

import ast
import sys
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap

import grimp

ROOT = Path(__file__).parent.parent
PACKAGES = ("piar", "synth", "mining", "curriculum", "trainers", "store")
FIGURES = ROOT / "docs" / "figures"
# The way of the data: what happens, by which verb, in which rooms.
WALK = (
    ("a file of rows", "look · init · import", "store"),
    ("a guideline as rules", "init · accept", "piar.instructions"),
    ("a teacher asked", "label", "piar.judging"),
    ("errors, edits, a test", "evolve", "piar.evolve"),
    ("hard, doubtful rows", "mine · synth", "mining"),
    ("people's answers", "review", "piar.review"),
    ("shards by difficulty", "curriculum", "curriculum"),
    ("a student", "train", "trainers"),
    ("grade, then reason", "score · serve", "piar.serve"),
)


@dataclass(frozen=True, slots=True)
class House:
    """The rooms, and what they import.

    Attributes:
        imports: room -> the rooms that it imports.
        floors: room -> its floor, 1 on the ground.
        circles: chains of rooms that import each other.
    """

    imports: dict[str, frozenset[str]]
    floors: dict[str, int]
    circles: tuple[tuple[str, ...], ...]

    @property
    def arrows(self) -> int:
        """Imports between rooms of `piar/`."""
        return sum(
            to.startswith("piar.") for room, tos in self.imports.items() if room.startswith("piar.") for to in tos
        )


def survey() -> House:
    """Read the imports of all packages."""
    graph, found = grimp.build_graph(*PACKAGES, cache_dir=None), defaultdict(set)
    for module in graph.modules:
        if room := _room(module):
            found[room] |= {to for name in graph.find_modules_directly_imported_by(module) if (to := _room(name))} - {
                room
            }
    imports = {room: frozenset(found[room]) for room in sorted(found)}
    floors: dict[str, int] = {}
    circles: list[tuple[str, ...]] = []
    for room in imports:
        _climb(room, imports, floors, circles, ())
    return House(imports, floors, tuple(circles))


def _room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "piar":
        return parts[0]
    return ".".join(parts[:2]) if len(parts) > 1 else None


def _climb(
    room: str,
    imports: dict[str, frozenset[str]],
    floors: dict[str, int],
    circles: list[tuple[str, ...]],
    below: tuple[str, ...],
) -> int:
    if room in below:
        circles.append((*below[below.index(room) :], room))
        return 0
    if room not in floors:
        floors[room] = 1 + max(
            (_climb(to, imports, floors, circles, (*below, room)) for to in imports[room]), default=0
        )
    return floors[room]


def drawn_floors(house: House) -> str:
    """The rooms as boxes, floor above floor, as SVG."""
    rows = [sorted(r for r in house.floors if house.floors[r] == f) for f in range(max(house.floors.values()), 0, -1)]
    width, high, parts = 1000, 84, list[str]()
    for y, rooms in enumerate(rows):
        step = (width - 20) / len(rooms)
        for x, room in enumerate(rooms):
            parts.append(
                _box(10 + x * step, 10 + y * high, step - 8, high - 10, room.removeprefix("piar."), _says(room))
            )
    return _svg(width, len(rows) * high + 36, "A room uses only rooms below it.", parts)


def drawn_walk(house: House) -> str:
    """The data's walk as boxes from left to right, as SVG.

    Raises:
        KeyError: a step names a room that is not there.
    """
    wide, parts = 200, list[str]()
    for i, (what, verbs, room) in enumerate(WALK):
        house.floors[room]
        x, y = 10 + (i % 5) * wide, 10 + (i // 5) * 92
        parts.append(_box(x, y, wide - 22, 66, what, f"piar {verbs}", room))
        if i + 1 < len(WALK) and i % 5 < 4:
            parts.append(f'<path d="M{x + wide - 20} {y + 33}h12m-5 -4l5 4l-5 4" fill="none" stroke="#667"/>')
    return _svg(1000, 230, "From a file to a served student: what is there, the verb, and where its code lives.", parts)


def _says(room: str) -> str:
    folder = ROOT / room.replace(".", "/")
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0].rstrip(".")


def _box(x: float, y: float, wide: float, high: float, title: str, *lines: str) -> str:
    shown = [part for line in lines for part in wrap(line, int(wide / 6.2))][:3]
    texts = [f'<text x="{x + 8:.0f}" y="{y + 18:.0f}" font-weight="bold">{escape(title)}</text>']
    for i, line in enumerate(shown):
        texts.append(
            f'<text x="{x + 8:.0f}" y="{y + 34 + 14 * i:.0f}" font-size="10.5" fill="#445">{escape(line)}</text>'
        )
    box = f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{high:.0f}" rx="5" fill="#eef2f7" stroke="#99a"/>'
    return box + "".join(texts)


def _svg(wide: int, high: int, caption: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" '
        'font-size="13">\n'
        f'<rect width="{wide}" height="{high}" fill="#fff"/>\n{body}\n'
        f'<text x="10" y="{high - 10}" font-size="11" fill="#445">{escape(caption)}</text>\n</svg>\n'
    )


def main() -> int:
    """Print the floors; with `--draw`, draw them too."""
    house = survey()
    for floor in range(max(house.floors.values()), 0, -1):
        print(f"{floor:>2}  {'  '.join(r for r in house.imports if house.floors[r] == floor)}")
    inside = [room for room in house.floors if room.startswith("piar.")]
    print(f"{len(inside)} rooms in piar/, {house.arrows} arrows between them, {max(house.floors.values())} floors")
    for circle in house.circles:
        print("circle: " + " > ".join(circle))
    if "--draw" in sys.argv[1:]:
        (FIGURES / "floors.svg").write_text(drawn_floors(house), encoding="utf-8")
        (FIGURES / "walk.svg").write_text(drawn_walk(house), encoding="utf-8")
    return 1 if house.circles else 0


if __name__ == "__main__":
    sys.exit(main())
