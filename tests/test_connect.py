import subprocess
import sys

import pytest
from pydantic import ValidationError

from piar.connect import answers_as, connect
from piar.llm.openai.client import OpenAIClient
from piar.llm.settings import ModelSettings, is_local
from store.errors import PiarError


def test_connecting_loads_nothing_heavy_before_a_backend_is_asked_for():
    code = "import sys, piar.connect as c; c.ModelSettings(); print([m for m in ('openai', 'torch', 'aiohttp', 'vllm', 'transformers') if m in sys.modules])"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_missing_key_names_the_variable(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(PiarError) as caught:
        connect(ModelSettings(model="openai:m", api_key_env="NO_SUCH_KEY"))
    assert "NO_SUCH_KEY" in caught.value.message


@pytest.mark.parametrize(
    "key", ['"sk-planted-01"', "'sk-planted-01", "sk-planted\u200b01", "sk-planted-01…", "Bearer sk-1"]
)
def test_what_cannot_be_a_key_is_refused_without_repeating_it(key, monkeypatch):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(PiarError) as caught:
        connect(ModelSettings(model="openai:m", api_key_env="SOME_KEY"))
    assert "SOME_KEY" in caught.value.message
    assert "sk-" not in str(caught.value)


def test_an_endpoint_of_ones_own_needs_no_key():
    client = connect(ModelSettings(model="openai:m", base_url="http://127.0.0.1:1/v1"))
    assert isinstance(client, OpenAIClient)
    assert client.model == "openai:m"


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    client = connect(ModelSettings(model="openai:m", base_url="http://127.0.0.1:1/v1", transport="openai"))
    with pytest.raises(PiarError, match=r"piar\[teacher\]"):
        client.generate([])


def test_what_shapes_answers_is_part_of_the_name():
    def name(**more):
        return connect(ModelSettings(model="openai:m", base_url="http://127.0.0.1:1/v1", **more)).model

    names = [name(), name(extra={"top_p": 0.5}), name(extra={"top_p": 0.6}), name(structured=False)]
    assert len(set(names)) == 4
    assert all(n.startswith("openai:m") for n in names)
    assert name(concurrency=3) == name()


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "openai:m"},
        {"model": "openai:m", "extra": {"top_p": 0.5}, "structured": False},
        {"model": "decisions:m", "shape": "state"},
        {"model": "rulebook"},
        {"model": "rulebook", "extra": {"noise": 0.2, "seed": 3}},
    ],
)
def test_the_name_of_verdicts_is_told_without_a_key(settings, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    told = answers_as(ModelSettings(**settings))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert told == connect(ModelSettings(**settings)).model


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "gpt"},
        {"model": "openai:"},
        {"base_url": "ftp://x"},
        {"base_url": "https://user:pass@host/v1"},
        {"base_url": "https://host/v1?key=abc"},
        {"base_url": "https://host/v1/chat/completions"},
        {"api_key_env": "sk-123"},
        {"concurrency": 0},
        {"unknown": 1},
    ],
)
def test_settings_that_do_not_hold_are_refused(wrong):
    with pytest.raises(ValidationError):
        ModelSettings(**wrong)


def test_where_samples_go():
    assert ModelSettings(model="rulebook").host is None
    assert ModelSettings(model="openai:m").host == "api.openai.com"
    assert ModelSettings(model="openai:m", base_url="http://127.0.0.1:1/v1").host == "127.0.0.1"
    assert is_local("127.0.0.1")
    assert is_local("localhost")
    assert not is_local("127.0.0.1.evil.com")
    assert not is_local("api.openai.com")
