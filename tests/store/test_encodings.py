"""Bytes become the text that was written, or the user is asked: never another text in silence."""

import pytest

from store.encodings import decode
from store.errors import UsageError

TEXTS = {
    "japanese": ["赤いランプ、小さい", "ノートパソコンの充電器", "東京の美味しいラーメン", "子供用の靴を探しています"],
    "chinese": ["红色的小台灯", "笔记本电脑充电器多少钱", "我想买一双儿童鞋", "这个商品和搜索没有关系"],
    "taiwanese": ["紅色的小檯燈", "筆記型電腦充電器多少錢", "我想買一雙兒童鞋", "這個商品和搜尋沒有關係"],
    "korean": [
        "빨간색 작은 램프",
        "노트북 충전기 가격",
        "아이들 신발을 찾고 있어요",
        "이 상품은 검색과 관련이 없습니다",
    ],
    "russian": ["красная лампа", "зарядное устройство для ноутбука", "Детская обувь недорого", "не имеет отношения"],
    "german": [
        "Größe über 40",
        "süße Äpfel für Müller",
        "weiße Möbel günstig",
        "schöne Grüße aus Köln",
        "5 € billiger",
    ],
    "french": ["café crème à emporter", "l’été où nous étions", "garçon, ça va très bien", "élève de première"],
    "spanish": ["zapatos de niño pequeño", "¿dónde está el baño?", "último año en España", "camión rápido"],
    "polish": ["żółta łódź podwodna", "proszę o książkę", "źle oceniony środek", "gęś i jajko święta"],
    "czech": ["příliš žluťoučký kůň", "úpěl ďábelské ódy", "červená židle", "děkuji uctivě"],
    "greek": ["κόκκινο φωτιστικό", "παιδικά παπούτσια", "φορτιστής υπολογιστή", "δεν έχει σχέση"],
}
READ = [
    ("japanese", "shift_jis"), ("japanese", "euc_jp"), ("japanese", "iso2022_jp"), ("chinese", "gbk"),
    ("taiwanese", "big5"), ("korean", "euc_kr"), ("russian", "koi8_r"), ("russian", "cp1251"), ("russian", "cp866"),
    ("german", "cp1252"), ("french", "cp1252"), ("french", "mac_roman"), ("spanish", "cp1252"),
    ("spanish", "mac_roman"), ("polish", "cp1250"), ("polish", "iso8859_2"), ("czech", "cp1250"), ("greek", "cp1253"),
    *((language, encoding) for language in TEXTS for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le")),
]  # fmt: skip


def table(language: str) -> str:
    return "query,title,grade\r\n" + "".join(
        f"{text},{other},{i % 3}\r\n" for i, text in enumerate(TEXTS[language]) for other in TEXTS[language]
    )


@pytest.mark.parametrize(("language", "encoding"), READ)
def test_the_text_is_what_was_written_and_another_encoding_is_said(language, encoding):
    text = table(language).replace("€", "") if encoding != "cp1252" else table(language)
    found = decode(text.encode(encoding), "file.csv")
    assert found.text == text
    assert bool(found.note) == (not encoding.startswith("utf-8"))


def written_in(encodings: str, languages: str) -> list[tuple[str, str]]:
    return [(language, encoding) for encoding in encodings.split() for language in languages.split()]


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *written_in("cp1252 cp850 cp1254 cp1258 mac_roman iso8859_15", "german french spanish"),
        *written_in("cp852 mac_latin2 iso8859_2 cp1250", "polish czech german"),
        *written_in("mac_cyrillic iso8859_5 cp855", "russian"),
        *written_in("iso8859_7 cp737", "greek"),
        *written_in("johab", "korean"),
    ],
)
def test_no_text_is_read_as_another_in_silence(language, encoding):
    data = table(language).encode(encoding, "ignore")
    try:
        found = decode(data, "file.csv").text
    except UsageError as error:
        found = (
            data.decode(encoding) if "cannot be told for sure" in error.message and "--encoding" in error.fix else ""
        )
    assert found == data.decode(encoding)


def test_a_doubtful_file_is_read_as_the_user_says():
    data = "query,title\nœ,ß\n".encode("mac_roman")
    with pytest.raises(UsageError, match="encoding cannot be told for sure"):
        decode(data, "file.csv")
    assert decode(data, "file.csv", "mac-roman").encoding == "MacRoman"


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "", "undefined\0"])
def test_an_unknown_encoding_is_wrong_usage(name):
    with pytest.raises(UsageError, match="no encoding that is known"):
        decode(b"a", "file.csv", name)


def test_an_encoding_that_does_not_fit_is_refused_with_the_line():
    with pytest.raises(UsageError, match=r"file.csv is not UTF-8: line 2 cannot be decoded, nor can 24 others"):
        decode(table("german").encode("cp1252"), "file.csv", "utf-8")


def test_a_larger_set_reads_a_file_that_names_the_smaller_one():
    assert decode("①②㈱\n".encode("cp932"), "file.csv", "shift_jis").text == "①②㈱\n"
