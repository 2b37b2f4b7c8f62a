"""Can the models that a project names be asked? Keys by name, endpoints, model lists, and what an endpoint can do."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener
from urllib.request import Request as Call

from piar.llm.privacy import PrivacySettings, disclosure
from piar.llm.secrets import scrub
from piar.llm.settings import OPENAI_KEY, OPENAI_URL, ModelSettings, endpoint_key, is_local
from store.errors import PiarError

if TYPE_CHECKING:
    from store.task import Task

SECONDS = 5.0  # how long an endpoint may take to list its models
MOST_BYTES = 2**22  # of a list of models
SHOWN = 5
SHOWN_WORDS = 200  # characters of what it says instead


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `detail` says what was found, or how to mend it."""

    name: str
    ok: bool
    detail: str


def models(
    named: dict[str, ModelSettings], task: "Task", privacy: PrivacySettings, *, ask: bool = False
) -> Iterator[Check]:
    """Check each model, and whether the project works without a network.

    Args:
        named: role -> model, e.g. `teacher`.
        ask: send each endpoint one tiny question, to see what it answers with.
    """
    for role, model in named.items():
        try:
            yield from _CHECKS[model.backend](role, model)
            disclosure(task, model, privacy)
            if ask and model.backend in _QUESTIONS:
                yield _QUESTIONS[model.backend](role, model, task)
        except PiarError as error:
            yield Check(role, False, f"{error.message} {error.fix}".strip())
    away = [f"{role} ({model.model} at {model.host})" for role, model in named.items() if not is_local(model.host)]
    needs = f"needs a network: {', '.join(away)}" if away else "works without a network: every model runs here"
    yield Check("offline", True, needs)


def _rulebook(role: str, model: ModelSettings) -> Iterator[Check]:
    yield Check(role, True, "rulebook: offline, no key, no cost")


def _folder(role: str, model: ModelSettings) -> Iterator[Check]:
    place = Path(model.name)
    found = (place / "config.json").exists()
    looks_local = place.is_absolute() or place.exists() or model.name.startswith(".")
    missing = "no model folder there" if looks_local else "no folder of that name: it would be fetched from the hub"
    yield Check(role, found or not looks_local, f"{model.model}: {'a model folder' if found else missing}")


