"""Bytes as text: by byte order mark, as UTF-8, else in the one encoding that reads them as words; never a silent guess.

Encodings of two bytes a character are told apart by where each set keeps its common characters, those of Latin
letters by the alphabets of languages, those of other scripts (Cyrillic, Greek, Hebrew, Arabic, Thai) by
charset-normalizer, which cannot tell the former two kinds on the few words that a table may hold. Where several
readings stay possible, the user is asked.
"""

import codecs
import re
from dataclasses import dataclass

from store.errors import UsageError

_SAMPLE = 1 << 16  # bytes that the detection sees, of lines that are not plain ASCII
_MOST_BROKEN = 0.1  # share of the lines beyond ASCII that may be damaged; with more, the encoding is another
_FEW = 100  # characters or bytes; fewer hold too little to be sure by
_BROKEN = "\udcff"  # stands for a byte that cannot be decoded; no encoding gives it
_MARKS = (
    (codecs.BOM_UTF8, "utf_8_sig"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
# What is tried, and how people call it. `big5hkscs`, `gb18030`, `cp932` and `cp949` hold all of their namesakes.
_NAMES = {
    "cp932": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "iso2022_jp": "ISO-2022-JP",
    "gb18030": "GBK",
    "big5hkscs": "Big5",
    "cp949": "EUC-KR",
    "koi8_r": "KOI8-R",
    "koi8_u": "KOI8-U",
    "cp1251": "Windows-1251",
    "cp866": "DOS 866",
    "mac_cyrillic": "Mac Cyrillic",
    "cp1253": "Windows-1253",
    "cp1255": "Windows-1255",
    "cp1256": "Windows-1256",
    "cp874": "Windows-874",
    "cp1252": "Windows-1252",
    "mac_roman": "MacRoman",
    "cp850": "DOS 850",
    "cp1250": "Windows-1250",
    "iso8859_2": "Latin-2",
    "cp1254": "Windows-1254",
    "cp1258": "Windows-1258",
    "utf_16": "UTF-16",
    "utf_16_le": "UTF-16",
    "utf_16_be": "UTF-16",
    "utf_32": "UTF-32",
    "utf_8": "UTF-8",
    "utf_8_sig": "UTF-8",
}
# A file that says it is the smaller set is usually written in the larger one; browsers read it so too (WHATWG).
_LARGER = {
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "utf_8": "utf_8_sig",
}
_WESTERN = ("àáâãäåæçèéêëìíîïñòóôõöøùúûüÿßœ", "áæéðíóöúýþ")
_TURKISH = ("çğıöşüâîûi",)
_CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîșşțţ", "čćđšž", "äöüß")
_ALPHABETS = {
    "cp1252": _WESTERN,
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1254": _TURKISH,
}
# Codec -> its basic set, the lead bytes of that set's common characters, and whether its texts hold kana. In this
# order: what is common in EUC-KR is common in GBK too.
_COMMON = {
    "cp932": ("shift_jis", frozenset((*range(0x81, 0x84), *range(0x88, 0x98))), True),
    "euc_jp": ("euc_jp", frozenset((0xA1, 0xA3, 0xA4, 0xA5, *range(0xB0, 0xD0))), True),
    "cp949": ("euc_kr", frozenset((0xA1, 0xA3, *range(0xB0, 0xC9))), False),
    "gb18030": ("gb2312", frozenset((0xA1, 0xA3, *range(0xB0, 0xD8))), False),
    "big5hkscs": ("big5", frozenset(range(0xA1, 0xC7)), False),
}
_OTHERS = ("koi8_r", "koi8_u", "cp1251", "cp866", "mac_cyrillic", "cp1253", "cp1255", "cp1256", "cp874")
_MARKS_OF_TEXT = frozenset("’‘“”„‚–—…•·«»‹›°€£©®™¡¿§²³½¼¾×º\xa0")  # what stands beside words, ’ also within them
_ALONE = frozenset("àáâãèéêòóôùúyíæåöäüœ")  # letters that are words, or stand alone in lists


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text and how it was read.

    Attributes:
        encoding: as people call it.
        note: what to tell when the encoding was not UTF-8; "" otherwise.
    """

    text: str
    encoding: str
    note: str = ""


def decode(data: bytes, name: str, encoding: str | None = None) -> Decoded:
    """The text of a file. Bytes that cannot be decoded are kept as a mark, by which `is_broken` knows their row.

    Args:
        name: of the file, for messages.
        encoding: what the user says it is; detected when None.

    Raises:
        UsageError: an encoding that Python does not know, one that does not fit, or none that can be told for sure.
    """
    if encoding is not None:
        return _said(data, name, encoding)
    mark = next((codec for mark, codec in _MARKS if data.startswith(mark)), None) or _utf16(data)
    if mark:
        return _read(data, name, mark, "" if mark == "utf_8_sig" else "by its first bytes")
    if b"\x1b$" in data and data.isascii():
        return _read(data, name, "iso2022_jp", "by its escape sequences")
    text = data.decode("utf-8", "piar-broken")
    if _BROKEN not in text or _mostly_good(text):
        return Decoded(text, "UTF-8")
    return _read(data, name, _detect(data, name), "detected; --encoding names another")


def _mostly_good(text: str) -> bool:
    beyond = _letters(text)
    return beyond.count(_BROKEN) * 2 <= len(beyond)


def is_broken(text: str) -> bool:
    """Whether some byte of it could not be decoded."""
    return _BROKEN in text


def _mark_broken(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _BROKEN * (error.end - error.start), error.end


codecs.register_error("piar-broken", _mark_broken)


def _said(data: bytes, name: str, encoding: str) -> Decoded:
    try:
        codec = codecs.lookup(encoding.strip())
        if not codec._is_text_encoding:
            raise LookupError
    except (LookupError, ValueError):
        raise UsageError(
            f"{encoding!r} is no encoding that is known here.", "Write --encoding utf-8, shift_jis, gbk, cp1252, …"
        ) from None
    known = codec.name.replace("-", "_")
    return _read(data, name, _LARGER.get(known, known), "as --encoding says")


def _read(data: bytes, name: str, codec: str, why: str) -> Decoded:
    try:
        text = data.decode(codec, "piar-broken")
    except UnicodeError:
        text = _BROKEN
    called = _NAMES.get(codec, codec)
    if _BROKEN in text:
        lines = re.split("\r\n|\r|\n", text)
        broken = [number for number, line in enumerate(lines, 1) if _BROKEN in line]
        if len(broken) > max(1, _MOST_BROKEN * sum(not line.isascii() for line in lines)):
            raise UsageError(
                f"{name} is not {called}: line {broken[0]} cannot be decoded, nor can {len(broken) - 1:,} others.",
                "Name the right encoding: --encoding utf-8, shift_jis, gbk, big5, euc_kr, koi8_r, cp1252, mac_roman, …",
            )
    return Decoded(text.removeprefix("\ufeff"), called, f"encoding: {called} ({codec}), {why}" if why else "")


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of what is ASCII in it, as its line ends are, is a zero."""
    head = data[:_SAMPLE]
    evens, odds = head[0::2].count(0), head[1::2].count(0)
    if max(evens, odds) <= len(head) // 100 or min(evens, odds) > max(evens, odds) // 4:
        return None
    codec, ends = ("utf_16_be", ("\0\n", "\0\r")) if evens > odds else ("utf_16_le", ("\n\0", "\r\0"))
    return codec if any(end.encode() in head for end in ends) else None


def _detect(data: bytes, name: str) -> str:
    """The one encoding that reads the lines beyond ASCII as words."""
    sample = _beyond_ascii(data)
    readings = _asian_readings(sample)
    if not readings or len(sample) < _FEW:
        readings |= _latin_readings(sample) | _other_readings(sample)
    if len({_letters(text) for text in readings.values()}) != 1:
        raise _unsure(name, readings)
    return next(iter(readings))


def _beyond_ascii(data: bytes) -> bytes:
    kept, size = [], 0
    for line in data.splitlines():
        if not line.isascii():
            kept.append(line)
            size += len(line)
            if size > _SAMPLE:
                break
    return b"\n".join(kept)


def _letters(text: str) -> str:
    return "".join(c for c in text if c > "\x7f")


def _is_latin(text: str) -> bool:
    """Whether no other script has most of the characters beyond ASCII."""
    beyond = _letters(text)
    return sum(c >= "\u0370" and c.isalpha() for c in beyond) * 2 < len(beyond)


def _asian_readings(sample: bytes) -> dict[str, str]:
    """Each encoding of two bytes a character by which the sample is made of runs of its common characters.

    Long texts in Japanese hold kana; a few names may hold none, and could then be Chinese or Korean.
    """
    readings: dict[str, str] = {}
    for codec, (basic, leads, kana) in _COMMON.items():
        try:
            text = sample.decode(codec)
        except UnicodeDecodeError:
            continue
        beyond = _letters(text)
        common = sum(c.encode(basic, "replace")[0] in leads for c in beyond)
        pairs = len(re.findall("[^\0-\x7f](?=[^\0-\x7f])", text))
        if common < 0.95 * len(beyond) or pairs * 2 < len(beyond):
            continue
        if not kana or re.search("[\u3041-\u30fe]", text):
            return readings | {codec: text}
        if len(beyond) < _FEW:
            readings[codec] = text
    return readings


def _other_readings(sample: bytes) -> dict[str, str]:
    """Each encoding in which charset-normalizer finds a language of another script, about as well as in the best."""
    from charset_normalizer import from_bytes

    matches = [m for m in from_bytes(sample, cp_isolation=list(_OTHERS)) if not _is_latin(str(m)) and m.coherence > 0.2]
    best = matches[0] if matches else None
    return {
        m.encoding: str(m)
        for m in matches
        if best and m.chaos < best.chaos + 0.03 and m.coherence > best.coherence - 0.12
    }


def _latin_readings(sample: bytes) -> dict[str, str]:
    """Each encoding in which the sample is made of words of languages that are written in it."""
    readings = {}
    for codec, alphabets in _ALPHABETS.items():
        try:
            text = sample.decode(codec)
        except UnicodeDecodeError:
            continue
        if any(_is_words(text, frozenset(alphabet)) for alphabet in alphabets):
            readings[codec] = text
    return readings


def _is_words(text: str, alphabet: frozenset[str]) -> bool:
    """Whether nearly all characters beyond ASCII stand as they would in a text with these letters."""
    places = [i for i, c in enumerate(text) if c > "\x7f"]
    odd = sum(not _in_place(text[max(0, i - 1) : i], text[i], text[i + 1 : i + 2], alphabet) for i in places)
    return odd <= len(places) // 50


def _in_place(before: str, c: str, after: str, alphabet: frozenset[str]) -> bool:
    if c in _MARKS_OF_TEXT:
        return c == "’" or not (before.isalpha() and after.isalpha())
    if c.lower() not in alphabet:
        return False
    if c.isupper() and before.islower():
        return False
    return before.isalpha() or after.isalpha() or c in _ALONE


def _unsure(name: str, readings: dict[str, str]) -> UsageError:
    """Shows how each encoding would read the first line that differs, for the user to choose."""
    shown = [f"{codec}: {_excerpt(text)!r}" for codec, text in list(readings.items())[:4]]
    says = f"; it may be {', or '.join(shown)}" if shown else ""
    return UsageError(
        f"{name} is not UTF-8, and its encoding cannot be told for sure{says}.",
        f"Name it: --encoding {next(iter(readings), 'cp1252')}, or another.",
    )


def _excerpt(text: str) -> str:
    at = next((i for i, c in enumerate(text) if c > "\x7f"), 0)
    return text[max(0, at - 12) : at + 12].split("\n")[0].strip()
