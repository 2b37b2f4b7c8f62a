"""The whole walk on the *simulated* shop: from a rough guideline to a served student, and the week after.

    python -m benchmarks.walk DIR [--scale 1.0]        (`make walk` runs it in walk/)

Each step is the command a person would type. What it said is kept under DIR/steps, so a walk that was stopped goes on
where it was. The teacher, the reviser and the annotators are simulated; no network, no key. `--scale` shrinks data and
training together, for a quick look at the path (a student that was hardly trained grades badly).
"""

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import tomli_w

from piar.shop.world import make_shop

ANNOTATORS = {"ann@example.com": 0.95, "bob@example.com": 0.88}  # chance of the true grade
SETTINGS: dict[str, Any] = {
    "review": {"annotators": list(ANNOTATORS), "overlap": 0.3, "random": 0.4, "checks": 0.05},
    "curriculum": {"teacher_confidence": 0.6},
}
SFT, GRPO, SMALL = "students/sft/final", "students/grpo/final", "students/distill/final"


class Walk:
    """A walk in one folder.

    Args:
        scale: size of data and training, 1 for the full walk.
    """

    def __init__(self, folder: Path, scale: float) -> None:
        self.project, self.kept, self.scale = folder / "shop", folder / "steps", scale
        self.kept.mkdir(parents=True, exist_ok=True)
        self.seconds = 0.0

    def size(self, n: int, least: int = 2) -> int:
        """A number of rows or steps at this walk's scale."""
        return max(least, round(n * self.scale))

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one step, or take what it said when it was done before."""
        kept = self.kept / f"{name}.json"
        if kept.exists():
            done = json.loads(kept.read_text())
        else:
            print(f"\n== {name}", flush=True)
            began = time.monotonic()
            done = {"found": work(), "seconds": time.monotonic() - began}
            draft = kept.with_suffix(".part")
            draft.write_text(json.dumps(done, indent=1))
            draft.replace(kept)
        self.seconds += done["seconds"]
        return done["found"]

    def piar(self, *arguments: object, accept: Sequence[int] = (0,)) -> Any:
        """Run one piar command in the project and return its JSON."""
        words = [str(one) for one in arguments]
        print("$ piar", *words, flush=True)
        command = [sys.executable, "-m", "piar", *words, "-C", str(self.project), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode not in accept:
            raise SystemExit(f"piar {words[0]} ended with {done.returncode}; mend it and run the walk again.")
        return json.loads(done.stdout)

    # --- steps that are more than one command --------------------------------------------------

    def begin(self) -> Any:
        """A project from the example, and a month of ungraded logs."""
        words = ["init", str(self.project), "--example", "shop", "--pairs", str(self.size(3000, 600)), "--force"]
        subprocess.run([sys.executable, "-m", "piar", *words], check=True)
        config = self.project / "piar.toml"
        config.write_text(tomli_w.dumps({**tomllib.loads(config.read_text()), **SETTINGS}))
        return self.logs("logs", self.size(26_000, 400), seed=7)

    def logs(self, name: str, pairs: int, seed: int) -> Any:
        """Import simulated logs: queries and titles without any grade."""
        world = make_shop(pairs, seed)
        world.pairs.select("query", "title").write_csv(self.project / f"{name}.csv")
        world.answers.write_parquet(self.project / f"answers-{name}.parquet")
        return self.piar("import", self.project / f"{name}.csv", "--group", "query", "--source", f"{name} (simulated)")

    def people(self, batch: str, hours: float) -> Any:
        """Sheets out, filled in by simulated annotators who know the truth and err at their rates, and back."""
        self.piar("review", "export", self.project / f"{batch}.csv", "--batch", batch, "--hours", hours)
        truth = self.truth()
        draw = random.Random(batch)
        symbols = [g["symbol"] for g in tomllib.loads((self.project / "task.toml").read_text())["grades"]]
        for person, chance in ANNOTATORS.items():
            sheet = self.project / f"{batch}-{person.split('@')[0]}.csv"
            with sheet.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                right = truth.get(row["sample_key"], draw.choice(symbols))
                row["grade"] = right if draw.random() < chance else draw.choice([s for s in symbols if s != right])
            with sheet.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
            self.piar("review", "import", sheet, "--batch", batch)
        return self.piar("review", "status")

    def truth(self) -> dict[str, str]:
        """Sample key -> true grade, of everything simulated so far."""
        answers = [pl.read_parquet(path, columns=["sample_id", "true_grade"])
                   for path in sorted(self.project.glob("answers*.parquet"))]  # fmt: skip
        return dict(pl.concat(answers).iter_rows())

    def train(self, trainer: str, *settings: str) -> Any:
        """Train, going on from a checkpoint if there is one."""
        started = (self.project / "students" / trainer).exists()
        sets = [word for one in settings for word in ("--set", one)]
        return self.piar("train", trainer, *(["--resume"] if started else []), *sets)

    def serve(self, student: str) -> Any:
        """Start a server, ask it for grades and one explanation, and stop it."""
        rows = pl.read_csv(self.project / "logs.csv").head(20).to_dicts()
        command = [sys.executable, "-m", "piar", "serve", "--student", student, "--port", "0"]
        with subprocess.Popen(command, cwd=self.project, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stderr is not None
                url = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
                results = httpx.post(f"{url}/score", json={"samples": rows}, timeout=60).json()["results"]
                events = httpx.post(f"{url}/explain", json=rows[0], timeout=60).text
            finally:
                server.terminate()
        return {"asked": len(rows), "grades": [one["grade"] for one in results], "explained": events[-2000:]}


def walk(w: Walk) -> None:
    """All steps, in order."""
    w.step("01-begin", w.begin)
    w.step("02-evolve", lambda: w.piar("evolve", "--rounds", 4, "--accept", "auto"))
    w.step("03-label", lambda: w.piar("label"))
    w.step("04-synth", lambda: w.piar("synth", "--n", w.size(200, 10)))
    w.step("05-mine", lambda: w.piar("mine"))
    w.step("06-people", lambda: w.people("week1", 2.0 * w.scale + 0.2))
    w.step("07-mine-again", lambda: w.piar("mine"))
    w.step("08-plan", lambda: w.piar("curriculum", "plan"))
    w.step("09-shards", lambda: w.piar("curriculum", "export"))
    w.step("10-sft", lambda: w.train("sft", f"train.sft.steps={w.size(2200)}", f"train.sft.eval_every={w.size(440)}",
                                     f"train.sft.save_every={w.size(440)}"))  # fmt: skip
    w.step("11-grpo", lambda: w.train("grpo", f"student.model={w.project / SFT}", f"train.grpo.steps={w.size(40)}",
                                      f"train.grpo.eval_every={w.size(20)}", "train.grpo.log_every=1"))  # fmt: skip
    w.step("12-distill", lambda: w.train("distill", "student.layers=2",
                                         f"train.distill.steps={w.size(1800)}",
                                         f"train.distill.eval_every={w.size(450)}"))  # fmt: skip
    for name, judge in (("teacher", "teacher"), ("sft", f"student:{SFT}"), ("grpo", f"student:{GRPO}"),
                        ("small", f"student:{SMALL}")):  # fmt: skip
        w.step(f"13-score-{name}", lambda judge=judge: w.piar("score", "--judge", judge))
    w.step("14-classifier", lambda: w.piar("train", "export", w.project / SFT, "-o", w.project / "classifier"))
    w.step("15-serve", lambda: w.serve(SFT))
    w.step("16-week-two", lambda: w.logs("week2", w.size(1000, 100), seed=8))
    w.step("17-status", lambda: w.piar("status"))
    w.step("18-label-week-two", lambda: w.piar("label"))
    w.step("19-live", lambda: w.piar("score", "--judge", f"student:{SFT}", "--live", "source like 'logs%'"))
    w.step("20-check", lambda: w.piar("check", accept=(0, 3)))
    w.step("21-report", lambda: w.piar("report"))


def main() -> None:
    """Walk, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    w = Walk(asked.folder.absolute(), asked.scale)
    walk(w)
    print(f"\n{w.seconds / 60:.0f} minutes in all. On test, against gold (everything is simulated):")
    for path in sorted(w.kept.glob("13-score-*.json")):
        found = json.loads(path.read_text())["found"]
        accuracy, latency = found["accuracy"], found.get("latency_ms", {}).get("first_token")
        first = f", first token {latency['p50']:.1f} ms" if latency else ""
        print(f"  {found['judge']:<40} {100 * accuracy['value']:.1f} % "
              f"({100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}){first}")  # fmt: skip
    print(f"\nThe whole story: {w.project / 'report.html'}")


if __name__ == "__main__":
    main()
