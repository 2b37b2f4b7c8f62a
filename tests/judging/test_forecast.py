from dataclasses import replace

import pytest

from piar.judging.forecast import forecast, receipt
from piar.judging.session import Respondent
from piar.llm.base import Message, Request
from piar.llm.cost import Price
from piar.llm.settings import ModelSettings
from store.journal import Journal
from store.types import Completion, Failure, Usage, Verdict
from tests.small_project import small_project

SETTINGS = ModelSettings(model="openai:m", base_url="https://api.example.org/v1", price=Price(input=1.0, output=2.0))


class Priced:
    """A client that only has the name of `SETTINGS`."""

    model = "openai:m"


def teacher(**more):
    return Respondent(Priced(), SETTINGS.model_copy(update=more))


def ask(number: int) -> Request:
    return Request(str(number), (Message("user", "x" * 400),), max_tokens=100)


def test_a_pilot_tells_what_the_rest_takes(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    store, verdict = project.store, Verdict("", "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "teacher:openai:m", "i", 0, "1")
    journal = Journal(tmp_path / "toys" / "journal")
    for i in range(20):
        done = Completion(f"p{i}", "openai:m", "1", usage=Usage(300 + i, 200, 11))
        journal.append("teacher", "r", done, replace(verdict, key=f"p{i}"))
    journal.fold(store)
    journal.close()
    price = Price(input=1.0, cached_input=0.5, output=2.0)
    found = forecast(store, teacher(price=price), [ask(i) for i in range(100)], "i")
    assert (found.tokens_in, found.tokens_out) == (30950, 1100)
    assert found.cost_usd == pytest.approx((10950 * 1.0 + 20000 * 0.5 + 1100 * 2.0) / 1e6)
    assert found.basis == "as 20 earlier answers under this instruction"
    assert forecast(store, teacher(), [ask(1)], "another").tokens_in == 100


def test_adaptive_votes_are_forecast_as_a_range(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    found = project.forecast_label("true", votes=5, sure=0.9)
    assert (found.asked, found.most_asked) == (5, 25)
    report, _ = project.label("true", votes=5, sure=0.99)
    assert report.unsure == 5
    assert project.forecast_label("true", votes=5, sure=0.99).asked == 0
    assert project.forecast_label("true", votes=5).asked == 0


def test_without_earlier_answers_the_limit_counts_and_with_them_their_length(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    found = forecast(project.store, teacher(), [ask(i) for i in range(10)])
    assert (found.asked, found.tokens_in, found.tokens_out, found.host) == (10, 1000, 1000, "api.example.org")
    assert found.cost_usd == (1000 * 1.0 + 1000 * 2.0) / 1e6
    journal = Journal(tmp_path / "toys" / "journal")
    for i in range(30):
        journal.append("teacher", "r", Completion(str(i), "openai:m", "1", usage=Usage(100, 0, 7), cost_usd=0.5), None)
    journal.append("teacher", "r", Completion("bad", "openai:m", failure=Failure("timeout", "late")), None)
    journal.fold(project.store)
    journal.close()
    assert forecast(project.store, teacher(), [ask(i) for i in range(10)]).tokens_out == 70
    paid = receipt(project.store, "r", cached=4)
    assert (paid.calls, paid.cached, paid.failed, paid.tokens_out, paid.cost_usd) == (31, 4, {"timeout": 1}, 210, 15.0)
