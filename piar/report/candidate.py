"""What the report shows of the candidate that was tested last: what became of it, what it gains and what it loses."""

from typing import Any

from piar.evolve.ending import procedure
from piar.evolve.guards import STATES
from piar.evolve.last_search import Tried
from piar.report.figures import gains, rules
from piar.report.pair import Pair
from store.db import Store

_TITLES = {
    "waits": "The proposal",
    "refused": "The candidate that was refused",
    "rejected": "The proposal that was rejected",
    "withdrawn": "The proposal that a later search did not make again",
}


def candidate(store: Store, tried: Tried | None, pair: Pair) -> dict[str, Any] | None:
    """The candidate, why it was decided so, its guards and rules; None where none was tested or the last is in force.

    Args:
        pair: what the page compares; where that is something else, the candidate brings its own figures.
    """
    if tried is None or tried.state not in _TITLES:
        return None
    before, after = store.instruction(tried.against), store.instruction(tried.candidate)
    own = Pair(before, after, pair.judge, tried.state, ("before", tried.state))
    told = procedure(tried.tested)
    shown = pair.after is not None and pair.after.id == after.id
    guards = [{"note": "", **guard, "words": STATES[guard["state"]]} for guard in tried.tested.get("guards", ())]
    return {
        "title": _TITLES[tried.state],
        "id": after.id,
        "lead": f"{'Proposed' if tried.state == 'waits' else tried.state.capitalize()} by {tried.by}, {tried.at}. "
        f"{told or 'Decided on the holdout.'}",
        "reason": tried.reason,
        "guards": guards,
        "gains": None if shown else gains(store, own),
        "rules": rules(store, after, pair.judge, before),
    }
