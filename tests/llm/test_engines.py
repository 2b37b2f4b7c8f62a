"""One small random model, asked three ways: offline vLLM, vLLM's HTTP server, and transformers in this process."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest

from piar.connect import connect
from piar.llm.base import Message, Request
from piar.llm.openai.batch_files import Responses, ResponsesClient, export_requests, read_manifest
from piar.llm.settings import ModelSettings
from piar.llm.vllm_engine import VllmClient
from store.errors import PiarError
from tests.environments import vllm_python
from tests.tiny_model import make_tiny_model
from tests.vllm_env import environment, http_server

GRADES = ("0", "1", "2")
SYSTEM = "Judge how well a product answers a search query. " * 10
WORDS = ["wireless mouse", "desk", "5 cm cable", "für kinder", "red", "silent wireless mouse for travel"]
TEXTS = [f"{a} {b}" for a in WORDS for b in WORDS]


def requests():
    return [Request(f"k{i}", (Message("system", SYSTEM), Message("user", t)), GRADES) for i, t in enumerate(TEXTS)]


FORM = {
    "type": "object", "properties": {"grade": {"type": "string", "enum": ["0", "2"]}}, "required": ["grade"],
    "additionalProperties": False,
}  # fmt: skip
OFFLINE = """
import json, sys
from piar.llm.base import Message, Request
from piar.llm.vllm_engine import VllmClient, VllmOptions
def requests():
    return [Request(f"k{i}", (Message("system", SYSTEM), Message("user", t)), GRADES) for i, t in enumerate(TEXTS)]
def main():
    engine = {"enforce_eager": True, "max_model_len": 2048, "dtype": "float32"}
    options = VllmOptions(engines=int(sys.argv[2]), engine=engine)
    client = VllmClient(sys.argv[1], options)
    done = client.generate(requests())
    asked = [Request(t, (Message("user", t),), schema=FORM, max_tokens=60, temperature=1.0) for t in TEXTS[:3]]
    held = [c.text for c in client.generate(asked)] if client.window == 2048 else []
    graded = [[c.key, c.text, c.probs, c.usage.cached] for c in done]
    json.dump({"graded": graded, "held": held}, open(sys.argv[3], "w"))
if __name__ == "__main__":
    main()
