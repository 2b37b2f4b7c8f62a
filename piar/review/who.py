"""Whom a file means where it says who answered: people of the batch, however a program or a person wrote them."""

from collections.abc import Iterable, Sequence

from store.errors import PiarError
from store.files import cell

LONGEST_NAME = 254  # of an annotator: an e-mail address


def who_answered(said: Iterable[str], people: Sequence[str], told: str, name: str) -> dict[str, str]:
    """What a file says of who answered -> annotator; a name that is nobody's of the batch stays.

    Args:
        said: names, addresses, the numbers that Label Studio gives people, "" for nothing.
        people: to whom the batch was given.
        told: who answered where the file does not say it, or what its names mean: `1=ann,2=bob`.
        name: of the file, for messages.

    Raises:
        PiarError: the file does not say it, or by numbers alone.
    """
    pairs = dict(part.split("=", 1) for part in told.split(",")) if _all_pairs(told) else {}
    alone = "" if pairs else told or (people[0] if len(people) == 1 else "")
    found = {word: pairs.get(word) or _known(word, people) for word in said}
    nameless = sorted(word for word, person in found.items() if person is None and (not word or word.isdecimal()))
    if len(nameless) == 1 and alone:
        found[nameless[0]] = alone
    elif nameless == [""]:
        raise PiarError(
            f"{name} does not say who answered.",
            f"Add --annotator NAME: it was given to {', '.join(people)}.",
        )
    elif nameless:
        numbers = [word for word in nameless if word]
        example = ",".join(f"{number}={people[i % len(people)]}" for i, number in enumerate(numbers))
        raise PiarError(
            f"{name} says who answered by numbers ({', '.join(numbers)})"
            + (", and of some rows not at all." if "" in nameless else " and not by names."),
            f"Say who they are, as in --annotator {example}; it was given to {', '.join(people)}.",
        )
    return {word: (person or word)[:LONGEST_NAME] for word, person in found.items()}


def _all_pairs(told: str) -> bool:
    return bool(told) and all("=" in part for part in told.split(","))


def _known(word: str, people: Sequence[str]) -> str | None:
    """The one of the batch who is written so: in other capitals, guarded for a spreadsheet, without the domain."""
    ways = (lambda p: p, cell, lambda p: p.partition("@")[0])
    for way in ways:
        found = [person for person in people if way(person).casefold() == word.casefold()]
        if word and len(found) == 1:
            return found[0]
    return None
