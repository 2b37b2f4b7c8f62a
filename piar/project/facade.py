"""The Python front door: one project is one folder, and its verbs are methods."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from piar.project import (
    auditing,
    cascading,
    comparing,
    importing,
    improving,
    labelling,
    measuring,
    reading,
    rewording,
    training_data,
)
from piar.project import proposal as proposals
from piar.project.folder import SHOP, making, simulate_shop
from piar.project.importing import Ask, Imported
from piar.project.workspace import Workspace

if TYPE_CHECKING:
    from piar.offline import GuidelineImport
    from piar.project.config import Config
    from store.importers import ImportMapping
    from store.readers import Reading


class Project(Workspace):
    """A folder with `piar.toml`, `task.toml`, `instruction.md` and the store; its verbs are methods.

    Each verb is a function of one of the rooms named below, which takes the opened folder: arguments, answers and
    errors are said there.

    Attributes:
        imported: what `init` imported, if anything.
        guideline: how `init` read a guideline, if there was one.
    """

    def __init__(self, folder: Path, config: "Config") -> None:
        super().__init__(folder, config)
        self.imported: Imported | None = None
        self.guideline: GuidelineImport | None = None

    @classmethod
    def init(
        cls,
        folder: str | Path,
        *,
        from_: str | Path | None = None,
        example: Literal["shop"] | None = None,
        pairs: int = 3000,
        guideline: str | Path | None = None,
        label_config: str | Path | None = None,
        mapping: "ImportMapping | None" = None,
        reading: "Reading | None" = None,
        seed: int = 0,
        force: bool = False,
        ask: Ask | None = None,
        overrides: Sequence[str] = (),
    ) -> "Self":
        """Make a project folder.

        Args:
            folder: where; it must be empty or not there.
            from_: a file of samples and labels: proposes the task from it and imports it.
            example: `shop` simulates a product-search world of `pairs` pairs and imports it.
            guideline: a Markdown text in any layout; becomes `instruction.md`.
            label_config: that file is a Label Studio export, and this the label configuration of its project, which
                becomes the task.
            mapping: which column of that file holds what; the rest is guessed.
            reading: its encoding, sheet or control, where they cannot be told.
            seed: of the simulation and of the splits.
            force: write into a folder that holds other files. A file that would change is kept as `NAME.bak`,
                and a store is never replaced: what is imported is added to it.
            ask: a person to ask where a guess is doubtful; None: the guess stands, and is in the answer.
            overrides: `section.key=value`, stronger than the new `piar.toml`, for this import.

        Raises:
            UsageError: the folder is not empty, or the file cannot be understood.
        """
        with making(Path(folder), force=force):
            project = cls.open(folder, overrides)
            if example is not None:
                columns = simulate_shop(project.folder, pairs, seed)
                project.imported = project.import_([project.folder / SHOP], columns, seed=seed)
            if from_ is not None:
                project.imported = project.import_(
                    [from_], mapping, reading=reading, seed=seed, label_config=label_config, ask=ask
                )
            if guideline is not None:
                project.guideline = project.adopt_guideline(guideline)
            elif project.imported and project.imported.guideline.strip():
                project.guideline = importing.adopt_text(project, project.imported.guideline)
        return project

    import_ = importing.import_
    adopt_guideline = importing.adopt_guideline

    evolve = improving.evolve
    forecast_evolve = improving.forecast_evolve
    proposal = proposals.proposal
    accept = proposals.accept
    reject = proposals.reject
    minor = rewording.minor

    label = labelling.label
    forecast_label = labelling.forecast_label
    label_pool = labelling.label_pool
    forecast_pool = labelling.forecast_pool
    export_requests = labelling.export_requests
    import_responses = labelling.import_responses
    submit_batches = labelling.submit_batches
    trust = labelling.trust

    score = measuring.score
    calibrate = measuring.calibrate
    cascade = cascading.cascade
    forecast_cascade = cascading.forecast_cascade
    open_cascade = cascading.open_cascade
    forecast_handed_on = cascading.forecast_handed_on
    live = measuring.live
    check = measuring.check
    audit = auditing.audit
    forecast_audit = auditing.forecast_audit
    compare = comparing.compare
    plan = comparing.plan
    system_order = comparing.system_order

    mine = training_data.mine
    explain = training_data.explain
    synth = training_data.synthesize
    thin_cells = training_data.thin_cells
    curriculum_plan = training_data.plan
    curriculum_export = training_data.export_shards

    difference = reading.difference
    candidate = reading.candidate
    report = reading.report
    export = reading.export
    export_list = reading.export_list
    sql = reading.sql
    status = reading.status
    doctor = reading.doctor
