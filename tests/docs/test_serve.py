"""Every setting of the server has its row."""

import re

from piar.serve.settings import ServeSettings
from tests import ROOT


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("| `[serve]` |")[2], re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(ServeSettings.model_fields)
