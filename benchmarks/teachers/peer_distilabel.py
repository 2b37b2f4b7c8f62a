"""distilabel asking the mock, run by its own environment's Python: `python peer_distilabel.py URL CHATS.json`."""

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


def main():
    url, chats = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    with Pipeline(name="bench") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": c[1]["content"]} for c in chats], batch_size=64)
        llm = OpenAILLM(
            model="mock", base_url=url, api_key="none", max_retries=0, generation_kwargs={"max_new_tokens": 400}
        )
        ask = TextGeneration(llm=llm, system_prompt=chats[0][0]["content"], input_batch_size=64)
        load >> ask
    started = time.perf_counter()
    distiset = pipeline.run(use_cache="--cache" in sys.argv)
    seconds = time.perf_counter() - started
    rows = distiset["default"]["train"]
    done = sum(row["generation"] is not None for row in rows)
    print(json.dumps({"seconds": seconds, "done": done}))


if __name__ == "__main__":
    main()
