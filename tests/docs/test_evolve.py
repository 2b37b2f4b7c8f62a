"""docs/evolve.md names every setting of the loop with its default."""

import re

import pytest

from piar.evolve.settings import AuditSettings, EvolveSettings, PromotionSettings, RevisionSettings
from tests import ROOT

TEXT = (ROOT / "docs" / "evolve.md").read_text(encoding="utf-8")
TABLES = {
    "[evolve]": EvolveSettings, "[evolve.revision]": RevisionSettings, "[evolve.promotion]": PromotionSettings,
    "[evolve.audit]": AuditSettings,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_setting_is_there_with_its_default(name):
    table = re.search(rf"\| `{re.escape(name)}` \| default .*\n\|---.*\n((?:\|.*\n)*)", TEXT)[1]
    said = {}
    for line in table.splitlines():
        names, defaults = (cell.replace("`", "").strip().split(", ") for cell in line.split("|")[1:3])
        said |= dict(zip(names, defaults, strict=True))
    fields = TABLES[name].model_fields
    own = {n: str(f.default).lower() for n, f in fields.items() if f"evolve.{n}" not in "".join(TABLES)}
    assert said == own
