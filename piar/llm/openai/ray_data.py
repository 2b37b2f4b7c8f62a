"""Request files on a cluster: Ray Data reads the shards, its LLM processors answer them, responses come back as files.

Thin on purpose: placing engines, batching and retrying are Ray's. Run it where the folder of
`piar label --export-requests DIR` is mounted, in an environment with the extra `ray`:

    from ray.data.llm import vLLMEngineProcessorConfig
    from piar.llm.openai.ray_data import answer
    answer("DIR", vLLMEngineProcessorConfig(model_source="NAME", concurrency=8, should_continue_on_error=True))

or with `HttpRequestProcessorConfig(url="http://…/v1/chat/completions")` for servers that are there already. Then
`piar label --import-responses DIR` takes the answers in. Run it again after a crash, or for what failed: a request that
has a good answer is not asked again.
"""

import json
import uuid
from pathlib import Path
from typing import Any

from piar.llm.openai.batch_files import Responses, read_manifest, shard_path
from store.errors import PiarError

# Keys of a request's body that vLLM takes as sampling parameters under the same name.
_SAMPLING = ("max_tokens", "temperature", "seed")


def answer(folder: str | Path, config: Any) -> int:
    """Answer every exported request in a folder; returns how many answers were written.

    Args:
        folder: of `export_requests`; all of Ray's machines must see it.
        config: a `ray.data.llm.HttpRequestProcessorConfig` or `vLLMEngineProcessorConfig`.

    Raises:
        PiarError: ray is missing, or the processor is of another kind.
        UsageError: no whole export in the folder.
    """
    try:
        from ray.data.llm import build_processor
    except ImportError:
        raise PiarError("This needs Ray Data.", "pip install 'piar[ray]' in the environment of the cluster.") from None
    kind = type(config).__name__
    if kind not in _WAYS:
        raise PiarError(f"{kind} is no way to answer chat requests.", f"Use one of {', '.join(_WAYS)}.")
    before, after = _WAYS[kind]
    return write(build_processor(config, preprocess=before, postprocess=after)(read(folder)), Path(folder))


def read(folder: str | Path) -> Any:
    """A `ray.data.Dataset` of the requests that have no answer yet: `custom_id`, and `body` as JSON text."""
    import ray

    folder = Path(folder)
    shards = [str(shard_path(folder, shard)) for shard in read_manifest(folder).shards]
    known = Responses(folder).good
    asked = ray.data.read_text(shards).map(_request)
    return asked.filter(lambda row: row["custom_id"] not in known) if known else asked


def write(answers: Any, folder: Path) -> int:
    """Write `custom_id` and `response` (JSON text) of a dataset as one response file; returns how many.

    A line is there when its answer is: what came before a crash counts, and is not asked again.
    """
    count = 0
    with (folder / f"responses-ray-{uuid.uuid4().hex[:8]}.jsonl").open("w", encoding="utf-8") as file:
        for row in answers.iter_rows():
            if row.get("response"):
                file.write(f'{{"custom_id": {json.dumps(row["custom_id"])}, "response": {row["response"]}}}\n')
                file.flush()
                count += 1
    return count


def _request(row: dict[str, Any]) -> dict[str, Any]:
    line = json.loads(row["text"])
    return {"custom_id": line["custom_id"], "body": json.dumps(line["body"])}


# -- over HTTP --------------------------------------------------------------------------------


def to_http(row: dict[str, Any]) -> dict[str, Any]:
    """What the HTTP processor sends."""
    return {"custom_id": row["custom_id"], "payload": json.loads(row["body"])}


def from_http(row: dict[str, Any]) -> dict[str, Any]:
    """What the HTTP processor got, as a batch API would tell it; it keeps no status, so a body with choices is good."""
    body = row["http_response"]
    status = 200 if "choices" in body else 500
    return {"custom_id": row["custom_id"], "response": _json({"status_code": status, "body": body})}


# -- in Ray's own vLLM engines ------------------------------------------------------------------


def to_vllm(row: dict[str, Any]) -> dict[str, Any]:
    """Chat messages and sampling parameters of a request."""
    body = json.loads(row["body"])
    sampling = {key: body[key] for key in _SAMPLING if key in body}
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    constraint = {"json": schema} if schema else body.get("structured_outputs")
    if constraint:
        sampling["structured_outputs"] = constraint
    if body.get("logprobs"):
        sampling["logprobs"] = body.get("top_logprobs", 5)
    return {"custom_id": row["custom_id"], "messages": body["messages"], "sampling_params": sampling}


def from_vllm(row: dict[str, Any]) -> dict[str, Any]:
    """What an engine wrote, as a batch API would tell it."""
    usage = {"prompt_tokens": row["num_input_tokens"], "completion_tokens": row["num_generated_tokens"]}
    choice: dict[str, Any] = {"message": {"content": row["generated_text"]}, "finish_reason": "stop"}
    if places := row.get("logprobs"):
        choice["logprobs"] = {"content": [_place(place) for place in places]}
    body = {"choices": [choice], "usage": usage}
    return {"custom_id": row["custom_id"], "response": _json({"status_code": 200, "body": body})}


def _place(place: Any) -> dict[str, Any]:
    """One generated token: its alternatives by token id, the sampled one first."""
    tops = [{"token": top["decoded_token"], "logprob": top["logprob"]} for top in place.values() if top]
    return {**tops[0], "top_logprobs": tops}


_WAYS = {"HttpRequestProcessorConfig": (to_http, from_http), "vLLMEngineProcessorConfig": (to_vllm, from_vllm)}


def _json(value: object) -> str:
    """JSON text; Ray hands arrays and their numbers over as NumPy's."""
    return json.dumps(value, default=lambda array: array.tolist())
