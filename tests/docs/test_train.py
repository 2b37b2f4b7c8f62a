"""docs/train.md: its commands work as printed, and it names every setting of the trainers with its default."""

import json
import re

import pyarrow.parquet as pq
import pytest

from piar.measure.embeddings import BaselineSettings
from tests import ROOT
from tests.docs.test_readme import BLOCK, run
from trainers import config

TEXT = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
TABLES = {
    "[student]": config.StudentSettings, "[train.sft]": config.SftSettings, "[train.grpo]": config.GrpoSettings,
    "[train.distill]": config.DistillSettings, "[train.encoder]": config.EncoderSettings,
    "[baselines]": BaselineSettings, "all trainers": config.TrainSettings,
}  # fmt: skip


def told(name):
    """setting -> default, as one table of the page says."""
    table = re.search(rf"\| `?{re.escape(name)}`? \| default .*\n\|---.*\n((?:\|.*\n)*)", TEXT)[1]
    found = {}
    for line in table.splitlines():
        names, defaults = (re.sub(r"`| \(.*\)", "", cell).strip().split(", ") for cell in line.split("|")[1:3])
        found |= dict(zip(names, defaults, strict=True))
    return found


@pytest.mark.parametrize("name", TABLES)
def test_every_setting_is_there_with_its_default(name):
    settings = TABLES[name]
    shared = config.TrainSettings.model_fields if issubclass(settings, config.TrainSettings) else {}
    own = [n for n in settings.model_fields if settings is config.TrainSettings or n not in shared]
    said = told(name)
    assert set(said) == set(own)
    for field in own:
        default = settings.model_fields[field].default
        plain = str(default).lower() if isinstance(default, bool | str) else default
        assert said[field] == plain if isinstance(plain, str) else float(said[field]) == plain, field


@pytest.mark.integration
def test_the_pages_commands_work(tmp_path):
    for block in BLOCK.findall(TEXT):
        run(block, tmp_path, tmp_path)
    shop = tmp_path / "shop"
    for trainer in ("sft", "grpo", "distill", "encoder"):
        assert (shop / "students" / trainer / "final" / "model.safetensors").exists()
    assert (shop / "classifier" / "README.md").read_text().count("CC BY 4.0") == 1
    [graded] = (shop / "graded").glob("*.parquet")
    assert pq.read_table(graded)["piar_grade"].null_count == 0
    assert json.loads((shop / "students" / "grpo" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
