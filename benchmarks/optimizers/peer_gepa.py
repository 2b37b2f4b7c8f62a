"""gepa on an endpoint, run by its own environment's Python: `python peer_gepa.py JOB.json`; prints JSON."""

import http.client
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import gepa
from gepa.core.adapter import EvaluationBatch


class Endpoint:
    """One connection, one request after the other."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)

    def chat(self, model, messages, temperature=0.0):
        body = json.dumps({"model": model, "messages": messages, "temperature": temperature})
        self.connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = json.loads(self.connection.getresponse().read())
        return answer["choices"][0]["message"]["content"]


def fields(row):
    """What a judge reads of a row."""
    return row.get("fields") or {"query": row["query"], "title": row["title"]}


class Adapter:
    """Grades pairs by the candidate's text."""

    propose_new_texts = None

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def evaluate(self, batch, candidate, capture_traces=False):
        said = [self._judge(candidate["instruction"], row) for row in batch]
        scores = [float(grade == row["gold"]) for grade, row in zip(said, batch, strict=True)]
        return EvaluationBatch(said, scores, list(zip(batch, said, strict=True)) if capture_traces else None)

    def _judge(self, text, row):
        sample = json.dumps(fields(row))
        asked = [{"role": "system", "content": text}, {"role": "user", "content": sample}]
        return self.endpoint.chat("teacher", asked).split("\n", 1)[0]

    def make_reflective_dataset(self, candidate, eval_batch, components_to_update):
        records = [
            {
                "Inputs": fields(row),
                "Generated Outputs": grade,
                "Feedback": f"The right grade is {row['gold']}.",
            }
            for row, grade in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, records)


class Silent:
    def log(self, message):
        pass


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    endpoint = Endpoint(job["url"])
    reflect = Endpoint(job["url"])
    result = gepa.optimize(
        seed_candidate={"instruction": job["text"]},
        trainset=job["train"],
        valset=job["val"],
        adapter=Adapter(endpoint),
        reflection_lm=lambda p: reflect.chat("rulebook-reviser", [{"role": "user", "content": p}], 1.0),
        max_metric_calls=job["budget"],
        seed=job["seed"],
        logger=Silent(),
        **job["settings"],
    )
    texts = [c["instruction"] for c in result.candidates]
    steps, best = [], -1.0
    for text, score, calls in zip(texts, result.val_aggregate_scores, result.discovery_eval_counts, strict=True):
        if score > best:
            best = score
            steps.append([calls, text])
    print("\n" + json.dumps({"text": result.best_candidate["instruction"], "steps": steps}))


if __name__ == "__main__":
    main()