"""


def test_without_vllm_the_error_names_the_way_out():
    with pytest.raises(PiarError, match=r"piar\[vllm\]"):
        VllmClient("/nowhere")


def test_adapters_alone_are_no_model_of_vllm(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(PiarError, match="holds adapters") as refused:
        VllmClient(str(tmp_path))
    assert f"hf:{tmp_path}" in refused.value.fix


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model, its head turned so that grades depend on the sample and not on what all prompts share."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        chats = [[{"role": m.role, "content": m.content} for m in r.messages] for r in requests()]
        prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        last = torch.stack([model.model(**tokenizer(p, return_tensors="pt")).last_hidden_state[0, -1] for p in prompts])
        mean = last.mean(0)
        head = model.lm_head.weight
        head -= torch.outer(head @ mean, mean) / mean.square().sum()
        head /= (last @ head[[tokenizer(g)["input_ids"][0] for g in GRADES]].T).std()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def local(folder):
    done = connect(ModelSettings(model=f"hf:{folder}", extra={"device": "cpu"})).generate(requests())
    assert len({c.text for c in done}) > 1
    return done


def offline(folder, out, engines):
    script = out.with_suffix(".py")
    script.write_text(f"SYSTEM, TEXTS, GRADES, FORM = {SYSTEM!r}, {TEXTS!r}, {GRADES!r}, {FORM!r}\n{OFFLINE}")
    command = [vllm_python(), str(script), str(folder), str(engines), str(out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.integration
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("engines", [1, 2])
def test_offline_vllm_gives_the_grades_of_transformers_and_keeps_to_a_schema(folder, local, tmp_path, engines):
    told = offline(folder, tmp_path / "out.json", engines)
    found = told["graded"]
    assert len(told["held"]) == 3
    # vLLM lets a model write blanks between tokens of JSON until its limit, and this one writes noise.
    assert all(text.startswith("{") and set(text) <= set('{"grade": 02}\n\r\t') for text in told["held"])
    assert [row[0] for row in found] == [c.key for c in local]
    assert [row[1] for row in found] == [c.text for c in local]
    for row, mine in zip(found, local, strict=True):
        assert row[2] == pytest.approx(mine.probs, abs=1e-3)
    assert sum(row[3] for row in found) > 0


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_the_http_server_gives_the_grades_of_transformers(folder, local, tmp_path):
    extra = {"structured_outputs": {"choice": list(GRADES)}, "max_tokens": 4}
    with http_server(folder, tmp_path / "server.log") as url:
        settings = ModelSettings(model="openai:tiny", base_url=url, extra=extra, structured=False, timeout=120)
        for transport in ("lean", "openai"):
            done = connect(settings.model_copy(update={"transport": transport}), lambda words: None).generate(
                requests()
            )
            assert [c.failure for c in done] == [None] * len(TEXTS)
            assert [c.text for c in done] == [c.text for c in local]


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_a_student_served_by_vllm_says_the_same_each_time_though_its_base_would_not(folder, tmp_path):
    from trainers.loading import load_policy

    base, drawn = tmp_path / "base", {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}
    shutil.copytree(folder, base)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, **drawn}))
    policy, tokenizer = load_policy(str(base))
    for part in (policy.lm, tokenizer):
        part.save_pretrained(tmp_path / "student")
    texts = {}
    for name in ("base", "student"):
        with http_server(tmp_path / name, tmp_path / "log") as url, httpx.Client(timeout=60) as client:
            body = {"model": "tiny", "messages": [{"role": "user", "content": "a wireless mouse"}], "max_tokens": 6}
            replies = [client.post(f"{url}/chat/completions", json=body).json() for _ in range(6)]
        texts[name] = {reply["choices"][0]["message"]["content"] for reply in replies}
    assert len(texts["base"]) > 1
    assert len(texts["student"]) == 1


@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_vllm_run_batch_answers_exported_requests_as_transformers_does(folder, local, tmp_path):
    extra = {"structured_outputs": {"choice": list(GRADES)}, "max_tokens": 4}
    export_requests(
        requests(), tmp_path, model="openai:tiny", name="tiny", extra=extra, structured=False, shard_lines=20
    )
    asked = tmp_path / "all.jsonl"
    asked.write_bytes(b"".join((tmp_path / shard.file).read_bytes() for shard in read_manifest(tmp_path).shards))
    command = [
        vllm_python(), "-m", "vllm.entrypoints.openai.run_batch", "--model", str(folder),
        "--served-model-name", "tiny", "-i", str(asked), "-o", str(tmp_path / "responses-all.jsonl"),
        "--enforce-eager", "--max-model-len", "2048", "--dtype", "float32",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    responses = Responses(tmp_path)
    assert responses.rejected == []
    found = ResponsesClient(responses).generate(requests())
    assert [c.text for c in found] == [c.text for c in local]
    for row, mine in zip(found, local, strict=True):
        assert row.probs == pytest.approx(mine.probs, abs=1e-3)


class Strict:
    """A stand-in for `vllm.LLM` whose template refuses the system role."""

    def __init__(self, model, **arguments):
        self.calls = 0

    def chat(self, chats, sampling, **how):
        self.calls += 1
        if any(m["role"] == "system" for chat in chats for m in chat):
            raise ValueError("System role not supported")
        said = [SimpleNamespace(text=chat[0]["content"], token_ids=[1], logprobs=None) for chat in chats]
        return [SimpleNamespace(outputs=[s], prompt_token_ids=[1, 2], num_cached_tokens=0) for s in said]


def test_a_refused_system_role_goes_to_the_head_of_the_users_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Strict, SamplingParams=SimpleNamespace))
    client = VllmClient("folder")
    request = Request("k", (Message("system", "Judge it."), Message("user", "a mouse")))
    for _ in range(2):
        [done] = client.generate([request])
        assert done.text == "Judge it.\n\na mouse"
    assert client._engine._llm.calls == 3  # refused once, and then known
