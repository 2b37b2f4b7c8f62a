"""Request files through Ray Data on one machine, against the simulated endpoint; see `tests.ray_env`."""

import json
import subprocess
import sys
import types

import pytest

from piar.llm.openai.batch_files import Responses
from piar.llm.openai.ray_data import answer, from_http, from_vllm, to_http, to_vllm
from piar.offline.endpoint import running
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from store.errors import PiarError
from tests.environments import ray_python
from tests.llm.test_batch_files import export
from tests.ray_env import INIT, environment
from tests.small_project import small_project

SCRIPT = f"""
import sys
import ray
from ray.data.llm import HttpRequestProcessorConfig
from piar.llm.openai.ray_data import answer
{INIT}
print(answer(sys.argv[1], HttpRequestProcessorConfig(url=sys.argv[2], batch_size=4, concurrency=2, max_retries=2)))
"""


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_exported_requests_are_answered_by_ray_and_taken_in(tmp_path):
    folder = tmp_path / "requests"
    with running(RulebookClient()) as simulator:
        small_project(tmp_path / "p")
        project = Project.open(
            tmp_path / "p", ["teacher.model=openai:rulebook", f"teacher.base_url={simulator.url}/v1"]
        )
        assert project.export_requests(folder, "true").lines == 5
        command = [ray_python(), "-c", SCRIPT, str(folder), f"{simulator.url}/v1/chat/completions"]
        first = (folder / "requests-00000.jsonl").read_text().splitlines()[0]
        (folder / "responses-before.jsonl").write_text(
            answered(json.loads(first)["custom_id"], "1") + '{"custom_id": "cut'
        )
        done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.splitlines()[-1] == "4"
        assert simulator.ledger()["calls"] == 4  # one was answered before a crash
        report, rejected = project.import_responses(folder, "true")
        assert (report.asked, report.labelled) == (5, 5)
        assert [line.reason for line in rejected] == ["not whole JSON"]
        direct, _ = project.label("true")
        assert (direct.asked, direct.cached) == (0, 5)
        assert project.store.frame("select count(probs) from verdicts").item() >= 4


def answered(key, grade, status=200):
    choice = {"message": {"content": grade}, "finish_reason": "stop"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    return json.dumps({"custom_id": key, "response": {"status_code": status, "body": body}}) + "\n"


def test_an_answer_goes_before_a_failure_and_is_known(tmp_path):
    export(tmp_path, 3)
    (tmp_path / "responses-a.jsonl").write_text(answered("k0", "2", 500) + answered("k1", "1"))
    (tmp_path / "responses-b.jsonl").write_text(answered("k0", "1") + answered("k1", "2"))
    found = Responses(tmp_path)
    assert found.good == {"k0", "k1"}
    assert [(line.file, line.reason) for line in found.rejected] == [
        ("responses-b.jsonl", "a second answer to the same request")
    ]
    from tests.llm.test_batch_files import requests

    assert [found.completion(request).text for request in requests(2)] == ["1", "1"]


def test_without_ray_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PiarError, match="Ray Data") as caught:
        answer(tmp_path, object())
    assert "piar[ray]" in caught.value.fix


def test_another_processor_is_refused(tmp_path, monkeypatch):
    module = types.ModuleType("ray.data.llm")
    module.build_processor = None
    monkeypatch.setitem(sys.modules, "ray.data.llm", module)
    with pytest.raises(PiarError, match="object is no way"):
        answer(tmp_path, object())


def test_rows_go_out_and_come_back_as_a_batch_api_would_tell_them(tmp_path):
    export(tmp_path, 3)
    line = json.loads((tmp_path / "requests-00000.jsonl").read_text().splitlines()[0])
    row = {"custom_id": "k0", "body": json.dumps(line["body"])}
    assert to_http(row)["payload"] == line["body"]
    sent = to_vllm(row)
    assert sent["messages"] == line["body"]["messages"]
    assert sent["sampling_params"] == {"max_tokens": 400, "temperature": 0.0, "seed": 0, "logprobs": 6}
    choice = {"body": json.dumps({**line["body"], "structured_outputs": {"choice": ["0", "1"]}})}
    assert to_vllm(row | choice)["sampling_params"]["structured_outputs"] == {"choice": ["0", "1"]}

    places = [{7: {"decoded_token": "1", "logprob": -0.1}, 8: {"decoded_token": "0", "logprob": -2.4}}]
    told = {"num_input_tokens": 30, "num_generated_tokens": 1, "generated_text": "1", "logprobs": places}
    back = [from_vllm({"custom_id": "k0", **told})]
    reply = {"choices": [{"message": {"content": "2"}}], "usage": {"prompt_tokens": 9}}
    back.append(from_http({"custom_id": "k1", "http_response": reply}))
    back.append(from_http({"custom_id": "k2", "http_response": {"error": {"message": "too long"}}}))
    lines = [f'{{"custom_id": "{b["custom_id"]}", "response": {b["response"]}}}\n' for b in back]
    (tmp_path / "responses-x.jsonl").write_text("".join(lines))
    found = Responses(tmp_path)
    from tests.llm.test_batch_files import requests

    one, two, three = (found.completion(request) for request in requests(3))
    assert (one.text, one.usage.prompt, two.text) == ("1", 30, "2")
    assert one.probs["1"] == pytest.approx(0.909, abs=0.001)
    assert three.failure.message == "too long"
