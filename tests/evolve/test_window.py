"""What a reviser is shown fits its window, whatever the rows are; and what each reviser brought is told."""

import json

import pytest

from piar.evolve.questions import shortened
from piar.evolve.reviser import Fit, question
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import ReviserSettings, RevisionSettings
from piar.instructions.revision_schema import EvidenceItem, RevisionRequest
from piar.llm.openai.refusals import is_too_long
from piar.llm.settings import ModelSettings
from store.types import Completion, Failure, Instruction, Rule
from tests.worlds import SEED, TASK, WordReviser, WordTeacher, loop_models, world

PARENT = Instruction("Judge.", tuple(Rule(f"R{n:02}", f"the title has word {n}", "1") for n in range(6)))
HINTS = tuple(f"{n} errors share a word" for n in range(20))


def pairs(count, words):
    text = "long words of a page " * (words // 5)
    kinds = ("error", "neighbour")
    return [
        EvidenceItem(fields={"query": f"q{n}", "title": f"{n} {text}"}, truth="0", kind=kinds[n % 2])
        for n in range(count)
    ]


class Small:
    """A client that counts its tokens: one for each letter or sign of a word."""

    model, window = "small", 4096

    def tokens(self, text):
        return len(text) // 4


def asked(evidence, window=4096, client=None, settings=None):
    made = question(PARENT, evidence, HINTS, TASK, settings or RevisionSettings(), candidates=1, seed=0)
    return made.request(client or Small(), ModelSettings(max_tokens=4000), window)


@pytest.mark.parametrize("words", [20, 60, 600, 6000])
@pytest.mark.parametrize("window", [2560, 4096])
def test_a_small_window_holds_the_question_and_its_answer(words, window):
    request, shown = asked(pairs(40, words), window)
    prompt = sum(Small().tokens(m.content) for m in request.messages)
    assert prompt + request.max_tokens < window
    assert len(shown.evidence) >= 2
    assert [e.kind for e in shown.evidence] == ["error", "neighbour"] * (len(shown.evidence) // 2)
    assert f"{len(shown.evidence)} of 40" in shown.shortened
    assert RevisionRequest.model_validate_json(request.messages[-1].content) == shown
    place = json.dumps(request.schema).split('"maximum": ')[1]
    assert int(place.split("}")[0]) == len(shown.evidence) - 1


def test_a_wide_window_leaves_out_nothing_and_says_nothing():
    request, shown = asked(pairs(40, 60), window=100_000)
    assert len(shown.evidence) == 40
    assert "shortened" not in request.messages[-1].content
    unknown, _ = asked(pairs(40, 60), window=None)
    assert unknown.messages == request.messages
    assert unknown.max_tokens == 4000


def test_texts_are_cut_before_evidence_is_left_out_and_the_last_goes_first():
    few = shortened(asked(pairs(40, 600), None)[1], lambda shown: len(shown.text()) < 20_000)
    fields = [e.fields["title"] for e in few.evidence]
    assert all(text.startswith(str(n)) for n, text in enumerate(fields))
    assert all(" … " in text and len(text) < 1300 for text in fields)
    assert 12 <= len(fields) < 40


class Refusing(WordReviser):
    """An endpoint that says how long its window is only when a prompt is too long for it."""

    model, simulated = "refusing", False

    def __init__(self, words):
        super().__init__()
        self.words, self.sizes = words, []

    def _one(self, request, on_completion):
        size = sum(len(m.content) for m in request.messages) // 3 + request.max_tokens
        self.sizes.append(size)
        if size < 4096:
            return super()._one(request, on_completion)
        return Completion(request.key, self.model, failure=Failure("request", self.words))


NAMED = "HTTP 400: This model's maximum context length is 4096 tokens. However, you requested 9000 tokens."


@pytest.mark.parametrize(
    ("words", "window"),
    [
        (NAMED, 4096),
        ("HTTP 400: request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it", 4096),
        ("HTTP 400: prompt is too long: 9000 tokens > 4096 maximum", 4096),
        ("HTTP 400: exceeds the maximum number of tokens allowed (4,096).", 4096),
        ("HTTP 400: the prompt is too long", 8192),
    ],
)
def test_a_window_is_read_from_the_words_of_a_refusal_or_guessed(words, window):
    assert is_too_long(words)
    fit = Fit(None)
    fit.narrow([words])
    assert fit.window == window
    fit.narrow([words])  # even so it was too long
    assert fit.window == window // 2


def test_the_window_of_an_endpoint_is_learnt_when_it_refuses(tmp_path):
    store, journal = world(tmp_path, groups=20)
    reviser = Refusing(NAMED)
    settings = EvolveSettings(rounds=1, revision=RevisionSettings(candidates=2))
    report, _ = evolve(store, loop_models(WordTeacher(), reviser), SEED, settings, journal=journal)
    assert min(reviser.sizes) < 4096 < reviser.sizes[0]
    own, drafted = report.revisers
    assert (own["model"], own["answers"], own["read"]) == ("refusing", 2, 2)
    assert own["usable"] >= 1
    assert own["offered"] >= own["usable"] >= own["survived"]
    assert (drafted["model"], drafted["asked"]) == ("rulebook", 1)


def test_a_window_that_is_set_is_kept_to_from_the_first_prompt(tmp_path):
    store, journal = world(tmp_path, groups=20)
    reviser = Refusing("too long")
    models = loop_models(WordTeacher(), reviser, reviser_settings=ReviserSettings(window=4000))
    evolve(store, models, SEED, EvolveSettings(rounds=1), journal=journal)
    assert max(reviser.sizes) < 4096


class Babbling(WordReviser):
    """A language model that answers in prose."""

    model, simulated = "babbling", False

    def say(self, request):
        return "I would make the rules clearer."


@pytest.mark.parametrize("draft", ["offline", "none"])
def test_what_each_reviser_brought_is_counted_and_the_offline_draft_races_beside_it(tmp_path, draft):
    store, journal = world(tmp_path, groups=20)
    events = []
    settings = EvolveSettings(rounds=2, revision=RevisionSettings(candidates=2, draft=draft))
    report, _ = evolve(
        store, loop_models(WordTeacher(), Babbling()), SEED, settings, journal=journal, on_event=events.append
    )
    own = report.revisers[0]
    assert (own["model"], own["read"], own["usable"], own["won"]) == ("babbling", 0, 0, False)
    assert own["refused"] == {"an answer that is not the JSON asked for": own["answers"]}
    assert any("babbling said could be tried" in warning for warning in report.warnings)
    assert [one["model"] for one in report.revisers[1:]] == (["rulebook"] if draft == "offline" else [])
    drafted = [e for e in events if e.kind == "proposed"]
    assert len(drafted) == sum(one["usable"] for one in report.revisers)
