"""A project folder's files: their names, and how they come into being."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import UsageError

if TYPE_CHECKING:
    from store.importers import ImportMapping
    from store.renewal import Renewal
    from store.task import Task
    from store.types import Instruction

CONFIG = "piar.toml"
TASK = "task.toml"
INSTRUCTION = "instruction.md"
PROPOSAL = "instruction.proposed.md"
STORE = "piar.duckdb"
JOURNAL = "journal"
PROMPTS = "prompts"
SHOP = "shop.csv"

_GITIGNORE = f"""# What people edit ({CONFIG}, {TASK}, {INSTRUCTION}) belongs in git; the rest is made from it.
{STORE}*
{JOURNAL}/
report.html
*.bak
"""

_SIMULATED = """\
# Everything here is simulated

`piar init --example shop --pairs {pairs} --seed {seed}` made `shop.csv`: a made-up shop's queries and products, graded
by a hidden rulebook, with three simulated raters and some gold that is wrong on purpose. `answers.parquet` holds the
true grades and the rules behind them. Nothing but measuring may read it.
"""
_TASK_HEAD = """\
# What is judged. Give each grade a name and a meaning: judges, annotators and models read them.
# Fields and grades may change until the first verdict: edit them, then import the file again. The rest may always.
# With `ordered = false` the grades are names without an order; to order them, number their values and drop that line.
# Slices are conditions over the fields that reports and guards look at, e.g. [slices] short = "length(query) < 12"

"""


@contextmanager
def making(folder: Path, *, force: bool = False) -> Iterator[None]:
    """Make the folder with its configuration; whatever goes wrong inside takes it away again.

    Args:
        force: write into a folder that holds other files; a file that differs is kept as `NAME.bak`.

    Raises:
        UsageError: the folder is not empty.
    """
    there = folder.exists()
    if there and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise UsageError(f"{folder} is not an empty folder.", "Choose another name, or add --force to write into it.")
    put(folder / CONFIG, files("piar").joinpath("templates", CONFIG).read_text(encoding="utf-8"))
    put(folder / ".gitignore", _GITIGNORE)
    try:
        yield
    except BaseException:
        if not force or not there:
            for path in folder.iterdir():  # all of it was made here
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there:
            folder.rmdir()
        raise


def adopt(folder: Path, task: "Task", instruction: "Instruction | None" = None) -> None:
    """Write a task's files: `task.toml`, an instruction to begin with, and the store.

    Args:
        instruction: replaces `instruction.md`; when None, a file that is there stays.

    Raises:
        PiarError: the folder holds the store of another task.
    """
    from store.db import Store
    from store.task import dump_task

    if (folder / STORE).exists():
        Store.open(folder / STORE, task)  # refuses another task's store
    put(folder / TASK, _TASK_HEAD + dump_task(task))
    begin(folder, task, instruction)


def begin(folder: Path, task: "Task", instruction: "Instruction | None" = None) -> None:
    """The store, and an instruction to begin with, beside a `task.toml` that is there; as `adopt`."""
    from piar.instructions.markdown import write
    from store.db import Store

    if instruction is not None or not (folder / INSTRUCTION).exists():
        put(folder / INSTRUCTION, write(instruction or first_instruction(task), task))
    Store.create(folder / STORE, task)


def refit(folder: Path, task: "Task") -> "Renewal | None":
    """Make the store anew where `task.toml` has other fields or grades since, and nothing was judged yet.

    The old store is kept as `NAME.bak`; an instruction that nobody has written in is made anew too.
    """
    from piar.instructions.markdown import write
    from store.renewal import renew

    if any((folder / JOURNAL).glob("*")) or (found := renew(folder / STORE, task)) is None:
        return None
    path = folder / INSTRUCTION
    if path.exists() and path.read_text(encoding="utf-8") == write(first_instruction(found.task), found.task):
        path.unlink()
    begin(folder, task)
    return found


def first_instruction(task: "Task") -> "Instruction":
    """Where a project without a guideline begins: what is judged and what the grades mean, and no rule yet."""
    from store.types import Instruction

    others = [name for name in task.fields if name != task.group_by]
    about = " and ".join(filter(None, [", ".join(others[:-1]), others[-1]])) if others else task.group_by
    target = (
        f" fit{'' if len(others) > 1 else 's'} the {task.group_by}" if others and task.group_by in task.fields else ""
    )
    ask = task.ask or (f"Judge how well the {about}{target}." if target else f"Judge the {about}.")
    return Instruction(preamble=f"{ask}\nGive one grade to each sample, from what the sample says.")


def simulate_shop(folder: Path, pairs: int, seed: int) -> "ImportMapping":
    """Simulate a shop in this folder: `shop.csv` to work with, `answers.parquet` to measure by.

    Returns:
        which column of `shop.csv` holds what.

    Raises:
        UsageError: no pairs are asked for.
    """
    from piar.shop.world import make_shop
    from store.files import replacing
    from store.importers import ImportMapping
    from store.simulated import MARK

    if pairs < 1:
        raise UsageError(f"pairs: a shop of {pairs} pairs holds nothing to judge.", "Ask for some hundred, e.g. 3000.")
    world = make_shop(pairs, seed)
    with replacing(folder / SHOP) as draft:
        world.pairs.write_csv(draft)
    with replacing(folder / "answers.parquet") as draft:
        world.answers.write_parquet(draft)
    put(folder / "SIMULATED.md", _SIMULATED.format(pairs=pairs, seed=seed))
    adopt(folder, world.task, world.seed)
    raters = tuple(name for name in world.pairs.columns if name.startswith("rater_"))
    return ImportMapping(gold="grade", raters=raters, group="query", id="pair", source=f"shop {MARK}")


def put(path: Path, text: str) -> None:
    """Write a file, keeping a different older one as `NAME.bak`."""
    from store.files import write_text

    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        path.replace(path.with_name(path.name + ".bak"))
    write_text(path, text)
