"""What the newest audit of each judge found, for the page."""

from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError

from piar.measure.audit import Audit
from piar.measure.audit_plan import VERB
from store.db import Store

AUDITS = f"""select e.detail, e.created_at from run_events e join runs r using (run_id)
where r.verb = '{VERB}' and e.status = 'done' order by e.created_at"""


def audits(store: Store) -> dict[str, Any] | None:
    """Each judge with its newest audit; None without any."""
    newest: dict[str, tuple[Audit, str]] = {}
    for detail, at in store.frame(AUDITS).rows():
        with suppress(ValidationError):  # kept by a version that measured otherwise
            found = TypeAdapter(Audit).validate_json(detail)
            newest[found.judge.name] = (found, f"{at:%Y-%m-%d %H:%M}")
    judges = [{"audit": found, "at": at, "found": [p.name for p in found.found]} for found, at in newest.values()]
    return {"judges": judges, "source": AUDITS} if judges else None
