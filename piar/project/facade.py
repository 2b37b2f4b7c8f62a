"""The Python front door: one project is one folder, and its verbs are methods."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from piar.project import training_data as data
from piar.project.comparing import Comparing
from piar.project.folder import PROPOSAL
from piar.project.workspace import whoami
from store.errors import PiarError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from curriculum import Plan
    from mining import Explanation, MineReport
    from piar.evolve.last_search import Tried
    from piar.evolve.results import EvolveReport
    from piar.evolve.resume import OnEvent
    from piar.judging.forecast import Forecast, Receipt
    from piar.judging.outcome import OnProgress
    from piar.llm.cost import Budget
    from piar.measure.calibrate import Calibrating, Choice
    from piar.measure.live_logs import Drift, Live
    from piar.measure.regression_gate import Checked
    from piar.measure.score import Scored
    from piar.project.endpoints import Check
    from piar.project.proposal import Decision
    from piar.query.export import What
    from piar.query.show import Difference
    from piar.query.status import Status
    from piar.report.page import ReportFile
    from store.judges import Judge
    from store.manifest import Manifest
    from store.types import Instruction, Split
    from synth import SynthReport
    from synth.drafts import Target


class Project(Comparing):
    """A folder with `piar.toml`, `task.toml`, `instruction.md` and the store; its verbs are methods."""

    # -- measuring --------------------------------------------------------------------------

    def score(
        self,
        judge: str = "teacher",
        split: "Split" = "test",
        *,
        instruction: str | None = None,
        against: str | None = None,
        budget: "Budget | None" = None,
        on_progress: "OnProgress | None" = None,
    ) -> "tuple[Scored, Receipt]":
        """Measure a judge against truth, asking first what it has not said yet.

        Args:
            judge: `teacher`, `baseline:NAME` or `student:PATH`.
            split: which rows.
            instruction: what the teacher reads; `instruction.md` when None.
            against: an older instruction's id, or another judge: adds what is gained over it.

        Raises:
            UsageError: an unknown judge or split.
            PiarError: nothing is labelled there.
        """
        from piar.judging.forecast import receipt
        from piar.measure.score import score

        config = {"judge": judge, "split": split, "against": against, "teacher": self.config.teacher.model}
        cached = 0
        detail: dict[str, Any] = {}

        def teach(instruction_id: str | None) -> "Judge":
            nonlocal cached
            taught, known = self._teach(split, instruction_id, run_id, budget, on_progress)
            cached += known
            return taught

        with self.run("score", config, detail=detail) as run_id:
            began = time.monotonic()
            scored = score(
                self.store,
                judge,
                split,
                teach,
                instruction=instruction,
                against=against,
                simulated=self.config.teacher.simulated,
                embed=self.encoder,
                run_id=run_id,
                on_progress=on_progress,
            )
            detail["latency_ms"] = {name: asdict(taken) for name, taken in scored.latency_ms.items()}
        return scored, receipt(self.store, run_id, cached, time.monotonic() - began, priced=self.config.teacher.priced)

    def _teach(
        self,
        split: str,
        instruction: str | None,
        run_id: str,
        budget: "Budget | None",
        on_progress: "OnProgress | None",
    ) -> "tuple[Judge, int]":
        """The teacher with its first votes on a split, and how many of them were known."""
        from store.judges import Judge

        with self._labeller(run_id, budget, on_progress) as labeller:
            batch = self._batch(f"split = '{split}'", self.adopt_instruction(instruction), votes=1)
            report = labeller.judge([batch])
        report.require(labeller.judge_name)
        return Judge(labeller.judge_name, batch.instruction.id), report.cached

    def calibrate(
        self,
        judge: str = "teacher",
        strategy: "Choice | None" = None,
        *,
        instruction: str | None = None,
        budget: "Budget | None" = None,
        on_progress: "OnProgress | None" = None,
    ) -> "tuple[Calibrating, Receipt]":
        """Correct a judge's probabilities from now on, where dev shows by group that it helps.

        Args:
            judge: `teacher`, `baseline:NAME` or `student:PATH`; what it has not said of dev is asked first.
            strategy: keep this one, helpful or not; see `piar.measure.calibrate.calibrate`.
            instruction: what the teacher reads; `instruction.md` when None.

        Raises:
            PiarError: it gives no probabilities, or its rows with truth are of one group.
        """
        from piar.judging.forecast import receipt
        from piar.measure.calibrate import calibrate, keep
        from piar.measure.score import ready

        began, cached, detail = time.monotonic(), 0, dict[str, Any]()
        with self.run("calibrate", {"judge": judge, "strategy": strategy}, detail=detail) as run_id:

            def teach() -> "Judge":
                nonlocal cached
                taught, cached = self._teach("dev", instruction, run_id, budget, on_progress)
                return taught

            asked = ready(self.store, judge, "dev", run_id, teach, self.encoder, on_progress)
            found = calibrate(self.store, asked, strategy)
            detail |= keep(self.store, found)
        return found, receipt(self.store, run_id, cached, time.monotonic() - began, priced=self.config.teacher.priced)

    def live(
        self, judge: str, where: str, *, instruction: str | None = None, on_progress: "OnProgress | None" = None
    ) -> "Live":
        """How good a judge is on logs: the teacher's labels of many rows, people's of a few drawn at random.

        Nothing is asked of the teacher: rows that it has not judged do not count. A student judges them now.

        Args:
            judge: `teacher` or `student:PATH`.
            where: SQL condition over the columns of `samples` that says which rows are the logs.
            instruction: under which the teacher judged; `instruction.md` when None.
        """
        from piar.judging.students import let_student_judge
        from piar.measure.live_logs import judged, live
        from store.judges import Judge

        read = self.instruction(instruction)
        teacher = Judge(f"teacher:{self.config.teacher.model}", read.id)
        kind, _, path = judge.partition(":")
        if judge != "teacher" and (kind != "student" or not path):
            raise UsageError(f"{judge!r} does not run live.", "Choose teacher or student:PATH.")
        detail: dict[str, Any] = {}
        with self.run("live", {"judge": judge, "where": where}, detail=detail) as run_id:
            asked = teacher
            if kind == "student":
                logs = judged(self.store, teacher, teacher, where)
                asked = let_student_judge(self.store, path, logs, run_id, on_progress)
            found = live(self.store, asked, teacher, where)
            detail |= found.detail
        return found

    def check(
        self,
        split: "Split" = "dev",
        *,
        max_drop: float = 2.0,
        against: str | None = None,
        budget: "Budget | None" = None,
        on_progress: "OnProgress | None" = None,
    ) -> "tuple[Checked, Receipt]":
        """Compare the committed `instruction.md` with the one a person last accepted; see
        `piar.measure.regression_gate`.

        Args:
            split: which gold rows.
            max_drop: points that may be lost.
            against: the id of another instruction to compare with.
        """
        from piar.judging.forecast import receipt
        from piar.measure.regression_gate import check, reference_id
        from store.judges import Judge

        where = f"split = '{split}' and sample_id in (select sample_id from truth)"
        with self.run("check", {"split": split, "max_drop": max_drop}) as run_id:
            began = time.monotonic()
            read = self.adopt_instruction()
            earlier = self.instruction(against or reference_id(self.store))
            with self._labeller(run_id, budget, on_progress) as labeller:
                batches = [self._batch(where, one, votes=1) for one in (read, earlier)]
                reports = [labeller.judge([batch]) for batch in batches]
            for report in reports:
                report.require(labeller.judge_name)
            current, reference = (Judge(labeller.judge_name, b.instruction.id) for b in batches)
            checked = check(self.store, current, reference, split, max_drop)
        cached, seconds = sum(report.cached for report in reports), time.monotonic() - began
        return checked, receipt(self.store, run_id, cached, seconds, priced=self.config.teacher.priced)

    # -- improving --------------------------------------------------------------------------

    def evolve(
        self,
        *,
        accept: Literal["ask", "auto"] = "ask",
        restart: bool = False,
        on_event: "OnEvent | None" = None,
        on_progress: "OnProgress | None" = None,
        **settings: Any,
    ) -> "EvolveReport":
        """Search for a better instruction, test the best one on the holdout, and propose it when it passes.

        The same call after an interruption goes on where it was.

        Args:
            accept: `auto` accepts a proposal without asking a person.
            restart: abandon a search that was cut off, or search anew although nothing has changed.
            settings: keys of `[evolve]`, stronger than `piar.toml`: rounds, seed, max_calls, max_usd, max_tokens, …

        Raises:
            PiarError: too little is labelled, the holdout is worn out, or the teacher cannot be asked.
        """
        from piar.evolve.run import EvolveSettings, Models, evolve
        from piar.project.proposal import propose

        asked = {key: value for key, value in settings.items() if value is not None}
        chosen = EvolveSettings.model_validate({**self.config.evolve.model_dump(), **asked})
        models = Models(self.respondent("teacher"), self.respondent("reviser"))
        with self.journal() as journal:
            report, standing = evolve(
                self.store,
                models,
                self.adopt_instruction(),
                chosen,
                journal=journal,
                restart=restart,
                on_event=on_event,
                on_progress=on_progress,
            )
        propose(self.folder, self.store, standing if report.proposal else None)
        if accept == "auto" and report.proposal:
            self.accept(by="auto")
        return report

    def forecast_evolve(self, **settings: Any) -> "Forecast":
        """What `evolve` with the same settings would ask of the teacher at most; nothing is asked.

        See `piar.evolve.purse.Needs`. Races drop candidates early, so that a search usually takes far less. The flip
        audit and the canary (`[evolve.audit]`) are in it.
        """
        from piar.evolve.inputs import forecast_rows
        from piar.evolve.purse import Needs
        from piar.evolve.reviser import evidence_limit
        from piar.evolve.settings import EvolveSettings
        from piar.judging.forecast import forecast, scaled

        asked = {key: value for key, value in settings.items() if value is not None}
        chosen = EvolveSettings.model_validate({**self.config.evolve.model_dump(), **asked})
        rows = forecast_rows(self.store, chosen)
        needs = Needs(chosen, rows, evidence_limit(self.client("reviser"), chosen.revision))
        with self._labeller("") as labeller:
            batch = self._batch("split = 'dev'", self.instruction(), 1)
            one = forecast(self.store, self.config.teacher, labeller.requests([batch]))
        found = scaled(one, needs.capped)
        return replace(found, basis=f"{found.basis}; {needs.repeated} asked again to audit the teacher")

    def proposal(self) -> "Instruction":
        """What waits in `instruction.proposed.md`."""
        from piar.project.proposal import proposal

        return proposal(self.folder, self.store)

    def accept(self, by: str | None = None) -> "Decision":
        """Let the proposal replace `instruction.md`; see `piar.project.proposal.accept`."""
        from piar.project.proposal import accept

        by = by or whoami(self.folder)
        with self.run("accept", {"by": by}) as run_id:
            return accept(self.folder, self.store, self.adopt_instruction(), by, run_id)

    def reject(self, by: str | None = None) -> "Decision":
        """Send the proposal away; see `piar.project.proposal.reject`."""
        from piar.project.proposal import reject

        by = by or whoami(self.folder)
        with self.run("reject", {"by": by}) as run_id:
            return reject(self.folder, self.store, self.adopt_instruction(), by, run_id)

    def difference(self, *ids: str) -> "Difference":
        """Two instructions side by side: `(A, B)`, `(A,)` against the one in force, or its last change."""
        from piar.query.show import difference, pair_of

        return difference(self.store, *pair_of(self.store, self.instruction(), ids))

    def candidate(self, prefix: str = "") -> "tuple[Tried, Difference]":
        """The candidate that was tested last, or that of an id, and how it differs from what it was tested against."""
        from piar.query.show import candidate, difference

        found = candidate(self.store, prefix)
        return found, difference(
            self.store, self.store.instruction(found.against), self.store.instruction(found.candidate)
        )

    # -- looking ----------------------------------------------------------------------------

    def report(self, out: str | Path | None = None) -> "ReportFile":
        """Write one self-contained HTML page; see `piar.report.page.report`.

        Args:
            out: the file; `report.html` in the project when None.
        """
        from piar.report.page import report

        path, offline = Path(out) if out else self.folder / "report.html", self.config.teacher.simulated
        try:
            current = self.instruction()
        except PiarError:  # a page is written although `instruction.md` cannot be read
            current = None
        return report(self.store, path, current=current, offline=offline, moved=self._drift(), embed=self.encoder)

    def _drift(self) -> "Drift | None":
        """Whether the teacher's grades of the latest logs have moved; None where `instruction.md` cannot be read."""
        from piar.measure.live_logs import drift
        from store.judges import Judge

        try:
            instruction = self.instruction().id
        except PiarError:
            return None
        return drift(self.store, Judge(f"teacher:{self.config.teacher.model}", instruction))

    def export(self, what: "What", path: str | Path, *, force: bool = False) -> int:
        """Write labels, verdicts, samples or instructions to a file; see `piar.query.export.export`."""
        from piar.query.export import export

        return export(self.store, what, Path(path), force=force)

    # -- training data ----------------------------------------------------------------------

    def mine(self, top: int | None = None, on_part: Callable[[str], None] = lambda part: None) -> "MineReport":
        """Signals, difficulty and the queue for people; see `piar.project.training_data.mine`."""
        return data.mine(self, top, on_part)

    def explain(self, sample_id: str) -> "Explanation":
        """Why mining put a sample where it is."""
        return data.explain(self, sample_id)

    def synth(
        self,
        n: int | None = None,
        targets: str | None = None,
        *,
        budget: "Budget | None" = None,
        on_progress: "OnProgress | None" = None,
    ) -> "tuple[SynthReport, Receipt]":
        """Fill thin cells with synthetic samples; see `piar.project.training_data.synthesize`."""
        return data.synthesize(self, n, targets, budget, on_progress)

    def thin_cells(self, n: int | None = None, targets: str | None = None) -> "list[Target]":
        """What `synth` would fill."""
        return data.thin_cells(self, n, targets)

    def curriculum_plan(self) -> "Plan":
        """What `curriculum_export` would write."""
        return data.plan(self)

    def curriculum_export(self, folder: str | Path, formats: tuple[str, ...] = ()) -> "Manifest":
        """Write training shards; see `piar.project.training_data.export_shards`."""
        return data.export_shards(self, Path(folder), formats)

    def sql(self, statement: str) -> "pl.DataFrame":
        """The result of a read-only SQL statement; see `piar.query.sql.query`."""
        from piar.query.sql import query

        return query(self.store, statement)

    def status(self) -> "Status":
        """What is stale, what comes next and what that would cost; see `piar.query.status.status`."""
        from piar.query.status import status

        waits = (self.folder / PROPOSAL).exists()
        return status(self.store, self.config.teacher, self.instruction(), proposal=waits)

    def doctor(self) -> "list[Check]":
        """What works here and what does not; see `piar.project.doctor.diagnose`."""
        from piar.project.doctor import diagnose

        return diagnose(self.folder)
