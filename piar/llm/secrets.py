"""Keys taken out of text that is kept or shown, also where an endpoint echoes them in another spelling."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

SHORTEST = 8  # a shorter key is a placeholder such as `EMPTY`, which answers may hold as a word
HIDDEN = "***"

# How providers' keys begin; names under which people write a key down.
_KEY = re.compile(
    r"(?=.*\d)(?:(?:sk|pk|rk|gsk|xai|hf|ghp|glpat|r8|nvapi|pplx)[-_][\w-]{16,}|(?:AKIA|AIza)[\w-]{12,}|[Bb]earer\s+\S{8,})"
)
_NAMED = re.compile(r"(.*[_-])?(api[_-]?key|authorization|password|passwd|secret|access[_-]?token)", re.I)
_SHAPED = re.compile(r"(?i)\b(sk-|key-|bearer\s+)[\w*.\-]{4,}")


def secret_places(data: Any, place: str = "") -> Iterator[str]:
    """Where settings hold what looks like a key, as `section.name`; never the key itself."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            inside = f"{place}.{name}" if place else str(name)
            if isinstance(value, str) and value and _NAMED.fullmatch(str(name)):
                yield inside
            else:
                yield from secret_places(value, inside)
    elif isinstance(data, list):
        for value in data:
            yield from secret_places(value, place)
    elif isinstance(data, str) and _KEY.fullmatch(data.strip()):
        yield place


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """The text without the given secrets and without anything shaped like a key: for errors and notes."""
    return _SHAPED.sub(rf"\1{HIDDEN}", without(text, secrets))


def without(text: str, secrets: Sequence[str]) -> str:
    """The text without the given secrets, as they are or in JSON, URL, HTML or base64 spelling: for answers.

    Args:
        secrets: those shorter than `SHORTEST` are passed over.
    """
    for secret in secrets:
        if len(secret) >= SHORTEST:
            text = _spellings(secret).sub(HIDDEN, text)
    return text


@lru_cache(maxsize=32)
def _spellings(secret: str) -> re.Pattern[str]:
    """What matches a secret, each character of it as it is or escaped, and its base64 at any offset."""
    return re.compile("|".join(["".join(map(_escapes, secret)), *_encoded(secret)]))


def _escapes(character: str) -> str:
    code = ord(character)
    written = f"\\\\*u{code:04x}|%{code:02x}|&\\#(?:x{code:x}|{code});"
    return f"(?:\\\\?{re.escape(character)}|(?i:\\\\{written}))"


def _encoded(secret: str) -> list[str]:
    """The part of its base64 that does not depend on what stands before or after, for each of three offsets."""
    found = []
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + secret.encode()).decode().rstrip("=")
        stable = coded[-(-offset * 8 // 6) : -1]
        found.append(re.escape(stable).replace("\\+", "[+-]").replace("/", "[/_]"))
    return found
