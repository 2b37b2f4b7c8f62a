"""A student written for other tools, in lines: how far it is from the student, and what that costs against gold."""

import shlex
from typing import TYPE_CHECKING

from rich.console import RenderableType

from piar.cli.render.common import facts, gain_line
from store.figures import many

if TYPE_CHECKING:
    from trainers.export import Exported


def export_view(done: "Exported") -> RenderableType:
    """What was written, what it costs and how it is loaded."""
    how = f", one label fitted on {many(done.fitted, 'row')} of train" if done.fitted else ""
    what, whose = ("probabilities", "raw ones") if done.way == "classifier" else ("scores", "own")
    near = (
        f"{what} within {done.largest_difference:.0e} of the student's {whose}, on {many(done.compared, 'sample')}{how}"
    )
    lines: list[tuple[str, str]] = [(done.way, f"{done.path}: {near}")]
    if found := done.loss:
        before, after = (f"{100 * share:.1f}" for share in found.accuracy)
        cuts = ", ".join(f"{cut:.3f}" for cut in done.cuts)
        right = f"a score turns to the next grade at {cuts}: " if cuts else ""
        lines.append(("compared", f"{many(found.rows, 'row')} of {found.split}, {many(found.groups, 'group')}"))
        lines.append(("accuracy", f"{right}{before} → {after} %, {gain_line(found.accuracy_gain)}"))
        if found.ndcg and found.ndcg_gain:
            before, after = (f"{value:.4f}" for value in found.ndcg)
            lines.append(("nDCG", f"{before} → {after}, {gain_line(found.ndcg_gain)}"))
    else:
        lines.append(("compared", "with a few texts alone: --shards names rows with gold"))
    path = str(done.path)
    serve = f"vllm serve {shlex.quote(path)} --runner pooling"
    if done.chat:
        serve += f" --chat-template {shlex.quote(f'{path}/chat_template.jinja')}"
    loaded = {
        "classifier": serve,
        "score": serve,
        "cross-encoder": f"sentence_transformers.CrossEncoder({path!r}).predict([(query, document)])",
    }
    lines.append(("load it", loaded[done.way]))
    return facts(lines)
