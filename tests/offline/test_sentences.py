"""The grammar of rules: what is written is read back, and people's own wordings mean the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piar.offline.grammar import parse, sentence, to_text
from piar.offline.predicates import Agrees, All, AnyOf, Contains, Length, Matches, Names, Not, Part, Predicate, Words
from piar.offline.words import KINDS, read_text

FIELDS = ("query", "title")

terms = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=9), min_size=1, max_size=4, unique=True
).map(tuple)
whole = st.builds(Part, st.sampled_from(FIELDS))
parts = st.one_of(
    whole,
    st.builds(Part, st.sampled_from(FIELDS), st.just(""), st.sampled_from(("before", "after")), terms),
)
single = st.builds(Part, st.sampled_from(FIELDS), st.sampled_from(("first", "last")))
kinds = st.sampled_from(KINDS)
counts = st.integers(1, 9)
comparisons = st.sampled_from((">=", "<=", "=", ">", "<"))
atoms: st.SearchStrategy[Predicate] = st.one_of(
    st.builds(Words, parts, parts, st.sampled_from(("present", "missing")), comparisons, counts),
    st.builds(Words, parts, parts, st.sampled_from(("present", "missing")), st.just("="), st.just(0)),
    st.builds(Words, parts, parts, st.just("percent"), comparisons, st.integers(1, 99)),
    st.builds(Words, single, whole, st.just("present"), st.just(">="), st.just(1)),
    st.builds(Matches, parts, parts, st.sampled_from(("same", "phrase", "start", "end"))),
    st.builds(Contains, parts, terms, st.sampled_from(("anywhere", "start", "end"))),
    st.builds(Contains, parts, terms.filter(lambda t: len(t) > 1), st.just("anywhere"), st.just(True)),
    st.builds(Length, parts, st.sampled_from(("words", "characters")), comparisons, counts),
    st.builds(Names, parts, kinds),
    st.builds(Agrees, whole, whole, kinds, st.sampled_from(("same", "missing", "differs"))),
)


def conjunctions(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(several.map(All), several.map(AnyOf), inner.map(Not))


predicates = st.recursive(atoms, conjunctions, max_leaves=4)
samples = st.fixed_dictionaries({f: st.text("abc 19 red cm for", max_size=30) for f in FIELDS})


@settings(max_examples=200, deadline=None)
@given(predicates, samples)
def test_what_is_written_is_read_back_with_the_same_meaning(predicate, fields):
    read = parse(sentence(predicate), FIELDS)
    assert read is not None, to_text(predicate)
    view = {name: read_text(value) for name, value in fields.items()}
    assert read.holds(view) == predicate.holds(view), to_text(predicate)


@settings(max_examples=150, deadline=None)
@given(atoms)
def test_single_predicates_come_back_equal(predicate):
    assert parse(to_text(predicate), FIELDS) == predicate


EVERY = Words(Part("query"), Part("title"), "missing", "=", 0)
NONE = Words(Part("query"), Part("title"), "present", "=", 0)
CASES = Contains(Part("title"), ("case", "cover"))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("All of the query's words are found in the product name.", EVERY),
        ("whenever each query term occurs in the title", EVERY),
        ("The title contains all the words of the query", EVERY),
        ("No word from the search appears in the product title", NONE),
        ("the query and the title share no words", NONE),
        ("None of the query words are in the title", NONE),
        ("the title mentions “case” or “cover”", CASES),
        ("The title includes any of the words 'case', 'cover'", CASES),
        ("the title has case or cover", Contains(Part("title"), ("case", "cover"))),
        ("the title doesn't contain \"case\"", Not(Contains(Part("title"), ("case",)))),
        ('neither "x" nor anything the grammar knows', None),
        ('the title says "case" unless the query does',
         All((Contains(Part("title"), ("case",)), Not(Contains(Part("query"), ("case",)))))),
        ('if the title contains "case" and the query does not mention it',
         All((Contains(Part("title"), ("case",)), Not(Contains(Part("query"), ("case",)))))),
        ("two words of the query are missing from the title", Words(Part("query"), Part("title"), "missing", "=", 2)),
        ("more than half of the query's words appear in the title",
         Words(Part("query"), Part("title"), "percent", ">", 50)),
        ("the product is nice", None),
        ("", None),
    ],
)  # fmt: skip
def test_people_say_the_same_in_their_own_words(said, meant):
    assert parse(said, FIELDS) == meant


@pytest.mark.parametrize(
    ("said", "query", "title", "holds"),
    [
        ("the colour of the query differs from that of the title", "red shoe", "Blue shoe", True),
        ("the colour of the query differs from that of the title", "red shoe", "Shoe", False),
        ("the color of the query is missing from the title", "red shoe", "Shoe", True),
        ("the measure in the query and the title differ", "0.5 l bottle", "Bottle 500 ml", False),
        ("the measure in the query and the title differ", "0.5 l bottle", "Bottle 750 ml", True),
        ("the measure in the query and the title differ", "500 ml bottle", "Bottle 2 kg", False),
        ("the pack size of the query differs from that of the title", "6 pack cups", "Cups, pack of 4", True),
        ("the gender of the query differs from that of the title", "women's shoes", "Shoe for ladies", False),
        ("the title names a number", "x", "DS1100/12", True),
        ("the last word of the query appears in the title", "desk lamps", "Lámp", True),
        (
            'some word of the part of the query after "without" appears in the title',
            "bag without zip",
            "Bag, zip",
            True,
        ),
        ('every word of the part of the query before "without" appears in the title', "bag without zip", "Bag", True),
        ('no word of the part of the query after "for" appears in the title', "bag", "Bag", False),
        ("the query is empty", "", "Bag", True),
        ("every word of the query appears in the title", "", "Bag", False),
    ],
)
def test_predicates_mean_what_they_say(said, query, title, holds):
    predicate = parse(said, FIELDS)
    assert predicate is not None
    assert predicate.holds({"query": read_text(query), "title": read_text(title)}) is holds


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text):
    found = parse(text, FIELDS)
    assert found is None or parse(to_text(found), FIELDS) == found
    assert read_text(text) is not None


@pytest.mark.timeout(20)
def test_nonsense_does_not_take_long():
    assert parse("(" * 300 + "a" + ")" * 300, FIELDS) is None
    found = parse("the title contains x and " * 60, FIELDS)
    assert found is None or parse(to_text(found), FIELDS) == found
