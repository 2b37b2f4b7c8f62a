import pytest

from piar.llm.privacy import PrivacySettings
from piar.llm.settings import ModelSettings
from piar.offline.endpoint import running
from piar.offline.teacher import RulebookClient
from piar.project.endpoints import models
from tests.faulty_server import FaultyServer
from tests.small_project import TASK


@pytest.fixture(scope="module")
def simulator():
    with running(RulebookClient()) as found:
        yield found


def look(privacy=None, ask=False, **settings):
    teacher = ModelSettings(**{"model": "openai:rulebook", **settings})
    return {c.name: c for c in models({"teacher": teacher}, TASK, privacy or PrivacySettings(), ask=ask)}


def test_the_offline_teacher_needs_nothing():
    found = look(model="rulebook")
    assert all(check.ok for check in found.values())
    assert found["offline"].detail.startswith("works without a network")


def test_an_endpoint_is_asked_what_it_serves(simulator):
    assert look(base_url=f"{simulator.url}/v1")["teacher"].ok
    wrong = look(model="openai:other", base_url=f"{simulator.url}/v1")["teacher"]
    assert not wrong.ok
    assert "serves no 'other', but rulebook" in wrong.detail
    assert "served-model-name" in wrong.detail
    assert look(base_url=simulator.url)["teacher"].detail.startswith(f"{simulator.url} answers 404")
    assert simulator.ledger()["calls"] == 0


def test_one_question_tells_what_it_can_do(simulator):
    found = look(base_url=f"{simulator.url}/v1", ask=True)["teacher answers"]
    assert found.ok
    assert "JSON by schema and log-probabilities" in found.detail
    with FaultyServer(logprobs=False, schema=False, latency=0).running() as server:
        found = look(base_url=server.url, ask=True)["teacher answers"]
        assert found.ok
        assert "no logprobs" in found.detail
        assert "ignores the JSON schema" in found.detail


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert "NO_SUCH_KEY is not set" in look(api_key_env="NO_SUCH_KEY")["teacher"].detail
    dead = look(base_url="http://127.0.0.1:9/v1")["teacher"]
    assert not dead.ok
    assert "does not answer" in dead.detail
    assert "ollama pull" in look(base_url="http://127.0.0.1:11434/v1")["teacher"].detail
    assert not look(model=f"hf:{tmp_path}")["teacher"].ok
    assert look(model="hf:org/name")["teacher"].ok
    monkeypatch.setenv("SOME_KEY", "sk-planted-123456")
    away = look(PrivacySettings(hosts=()), api_key_env="SOME_KEY", base_url="https://host.invalid/v1")
    assert "host.invalid" in away["offline"].detail
    assert not any("planted" in check.detail for check in away.values())
