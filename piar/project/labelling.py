"""A project's labelling verbs: what the teacher is asked, in the store, by file, in batches, and whom to trust."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piar.project.workspace import Workspace
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.judging.forecast import Forecast, Receipt
    from piar.judging.labeller import Labeller
    from piar.judging.outcome import LabelReport, OnProgress
    from piar.judging.parquet_files import Pool, PoolReport
    from piar.judging.requests import Batch
    from piar.judging.trust import Trust
    from piar.llm.base import Client
    from piar.llm.cost import Budget
    from piar.llm.openai.batch_files import RejectedLine, RequestManifest
    from store.types import Instruction

EVERYTHING_OPEN = "split in ('train', 'pool')"


class Judging(Workspace):
    """A workspace whose teacher can be asked."""

    def label(
        self,
        where: str = EVERYTHING_OPEN,
        *,
        instruction: str | None = None,
        votes: int | None = None,
        sure: float | None = None,
        budget: "Budget | None" = None,
        reuse: bool = False,
        on_progress: "OnProgress | None" = None,
    ) -> "tuple[LabelReport, Receipt]":
        """Let the teacher judge samples of the store; what is known is not asked again.

        Args:
            where: SQL condition over the columns of `samples`.
            instruction: id of a known instruction; what `instruction.md` says when None.
            votes: opinions of each sample; `[label] votes` when None.
            sure: confidence from which on a sample is asked no more votes; `[label] sure` when None.
            budget: hard cap on calls and dollars.
            reuse: from now on, verdicts of the same model name at another endpoint count as answers of this one.

        Raises:
            PiarError: the teacher cannot be asked at all.
        """
        from piar.judging.forecast import receipt

        config = {"where": where, "teacher": self.config.teacher.model, "label": self.config.label.model_dump()}
        with self.run("label", config) as run_id, self._labeller(run_id, budget, on_progress, reuse=reuse) as labeller:
            report = labeller.judge([self._batch(where, self.adopt_instruction(instruction), votes, sure)])
        return report, receipt(self.store, run_id, report.cached, report.seconds, priced=self.config.teacher.priced)

    def forecast_label(
        self,
        where: str = EVERYTHING_OPEN,
        *,
        instruction: str | None = None,
        votes: int | None = None,
        sure: float | None = None,
        reuse: bool = False,
    ) -> "Forecast":
        """What `label` with the same arguments would ask, and what that would cost; nothing is asked or noted.

        With adaptive votes: what it would ask next, and at most.
        """
        from piar.judging.forecast import forecast

        with self._labeller("", reuse=reuse) as labeller:
            batch = self._batch(where, self.instruction(instruction), votes, sure)

            def found(asked: "Batch") -> "Forecast":
                return forecast(self.store, self.config.teacher, labeller.pending([asked]), batch.instruction.id)

            least = found(batch)
            if batch.sure is None:
                return least
            most = found(replace(batch, sure=None))
            return replace(least, most_asked=most.asked, most_usd=most.cost_usd)

    def export_requests(
        self,
        folder: Path,
        where: str,
        *,
        instruction: str | None = None,
        votes: int | None = None,
        sure: float | None = None,
        budget: "Budget | None" = None,
    ) -> "RequestManifest":
        """Write what `label` would ask next as request files for engines elsewhere; see `piar.llm.openai.batch_files`.

        Args:
            budget: only so many requests are written as it can hold at their highest cost.

        Raises:
            UsageError: the teacher is no endpoint, or the folder holds an export already.
        """
        from piar.llm.openai.batch_files import export_requests

        teacher = self.config.teacher
        if teacher.backend != "openai":
            raise UsageError(
                f"{teacher.model} is not asked over an API, so there are no requests to export.",
                "Set model = 'openai:NAME' under [teacher], with the name that the engine serves.",
            )
        with self._labeller("", budget) as labeller:
            pending = labeller.pending([self._batch(where, self.adopt_instruction(instruction), votes, sure)])
            return export_requests(
                labeller.granted(pending),
                folder,
                model=labeller.session.client.model,
                name=teacher.name,
                extra=teacher.extra,
                structured=teacher.structured,
                logprobs=teacher.logprobs,
            )

    def import_responses(
        self,
        folder: Path,
        where: str,
        *,
        instruction: str | None = None,
        votes: int | None = None,
        sure: float | None = None,
    ) -> "tuple[LabelReport, list[RejectedLine]]":
        """Take in the responses to exported requests; what is not there stays open.

        Raises:
            UsageError: no whole export in the folder.
        """
        from piar.llm.openai.batch_files import Responses, ResponsesClient

        responses = Responses(folder, self.config.teacher.price)
        config = {"where": where, "responses": responses.manifest.model_dump()}
        with self.run("label", config) as run_id, self._labeller(run_id, client=ResponsesClient(responses)) as labeller:
            batch = self._batch(where, self.adopt_instruction(instruction), votes, sure)
            report = labeller.judge([batch], only=responses)
        return report, responses.rejected

    def submit_batches(self, folder: Path, where: str, **asked: Any) -> dict[str, str]:
        """One step of labelling through the provider's batch API: export, upload, look, or download.

        Called again, it goes on where it was. When all shards are `downloaded`, `import_responses` takes them in.

        Args:
            folder: where the request files, `batches.json` and the responses lie.
            asked: as of `export_requests`; used by the first call, which writes the requests.

        Returns:
            shard file -> status.

        Raises:
            PiarError: the endpoint has no batch API, refuses, or ended a batch without answers.
        """
        from piar.llm.openai.provider_batches import advance, connect_provider
        from store.manifest import MANIFEST
        from store.turns import alone

        self.client("teacher")  # says at once what may not leave, or which key is missing
        with alone(folder / "batches.lock", "piar label --batch"):
            if not (folder / MANIFEST).exists():
                self.export_requests(folder, where, **asked)
            with connect_provider(self.config.teacher) as provider:
                return advance(folder, provider)

    def label_pool(
        self,
        source: Path,
        target: Path,
        *,
        instruction: str | None = None,
        votes: int | None = None,
        sure: float | None = None,
        budget: "Budget | None" = None,
        on_progress: "OnProgress | None" = None,
    ) -> "PoolReport":
        """Let the teacher judge the rows of a Parquet file that never enter the store; see
        `piar.judging.parquet_files`.
        """
        pool = self._pool(self.adopt_instruction(instruction), votes, sure, budget)
        return pool.label(source, target, on_progress or (lambda progress: None))

    def forecast_pool(
        self, source: Path, *, instruction: str | None = None, votes: int | None = None, sure: float | None = None
    ) -> "Forecast":
        """What `label_pool` with the same arguments would ask if nothing of it is done yet; nothing is asked."""
        from piar.judging.forecast import forecast
        from piar.judging.votes import rounds

        pool = self._pool(self.instruction(instruction), votes, sure)

        def found(votes: int) -> "Forecast":
            return forecast(self.store, self.config.teacher, pool.requests(source, votes), pool.instruction.id)

        settings = pool.respondent.label
        least = found(len(rounds(settings.votes, settings.sure)[0]))
        if settings.sure is None:
            return least
        most = found(settings.votes)
        return replace(least, most_asked=most.asked, most_usd=most.cost_usd)

    def _pool(
        self, instruction: "Instruction", votes: int | None, sure: float | None, budget: "Budget | None" = None
    ) -> "Pool":
        from piar.judging.parquet_files import Pool
        from store.calibrated import kept
        from store.judges import Judge

        asked = {key: value for key, value in (("votes", votes), ("sure", sure)) if value is not None}
        teacher = replace(self.respondent("teacher"), label=self.config.label.model_copy(update=asked))
        judge = Judge(f"teacher:{teacher.client.model}", instruction.id)
        return Pool(self.task, teacher, instruction, budget, calibration=kept(self.store, judge))

    def trust(self, target: float, *, instruction: str | None = None, seed: int = 0) -> "Trust":
        """Which of the teacher's labels reach a precision; the rest is queued for people. See `piar.judging.trust`."""
        from piar.judging.trust import trust

        read = self.adopt_instruction(instruction)
        with self.run("label", {"target_precision": target}, seed) as run_id:
            judge = f"teacher:{self.client('teacher').model}"
            return trust(self.store, judge, read.id, target, run_id, seed)

    @contextmanager
    def _labeller(
        self,
        run_id: str,
        budget: "Budget | None" = None,
        on_progress: "OnProgress | None" = None,
        client: "Client | None" = None,
        reuse: bool = False,
    ) -> "Iterator[Labeller]":
        from piar.judging.labeller import Labeller

        teacher = self.respondent("teacher", client)
        with self.journal(looking=not run_id) as journal:
            session = teacher.session(self.store, journal, run_id, budget, on_progress)
            with Labeller(session, reuse=reuse) as labeller:
                yield labeller

    def _batch(
        self, where: str, instruction: "Instruction", votes: int | None = None, sure: float | None = None
    ) -> "Batch":
        import duckdb

        from piar.judging.requests import Batch
        from store.user_sql import expression

        fix = f"Write a condition over {', '.join(self.task.fields)}, split, source, group_key."
        condition = expression(where, f"--where {where[:200]!r}", fix, self.store.tables())
        try:
            samples = self.store.sample_table(condition)
        except duckdb.Error as error:
            raise UsageError(f"--where {where[:200]!r} fails: {str(error).splitlines()[0]}", fix) from None
        settings = self.config.label
        return Batch(instruction, samples, votes or settings.votes, sure or settings.sure)
