import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piar.llm.grade_probs import Token, grade_probs

GRADES = ("0", "1", "2")


def tokens(*texts, top=None, at=0):
    return [Token(t, top if top and i == at else {t: -0.01}) for i, t in enumerate(texts)]


def read(spelled, grades=GRADES, text=None, **options):
    return grade_probs(spelled, grades, "".join(t.text for t in spelled) if text is None else text, **options)


def logs(**shares):
    return {name.strip("_"): math.log(p) for name, p in shares.items()}


SOME = {"2": math.log(0.5), " 2": math.log(0.1), "1": math.log(0.2), "The": math.log(0.1)}


@pytest.mark.parametrize(
    ("texts", "at"),
    [
        (("2", "\n", "evidence"), 0),
        (("\n", "2", "\n"), 1),
        (('{"', "grade", '":', ' "', "2", '",', ' "', "evidence", '": []}'), 4),
        (('{"grade": "', "2", '"}'), 1),
        (("<think>", "\n\n", "</think>", "\n\n", "2", "\n"), 4),
        (("**", "2", "**"), 1),
        (("Here", ":\n", "```", '{"grade": "', "2", '"}', "```"), 4),
        (('{"evidence": ["1"], "grade": ', "2", "}"), 1),
    ],
)
def test_finds_the_token_that_carries_the_grade(texts, at):
    found = read(tokens(*texts, top=SOME, at=at))
    assert found.probs == pytest.approx({"0": 0, "1": 0.25, "2": 0.75})


def test_a_quote_glued_to_the_grade():
    top = {' "2': math.log(0.9), ' "1': math.log(0.1)}
    found = read(tokens('{"grade":', ' "2', '"}', top=top, at=1))
    assert found.probs == pytest.approx({"0": 0, "1": 0.1, "2": 0.9})


ANSWER = ('{"', "grade", '": "', "2", '", "', "evidence", '": []}')


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (("1", ". The", " query", "</think>", "\n\n"), "".join(ANSWER)),
        (("Maybe", " 1", "?"), "".join(ANSWER)),  # a server that leaves the mark of thinking out
        ((), "\n" + "".join(ANSWER)),
        (("\n\n",), "".join(ANSWER)),
    ],
)
def test_tokens_of_thinking_and_blanks_that_the_text_does_not_hold(before, text):
    found = read(tokens(*before, *ANSWER, "<|im_end|>", top=SOME, at=len(before) + 3), text=text)
    assert found.probs == pytest.approx({"0": 0, "1": 0.25, "2": 0.75})


def test_tokens_that_cover_the_beginning_of_the_answer():
    found = read(tokens("1", ".", "</think>", *ANSWER[:4], top=SOME, at=6), text="".join(ANSWER))
    assert found.probs["2"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("spelled", "text"),
    [
        (tokens("I", " say", " 2"), "2"),  # only the thinking
        (tokens("1", ".", " The", " query"), "2\nevidence:"),
        (tokens("2", "\n"), '{"grade": "2"}'),
        (tokens(*ANSWER[3:]), "".join(ANSWER)),
        (tokens('{"grade": "'), "".join(ANSWER)),  # the grade is not among them
    ],
)
def test_tokens_of_another_text_are_left_out_aloud(spelled, text):
    found = read(spelled, text=text)
    assert found.probs is None
    assert found.reason


@pytest.mark.parametrize("marks", [("Ġ", "Ċ"), ("▁", "<0x0A>")])
def test_tokens_as_vocabularies_write_them(marks):
    blank, line = marks
    top = {f"{blank}2": math.log(0.75), f"{blank}1": math.log(0.25)}
    assert read(tokens("Grade:", f"{blank}2", line, top=top, at=1), text="Grade: 2").probs["2"] == pytest.approx(0.75)


def test_bytes_that_are_no_character():
    raw = "２".encode()
    parts = [raw[:2].decode(errors="surrogateescape"), raw[2:].decode(errors="surrogateescape")]
    other = "１".encode()[2:].decode(errors="surrogateescape")
    found = grade_probs(tokens(*parts, top={parts[1]: math.log(0.8), other: math.log(0.2)}, at=1), ("２", "１"), "２")
    assert found.probs == pytest.approx({"２": 0.8, "１": 0.2})


