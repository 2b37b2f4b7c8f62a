"""How large an experiment is. What is compared never depends on it."""

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Scale:
    """Sizes shared by all claims.

    Attributes:
        pairs: of the simulated world; a tenth of its queries is held out, the rest halved into taught and pool.
        hidden, layers: of a student; small_hidden, small_layers: of the one it is distilled into.
        words, sft, rl: steps of the lesson in shared words (no label), of SFT, of GRPO.
        batch: rows of an SFT step; prompts: of a GRPO step, each with `rollouts`.
        rate, rl_rate, more_rate: peak learning rates of SFT, of GRPO, of SFT that goes on from the base student.
        traced: held-out rows whose reason is written out.
        evolve_pairs, rounds: of the PIAR loop.
        extra: rows that mining, synthesis or chance adds.
        variants: also the arms that do not decide.
        on: the simulated `shop`, or one of `benchmarks.real.sets.SETS`: people's grades.
        held_out: share of the queries that report, on the shop; of `pairs` elsewhere, at most.
        watched: held-out rows that runs themselves look at; None for all.
        student, lora: the folder that students start from instead of nothing, and the rank of their adapters.
    """

    name: str
    pairs: int
    hidden: int
    layers: int
    small_hidden: int
    small_layers: int
    words: int
    sft: int
    rl: int
    batch: int = 64
    prompts: int = 8
    rollouts: int = 8
    rate: float = 3e-3
    rl_rate: float = 5e-4
    more_rate: float = 5e-4
    traced: int = 1000
    evolve_pairs: int = 3000
    rounds: int = 4
    extra: int = 1000
    variants: bool = True
    on: str = "shop"
    held_out: float = 0.1
    watched: int | None = None
    student: str = "tiny"
    lora: int = 0

    def of(self, student: str, on: str) -> "Scale":
        """This scale with students from a folder, on a set."""
        folder = Path(student)
        return replace(self, name=f"{self.name}-{folder.name}-{on}", student=str(folder), on=on)


SCALES = {
    one.name: one
    for one in (
        Scale("tiny", 700, 64, 1, 64, 1, words=3, sft=3, rl=2, batch=8, prompts=2, rollouts=2, traced=8,
              evolve_pairs=300, rounds=1, extra=20),
        Scale("small", 12_000, 128, 4, 64, 2, words=150, sft=160, rl=16, traced=300, evolve_pairs=1500, extra=300,
              variants=False),
        # A student that has something to lose: SFT two and a half times as long, and more, gentler reinforcement (the
        # rate is what `rate.py` chose).
        Scale("later", 12_000, 128, 4, 64, 2, words=150, sft=400, rl=40, rl_rate=1e-4, traced=300, evolve_pairs=1500,
              extra=300, variants=False),
        Scale("full", 30_000, 128, 4, 64, 2, words=300, sft=1500, rl=200),
        # For `--student`: what a model of some hundred million weights does in minutes an arm on a CPU.
        Scale("pretrained", 800, 128, 4, 64, 2, words=0, sft=16, rl=16, batch=16, prompts=8, rollouts=4, rate=2e-4,
              rl_rate=2e-4, more_rate=2e-4, traced=60, extra=60, variants=False, held_out=0.3, watched=40, lora=16),
        # The shape of a 0.6B model, from nothing, for one GPU.
        Scale("gpu", 200_000, 1024, 28, 512, 8, words=1000, sft=6000, rl=600, prompts=32, rate=4e-4, rl_rate=5e-6,
              more_rate=7e-5, evolve_pairs=6000, extra=5000),
    )
}  # fmt: skip
