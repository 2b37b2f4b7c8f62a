"""An existing Label Studio project as files that `piar init --from` and `piar import` read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piar.review.server import Progress, Server
from store.files import replacing, write_text


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written: the project's title, counts, and the two files."""

    title: str
    tasks: int
    annotations: int
    annotators: dict[str, int]
    export: Path
    label_config: Path


def fetch(server: Server, project: int, out: Path, progress: Progress | None = None) -> Fetched:
    """Write a project's tasks with all annotations, drafts and skips, and its label configuration beside them.

    Annotators are written by their e-mail; predictions are left out, for they are nobody's label. Written a chunk at a
    time, and whole or not at all.

    Args:
        out: the export, a .json file; the configuration takes its name with .xml.
    """
    title, config = server.about(project)
    users, ids = server.users(), [t.id for t in server.listing(project)]
    done, annotators = 0, dict[str, int]()
    with replacing(out) as draft, draft.open("w", encoding="utf-8") as file:
        file.write("[")
        for tasks in server.tasks(project, ids):
            for task in tasks:
                file.write(
                    ("," if done else "") + "\n" + json.dumps(_named(task, users, annotators), ensure_ascii=False)
                )
                done += 1
            if progress:
                progress(done, len(ids))
        file.write("\n]\n")
    write_text(out.with_suffix(".xml"), config)
    return Fetched(title, done, sum(annotators.values()), annotators, out, out.with_suffix(".xml"))


def _named(task: dict[str, Any], users: dict[int, str], annotators: dict[str, int]) -> dict[str, Any]:
    """The task with e-mails for the numbers of its annotators, who are counted."""
    for annotation in task.get("annotations") or []:
        who = annotation.get("completed_by")
        if isinstance(who, int) and who in users:
            annotation["completed_by"] = {"id": who, "email": users[who]}
        name = who.get("email") if isinstance(who, dict) else users.get(who, str(who))
        annotators[str(name)] = annotators.get(str(name), 0) + 1
    return {key: value for key, value in task.items() if key != "predictions"}