def _endpoint(role: str, model: ModelSettings) -> Iterator[Check]:
    key = endpoint_key(model)  # raises, naming the variable
    variable = model.api_key_env or ("" if model.base_url else OPENAI_KEY)
    said = f"the key is in {variable}" if variable else "no key is sent: api_key_env is empty"
    url = model.base_url or OPENAI_URL
    try:
        listed = _listed(url, key)
    except HTTPError as error:
        unlisted = error.code == 404 and _is_asked_at(url, key, model)
        missing = "it lists no models" if unlisted else "nothing is there; at most servers base_url ends in /v1"
        known = {401: "the key is refused", 403: "the key may not list models", 404: missing}
        words = known.get(error.code, "see its log")
        if 300 <= error.code < 400:
            words = f"it redirects to {error.headers.get('location')!r}, and neither key nor samples are sent on"
        yield Check(role, unlisted, f"{url} answers {error.code}: {words}; {said}")
    except NoList as error:
        yield Check(role, False, f"{url} answers with no list of models: {error}{_hint(url)}")
    except (OSError, ValueError, RecursionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        yield Check(role, False, f"{url} does not answer: {reason}{_hint(url)}")
    else:
        # Gemini lists `models/NAME`, Ollama `NAME:latest`, and both take NAME.
        there = not listed or not {model.name, f"models/{model.name}", f"{model.name}:latest"}.isdisjoint(listed)
        some = ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")
        detail = (
            f"{model.name} at {url}; {said}" if there else f"{url} serves no {model.name!r}, but {some}{_hint(url)}"
        )
        yield Check(role, there, detail)


def _listed(url: str, key: str) -> list[str]:
    """Names of the models that an endpoint serves. Raises what `_asked` does, and `NoList` when it says none."""
    from piar.llm.openai.refusals import error_inside, error_message

    data = _asked(f"{url}/models", key)
    rows: Any = data.get("data") if isinstance(data, dict) else data
    if isinstance(data, str) or (not rows and error_inside(data) is not None):
        raise NoList(scrub(error_message(data), [key])[:SHOWN_WORDS])
    return [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else []


def _is_asked_at(url: str, key: str, model: ModelSettings) -> bool:
    """Whether an address without a list of models takes requests: one that asks nothing is refused there, not lost."""
    from piar.connect import wire_of

    try:
        _asked(url + wire_of(model).path, key, {})
    except HTTPError as error:
        return error.code not in {404, 405}
    except (OSError, HTTPException):
        return False
    return True


class NoList(Exception):
    """The words of a reply that holds no list of models."""


def _asked(url: str, key: str, body: Mapping[str, Any] | None = None) -> Any:
    """What an address answers: JSON, or its text where it is none; a POST with a body. Raises what urllib does.

    An address of this machine is asked directly, whatever proxies the environment names, as `label` asks it.
    """
    from piar.llm.openai.chat import decoded

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    sent = None if body is None else json.dumps(body).encode()
    headers |= {} if sent is None else {"Content-Type": "application/json"}
    ends = time.monotonic() + SECONDS
    direct = [ProxyHandler({})] if is_local(urlsplit(url).hostname) else []
    with build_opener(_Here, *direct).open(Call(url, sent, headers), timeout=SECONDS) as reply:
        got = b""
        while (part := reply.read1(MOST_BYTES)) and len(got) < MOST_BYTES:
            got += part
            if time.monotonic() > ends:
                raise TimeoutError(f"its answer was not whole within {SECONDS:g} s")
    return decoded(got)


class _Here(HTTPRedirectHandler):
    """Follows nothing: a redirect is an answer like any other, and the key stays here."""

    def redirect_request(self, *_: Any) -> None:
        """No request."""
        return


def _hint(url: str) -> str:
    if ":11434" in url:
        return "; Ollama: `ollama serve`, then `ollama pull NAME`, and base_url ends in /v1"
    if is_local(ModelSettings(model="openai:x", base_url=url).host):
        return "; vLLM: `vllm serve NAME --served-model-name NAME`, and base_url ends in /v1"
    return ""


def _answers(role: str, model: ModelSettings, task: "Task") -> Check:
    """Ask one tiny question, with a schema and log-probabilities, and say what came back."""
    from piar.connect import connect
    from piar.llm.base import Message, Request
    from store.trace import parse_trace, trace_schema

    words = f"Answer with a JSON object whose grade and verdict are {task.symbols[0]} and whose other values are empty."
    sample = json.dumps(dict.fromkeys(task.fields, "test"))
    request = Request(
        "doctor",
        (Message("system", words), Message("user", sample)),
        task.symbols,
        trace_schema(task),
        max_tokens=model.max_tokens,
        check=lambda text: parse_trace(text, task).reason,
    )
    notices: list[str] = []
    client = connect(model.model_copy(update={"attempts": 1, "patience": SECONDS}), notices.append)
    [done] = client.generate([request])
    if done.failure and done.failure.kind != "malformed":
        return Check(f"{role} answers", False, f"{done.failure.kind}: {done.failure.message}")
    read = "an answer that cannot be read" if done.failure else f"a readable answer in {done.seconds:.1f} s"
    can = "JSON by schema and log-probabilities" if not notices and done.probs else "not everything asked for"
    return Check(f"{role} answers", done.failure is None, "; ".join([read, can, *notices]))


def _decides(role: str, model: ModelSettings, task: "Task") -> Check:
    """Ask one tiny typed question in each shape of decision endpoints, and say which is answered."""
    from piar.llm.base import Message, Request
    from piar.llm.openai.chat import BadReply
    from piar.llm.openai.decisions import PATHS, DecisionWire

    if role != "teacher":
        return Check(f"{role} answers", False, "a decision model gives grades and writes no text: name another here")
    sample = json.dumps(dict.fromkeys(task.fields, "test"))
    request = Request("doctor", (Message("system", task.ask), Message("user", sample)), task.symbols)
    url, key = model.base_url or OPENAI_URL, endpoint_key(model)
    spoken: dict[str, str] = {}
    silent: dict[str, str] = {}
    for shape in (model.shape, *(shape for shape in PATHS if shape != model.shape)):
        wire = DecisionWire(shape)
        try:
            reply = _asked(url + wire.path, key, wire.body(request, model.name, model.extra))
            wire.answer(request, reply)
            spoken[shape] = _told_by(reply)
        except HTTPError as error:
            silent[shape] = f"HTTP {error.code}"
        except (BadReply, OSError, ValueError, RecursionError, HTTPException) as error:
            silent[shape] = str(error)[:200]
    if model.shape in spoken:
        others = [shape for shape in spoken if shape != model.shape]
        also = f"; it speaks {', '.join(others)} too" if others else ""
        detail = f"a probability for every grade by shape {model.shape!r}, {spoken[model.shape]}{also}"
        return Check(f"{role} answers", True, detail)
    if spoken:
        found = next(iter(spoken))
        mend = f'set shape = "{found}" under [{role}]'
        return Check(f"{role} answers", False, f"it speaks {found!r} and not {model.shape!r}: {mend}")
    why = "; ".join(f"{shape}: {words}" for shape, words in silent.items())
    return Check(f"{role} answers", False, f"no shape of a decision endpoint is answered ({why})")


def _told_by(reply: Mapping[str, Any]) -> str:
    """Whose answer it looks like, by what only one of the servers sends."""
    if reply.get("object") == "structured_decision":
        return "as vLLM answers"
    usage = reply.get("usage")
    told = usage if isinstance(usage, dict) else {}
    if "input_tokens_details" in told:
        return "with usage as OpenAI counts it"
    return "with its tokens counted" if "input_tokens" in told else "without a count of its tokens"


_QUESTIONS = {"openai": _answers, "decisions": _decides}
_CHECKS = {"rulebook": _rulebook, "openai": _endpoint, "decisions": _endpoint, "hf": _folder, "vllm": _folder}
