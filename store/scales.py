"""Scales of words that are in common use, so that grades found in a file come in their order and not the alphabet's.

A word that stands on no scale here has no order until a person gives one: see `Task.ordered`.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

# Lowest first; `=` joins words for the same level. Sources: the labels of Amazon's Shopping Queries (ESCI), of the web
# search sets of Bing and Yahoo, of TREC's tracks, Likert's scales of agreement, frequency and satisfaction, school
# marks, and the plain words of their languages.
_SCALES = (
    # relevance
    "irrelevant=not relevant=non relevant=nonrelevant=unrelated < complement < substitute < exact=exact match",
    "i < c < s < e",
    "i < ii < iii < iv < v",
    "irrelevant=not relevant=non relevant=nonrelevant=not at all relevant=unrelated"
    " < marginally relevant=slightly relevant=somewhat relevant=partially relevant=partly relevant=related"
    " < relevant=fairly relevant=mostly relevant < highly relevant=very relevant < perfectly relevant=fully relevant",
    "no match=irrelevant=not relevant < partial match=partial < exact match=exact=full match=match",
    "不相关 < 部分相关 < 相关 < 高度相关",
    "無関係 < やや関連 < 関連",
    "nerelevantní < částečně relevantní < relevantní",
    "nicht relevant=irrelevant < teilweise relevant < relevant < sehr relevant=hoch relevant",
    "non pertinent < partiellement pertinent < pertinent < très pertinent",
    "no relevante=irrelevante < parcialmente relevante < relevante < muy relevante",
    # quality
    "terrible=awful=very bad < bad=poor < ok=okay=fair=average=acceptable=medium=mediocre < good < very good=great"
    " < excellent < perfect=outstanding",
    "ungenügend < mangelhaft < ausreichend < befriedigend < gut < sehr gut",
    "sehr schlecht < schlecht < mittel=mittelmäßig < gut < sehr gut < ausgezeichnet",
    "très mauvais < mauvais < passable=moyen < bon=bien < très bon=très bien < excellent=parfait",
    "muy malo < malo < regular < bueno < muy bueno < excelente=perfecto",
    "pessimo < scarso < sufficiente < buono < ottimo",
    "péssimo < ruim=mau < regular < bom < muito bom < ótimo=excelente",
    "slecht < matig < voldoende < goed < uitstekend",
    "очень плохо < плохо < удовлетворительно=нормально < хорошо < отлично",
    "很差 < 差 < 一般 < 好 < 很好 < 优秀",
    "悪い < 普通 < 良い=よい < とても良い",
    # amount and severity
    "none=not at all < very low=minimal < low=slight=slightly=minor=mild=a little < medium=moderate=moderately=mid"
    " < high=major=severe=very < very high=critical=extreme=extremely",
    "niedrig=gering < mittel < hoch",
    "faible < moyen=modéré < élevé=fort",
    "bajo < medio < alto",
    "small < medium < large",
    "easy < medium < hard=difficult",
    # frequency
    "never < rarely=seldom < sometimes=occasionally < often=frequently < usually < always",
    "nie=niemals < selten < manchmal < oft=häufig < immer",
    "jamais < rarement < parfois < souvent < toujours",
    "nunca < rara vez=raramente < a veces=às vezes < a menudo=frequentemente < siempre=sempre",
    "mai < raramente < a volte < spesso < sempre",
    "никогда < редко < иногда < часто < всегда",
    "从不 < 很少 < 有时 < 经常 < 总是",
    # agreement and satisfaction
    "strongly disagree < disagree < somewhat disagree=slightly disagree"
    " < neutral=neither=undecided=neither agree nor disagree < somewhat agree=slightly agree < agree < strongly agree",
    "stimme gar nicht zu < stimme nicht zu < neutral=teils teils < stimme zu < stimme voll zu",
    "very dissatisfied < dissatisfied=unsatisfied < neutral < satisfied < very satisfied",
    "very unlikely < unlikely < neutral=possible < likely < very likely",
    # sentiment
    "very negative < negative=neg < neutral=mixed < positive=pos < very positive",
    "negativ < neutral < positiv",
    "négatif < neutre < positif",
    "negativo < neutro=neutral < positivo",
    "отрицательный=негативный < нейтральный < положительный=позитивный",
    "负面=消极 < 中性 < 正面=积极",
    # yes and no, right and wrong
    "no=n < maybe=unsure=partly=partially=unclear < yes=y",
    "false=f < true=t",
    "nein < vielleicht=teilweise < ja",
    "non < peut être < oui",
    "no < quizás=tal vez < sí=si",
    "нет < возможно < да",
    "否 < 是",
    "いいえ < はい",
    "falsch < teilweise richtig < richtig=wahr",
    "faux < vrai",
    "falso < verdadero=vero=verdadeiro",
    "incorrect=wrong < partially correct=partly correct=partial < correct=right",
    "fail=failed < pass=passed",
    "reject=rejected < borderline < accept=accepted",
    "dislike=thumbs down=down < like=thumbs up=up",
    "👎 < 😐=🤷 < 👍",
    "❌=✗=✘ < ✅=✓=✔",
    "🙁=☹ < 😐 < 🙂=☺",
    "f < d- < d < d+ < c- < c < c+ < b- < b < b+ < a- < a < a+",
)
_STARS = re.compile(r"[★⭐*✭✰]*[☆]*")


def plain(word: str) -> str:
    """A word as scales know it: one width, one case, blanks for `_`, `-` and the like, no skin tones or selectors."""
    text = unicodedata.normalize("NFKC", word).casefold().strip()
    text = "".join(c for c in text if not "\U0001f3fb" <= c <= "\U0001f3ff" and c != "\ufe0f")
    return " ".join(re.sub(r"(?<=\w)[_\-/]+(?=\w)", " ", text).split()) if len(text) > 2 else text


def _levels(scale: str) -> dict[str, int]:
    return {plain(word): place for place, level in enumerate(scale.split(" < ")) for word in level.split("=")}


_KNOWN = tuple(_levels(scale) for scale in _SCALES)


def known_order(words: Iterable[str]) -> list[str] | None:
    """These grades, lowest first, when a known scale holds them all and all known scales that do agree; else None.

    School marks need an F or a sign, since A, B and C alone may as well be the choices of a question.
    """
    names = {word: plain(word) for word in words}
    if all(_STARS.fullmatch(word) for word in names):
        counted = {word: len(re.sub("☆", "", word)) for word in names}
        return sorted(counted, key=lambda word: counted[word]) if len({*counted.values()}) == len(counted) else None
    marks = set(names.values()) <= _KNOWN[-1].keys() and not any(n == "f" or len(n) == 2 for n in names.values())
    found: list[list[str]] = []
    for levels in _KNOWN[:-1] if marks else _KNOWN:
        places = {word: levels[name] for word, name in names.items() if name in levels}
        if len(places) == len(names) == len({*places.values()}):
            found.append(sorted(places, key=lambda word: places[word]))
    return found[0] if found and all(order == found[0] for order in found) else None


def numeric(words: Sequence[str]) -> bool:
    """Whether all grades are numbers, which order themselves."""
    return all(re.fullmatch(r"-?\d+(?:\.\d+)?", word) for word in words)
