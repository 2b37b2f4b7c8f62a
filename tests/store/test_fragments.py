"""SQL expressions beside plain Python."""

import re
import unicodedata

import duckdb
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from store.fragments import normal_text, word_list
from store.judges import verdict_relation
from tests import random_store

CON = duckdb.connect()
texts = st.text(st.sampled_from("aB9 é-,.\t\n'ß漢\u0301Ж_\u200b\u00ad"), max_size=12) | st.text(max_size=12).filter(
    lambda text: "\0" not in text
)


def plain_normal(text: str) -> str:
    """Lower case, letters, marks and digits kept, what nobody sees left out, all else one space between words."""
    seen = [c for c in text.lower() if unicodedata.category(c) != "Cf"]
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in seen)
    return re.sub(" +", " ", kept).strip(" ")


@given(texts)
@settings(max_examples=300, deadline=None)
def test_normal_text_keeps_words_alone(text):
    assume(all(unicodedata.category(c) != "Cn" for c in text))  # assigned since this Python's tables were made
    (found,) = CON.execute(f"select {normal_text('t')} from (select ?::varchar as t)", [text]).fetchone()
    if text.lower() == CON.execute("select lower(?)", [text]).fetchone()[0]:  # cases that DuckDB and Python know alike
        assert found == plain_normal(text)
    assert CON.execute(f"select {normal_text('t')} from (select ?::varchar as t)", [found]).fetchone()[0] == found


@given(st.lists(st.lists(st.text("abé1", min_size=1, max_size=3), max_size=4), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_word_list_holds_the_words_of_all_fields(fields):
    words = "\n".join(" ".join(field) for field in fields)
    (found,) = CON.execute(f"select {word_list('t')} from (select ?::varchar as t)", [words]).fetchone()
    assert found == [word for field in fields for word in field]


def test_the_slower_view_is_read_only_when_a_question_was_answered_twice(tmp_path):
    store = random_store.make(tmp_path / "piar.duckdb", 20, votes=2)
    asked = (random_store.JUDGE, random_store.INSTRUCTION.id)
    with store.write() as con:
        assert verdict_relation(con, *asked) == "verdicts"
        con.execute("insert into verdicts select * replace (null as grade) from verdicts where vote = 1 limit 1")
        assert verdict_relation(con, *asked) == "verdict"
        assert verdict_relation(con, "teacher:other", asked[1]) == "verdicts"