TEN = tuple(str(i) for i in range(1, 11))


def test_a_grade_that_begins_another_is_parted_by_what_follows():
    spelled = [Token("1", logs(_1=0.6, _2=0.4)), Token("\n", {"\n": math.log(0.75), "0": math.log(0.25)})]
    found = read(spelled, TEN, "1\nevidence:")
    assert found.probs == pytest.approx({**dict.fromkeys(TEN, 0), "1": 0.45, "2": 0.4, "10": 0.15})
    spelled = [Token("1", logs(_1=0.6, _2=0.4)), Token("0", {"\n": math.log(0.25), "0": math.log(0.75)})]
    assert read(spelled, TEN, "10").probs == pytest.approx({**dict.fromkeys(TEN, 0), "1": 0.15, "2": 0.4, "10": 0.45})


def test_a_token_that_is_a_grade_is_that_grade():
    found = read(tokens("1", top=logs(_1=0.45, _2=0.4, _3=0.15)), TEN)
    assert (found.probs["1"], found.probs["2"]) == pytest.approx((0.45, 0.4))
    found = read(tokens("10", top=logs(_10=0.45, _1=0.4)), TEN)
    assert found.probs["10"] > found.probs["1"] > 0
    assert read(tokens("2", top=logs(_2=0.6, _1=0.4)), TEN).probs["1"] == pytest.approx(0.4)


def test_worded_grades_of_several_tokens():
    grades = ("somewhat relevant", "somewhat irrelevant", "irrelevant")
    spelled = [
        Token("Some", {"Some": math.log(0.8), "Irr": math.log(0.2)}),
        Token("what", {"what": 0.0}),
        Token(" rel", {" rel": math.log(0.75), " irr": math.log(0.25)}),
        Token("evant", {"evant": 0.0}),
    ]
    found = read(spelled, grades).probs
    assert found == pytest.approx({grades[0]: 0.6, grades[1]: 0.2, grades[2]: 0.2})


def test_symbols_that_differ_in_case_or_by_a_star():
    grades = ("A", "A*", "a")
    spelled = [Token("A", logs(A=0.8, a=0.2)), Token("*", {"*": math.log(0.75), "\n": math.log(0.25)})]
    assert read(spelled, grades).probs == pytest.approx({"A": 0.2, "A*": 0.6, "a": 0.2})


@pytest.mark.parametrize(
    ("spelled", "options", "reason"),
    [
        ([Token("2", {"The": math.log(0.8), "2": math.log(0.2)})], {}, "too little"),
        ([Token("2", {"1": math.log(0.9)})], {}, "contradict"),
        ([Token("2", logs(_1=0.6, _2=0.4))], {"likeliest": True}, "contradict"),
        ([Token("2", {"2": math.log(0.7)})], {}, "no alternatives"),
    ],
)
def test_unknown_aloud(spelled, options, reason):
    found = read(spelled, **options)
    assert found.probs is None
    assert reason in found.reason


def test_a_sampled_grade_need_not_be_the_likeliest():
    assert read([Token("2", logs(_1=0.6, _2=0.4))]).probs["1"] == pytest.approx(0.6)


def test_an_answer_without_a_grade_has_a_reason_of_its_own():
    assert read(tokens("The"), text="The").probs is read([]).probs is None


@given(
    st.lists(st.tuples(st.text(max_size=4), st.dictionaries(st.text(max_size=3), st.floats(-50, 0), max_size=8))),
    st.text(st.sampled_from('12 0"{}:grade\n'), max_size=20),
    st.booleans(),
)
def test_always_a_distribution_with_the_grade_in_it_or_unknown(spelled, text, likeliest):
    found = read([Token(t, {t: -1.0, **top}) for t, top in spelled], ("1", "10", "2"), text, likeliest=likeliest).probs
    assert found is None or (set(found) == {"1", "10", "2"} and math.isclose(sum(found.values()), 1))
