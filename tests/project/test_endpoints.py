import pytest

from piar.llm.privacy import PrivacySettings
from piar.llm.settings import ModelSettings
from piar.offline.endpoint import running
from piar.offline.teacher import RulebookClient
from piar.project.endpoints import models
from tests.faulty_server import FaultyServer, send
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
    assert not look(base_url=simulator.url)["teacher"].ok  # a forgotten /v1
    assert simulator.ledger()["calls"] == 0


class Listing(FaultyServer):
    """Answers a GET with what it is given."""

    def __init__(self, status, listed):
        super().__init__(latency=0)
        self.status, self.listed = status, listed

    async def _connection(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        posted = head.startswith("POST /v1/chat/completions")
        await send(writer, 400 if posted else self.status, {"error": "no model"} if posted else self.listed)
        writer.close()


@pytest.mark.parametrize(
    ("status", "listed", "ok", "words"),
    [
        (200, {"data": [{"id": "models/rulebook"}]}, True, "rulebook at"),
        (200, {"data": [{"id": "rulebook:latest"}]}, True, "rulebook at"),
        (200, [{"id": "rulebook"}], True, "rulebook at"),
        (200, {"data": []}, True, "rulebook at"),
        (404, {"detail": "Not Found"}, True, "it lists no models"),
        (200, {"error": "Unexpected endpoint or method. (GET /models)"}, False, "no list of models: Unexpected"),
        (200, "<html><head><title>Sign in</title></head></html>", False, "an HTML page: Sign in"),
    ],
)
def test_a_list_of_models_is_read_as_servers_give_it(status, listed, ok, words):
    with Listing(status, listed).running() as server:
        found = look(base_url=server.url)["teacher"]
    assert found.ok == ok
    assert words in found.detail


def test_an_address_of_this_machine_is_asked_past_proxies(simulator, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert look(base_url=f"{simulator.url}/v1")["teacher"].ok


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
