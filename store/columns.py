"""What a column of a file looks like, by its name and by its values: the questions that `store.propose` asks."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import polars as pl

from store.cells import MISSING, NO_GRADE, bare, captioned, missing, number
from store.figures import many
from store.scales import known_order, numeric, plain
from store.tables import moment

MAX_GRADES = 12
_LONGEST = 40  # characters of a grade; what is longer is a text
Few = Mapping[str, frozenset[str]]  # column -> its distinct values, of the columns that have few

_GOLD = (
    "gold",
    "gold_label",
    "gold_grade",
    "final_label",
    "final_grade",
    "final",
    "agreed",
    "consensus",
    "adjudicated",
    "ground_truth",
    "grade",
    "label",
    "relevance",
    "rel",
    "judgment",
    "judgement",
    "rating",
    "score",
    "class",
    "category",
    "target",
    "verdict",
    "decision",
    "sentiment",
    "stars",
    "priority",
    "overall",
    "overall_score",
    "overall_rating",
    "helpfulness",
)
_GOLD_ENDS = ("label", "grade", "relevance", "rating", "judgment", "judgement", "verdict", "decision", "score")
_WHEN = re.compile(r"date|when|time|timestamp|(?:annotated|labell?ed|graded|rated|judged|created|updated)_(?:at|on)")
_TEXT_GROUP = (
    "query",
    "search_query",
    "query_text",
    "search_term",
    "search_terms",
    "keyword",
    "keywords",
    "question",
    "prompt",
    "instruction",
    "topic",
    "utterance",
    "anfrage",
    "suchanfrage",
    "suchbegriff",
    "frage",
    "requête",
    "requete",
    "consulta",
    "pregunta",
    "domanda",
    "pergunta",
    "vraag",
    "запрос",
    "вопрос",
    "クエリ",
    "検索語",
    "質問",
    "查询",
    "搜索词",
    "问题",
    "검색어",
    "질문",
)
_WRAPPERS = ("input", "inputs", "field", "fields", "data", "user", "original", "raw", "source")  # as in `Input.query`
_MACHINES = frozenset(
    {"model", "llm", "ai", "machine", "auto", "automatic", "predicted", "prediction", "pred", "bot", "silver", "weak"}
)
_MODELS = ("gpt", "claude", "gemini", "llama", "mistral", "qwen", "deepseek")
_ID_GROUP = (
    "qid",
    "query_id",
    "queryid",
    "question_id",
    "prompt_id",
    "topic_id",
    "conversation",
    "conversation_id",
    "dialog_id",
    "dialogue_id",
    "thread",
    "thread_id",
    "session",
    "session_id",
    "customer",
    "customer_id",
    "user",
    "user_id",
    "patient_id",
    "group",
    "group_id",
)
_ID = re.compile(
    r"(?:\w+_)?(?:id|ids|uid|key|uuid|guid|index|no|sku|asin|hash|rank|position)|unnamed\w*|column_1|"
    r"(?:doc|q|item|product|pair|sample|row|task|record|case|user|worker|tweet|query|session)id"
)
_DOCUMENT_ID = re.compile(
    r"(?:doc|document|corpus|passage|product|item|article|listing|offer|candidate|answer|response|page|p|d)_?"
    r"(?:id|uid|no|key)|asin|sku|gtin|docno"
)
_PARSE = re.compile(r"(\w+?)_(?:binary_)?(?:parse|tokens|tokenized|lemmas?)")
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = re.compile(rf"\d{{1,2}}-{_MONTH}|{_MONTH}-\d{{2}}")  # what Excel makes of a cell such as 1-2
_LISTED = re.compile(r"\s*[;|,\n]\s*")
_COMPARED = 100  # distinct rows in which a text is compared with others
_WORD = r"\p{L}{2}|[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
_HANDLE = re.compile(r"https?://\S+|[0-9a-fA-F-]{16,}|[\w.@-]*\d[\w.@-]*")


def key(name: str) -> str:
    """A column's name in lower case, its words joined by `_`: "Query Text", "queryText (old)" -> "query_text"."""
    outside = re.sub(r"\s*[(\[][^)\]]*[)\]]\s*$", "", name) or name
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", outside.strip())
    return re.sub(r"\W+", "_", apart.lower()).strip("_")


def few_values(frame: pl.DataFrame) -> dict[str, frozenset[str]]:
    """The distinct values of each column that may hold grades, without what is missing."""
    return {name: values for name in frame.columns if (values := grades_in(frame[name])) is not None}


def grades_in(column: pl.Series) -> frozenset[str] | None:
    """The distinct values of a column that may hold grades, else None.

    Where nine cells of ten are numbers, the grades are numbers, and what else stands there is a slip.
    Lists and objects are no grades, nor are several of the others in one cell ("good; bad"). "none" is one among words;
    spellings of one word are one grade.
    """
    most = 2 * MAX_GRADES + len(MISSING)
    if column.head(10_000).n_unique() > most or column.n_unique() > most:
        return None
    counts: dict[str, int] = {}
    for value, n in column.alias("value").value_counts().rows():
        if not missing(value) or bare(value).lower() == NO_GRADE:
            counts[bare(value)] = counts.get(bare(value), 0) + n
    counts = {value: n for value, n in counts.items() if not _several(value, counts)}
    said = sum(n for value, n in counts.items() if not missing(value))
    numbers = {value: n for value, n in counts.items() if number(value) is not None}
    if sum(numbers.values()) >= 0.9 * said:
        counts = numbers
    values = one_spelling(counts)
    if len(values) > MAX_GRADES or any(len(value) > _LONGEST or nested(value) for value in values):
        return None
    return values


def _several(value: str, others: Collection[str]) -> bool:
    """Whether a cell lists other cells' values."""
    parts = _LISTED.split(value)
    return len(parts) > 1 and all(part in others for part in parts)


def one_spelling(values: Iterable[str]) -> frozenset[str]:
    """These grades, each once: of spellings that differ by capitals or blanks, the small one if it is there."""
    spelled: dict[str, str] = {}
    for value in sorted(values, key=lambda value: (value != value.lower(), value)):
        spelled.setdefault(plain(value), value)
    return frozenset(spelled.values())


def nested(value: str) -> bool:
    """Whether a cell is a list or an object rather than a word."""
    return value[:1] + value[-1:] in ("{}", "[]")


def fractions(values: Iterable[str]) -> bool:
    """Whether some of these numbers are neither whole nor halves: means of grades rather than grades."""
    return any(value is not None and (2 * value) % 1 for value in map(number, values))


def dates(values: Collection[str]) -> bool:
    """Whether most of these are dates, whole ones or the days that Excel makes of ranges."""
    found = (moment(value) is not None or _DAY.fullmatch(value) for value in values if number(value) is None)
    return sum(map(bool, found)) > len(values) / 2


def gold_named(names: Iterable[str]) -> str | None:
    """The column that is called like a final grade, the surest name first, a model's grades last."""
    keys = {key(name): name for name in reversed(list(names))}
    exact = next((keys[name] for name in _GOLD if name in keys), None)
    ends = [keys[k] for end in _GOLD_ENDS for k in reversed(keys) if k.endswith(f"_{end}")]
    return exact or next(iter(sorted(ends, key=by_machine)), None)


def called_gold(name: str) -> bool:
    """Whether a column's whole name is that of a grade, not only its end."""
    return key(name) in _GOLD


def tells_state(name: str) -> bool:
    """Whether a column is called like the state of a piece of work: submitted, approved, rejected."""
    return key(name).split("_")[-1] in ("status", "state")


def answers(name: str) -> bool:
    """Whether a column is called as crowds' platforms call an answer: `OUTPUT:result`, `Answer.relevance`."""
    return re.match(r"(?:OUTPUT:|Answer\.)\S", name) is not None


def settled(name: str) -> bool:
    """Whether a column is called like a grade that stands when all have spoken, which may stand on each one's row."""
    return key(name) in _GOLD[: _GOLD.index("grade")]


def called_class(name: str) -> bool:
    """Whether a column's name is one of classes as well as of grades."""
    return key(name).split("_")[-1] in ("label", "class", "category", "target")


def by_machine(name: str) -> bool:
    """Whether a column is called like what a model said."""
    words = key(name).split("_")
    return not _MACHINES.isdisjoint(words) or any(word.startswith(_MODELS) for word in words)


def date(frame: pl.DataFrame, names: Iterable[str]) -> str | None:
    """The column that says when, as ISO 8601."""
    for name in names:
        if _WHEN.fullmatch(key(name)):
            head = [value for value in frame[name].head(200).to_list() if not missing(value)]
            if head and sum(moment(value) is not None for value in head) > 0.9 * len(head):
                return name
    return None


def group(frame: pl.DataFrame, names: Sequence[str], texts: Sequence[str]) -> tuple[str | None, bool]:
    """The column whose equal values belong together, and whether its name or its shape says so.

    A name of a query first, then a name of an id; then an id that repeats, where no text does; else the text with the
    fewest values.
    """
    by_key = {_asked(name) or key(name): name for name in reversed(names)}
    repeats = {name: frame[name].n_unique() < len(frame) for name in names}
    text = next((by_key[k] for k in _TEXT_GROUP if k in by_key), None)
    ids = next(
        (by_key[k] for k in _ID_GROUP if k in by_key and repeats[by_key[k]] and not constant(frame, by_key[k])), None
    )
    if text and (repeats[text] or not ids):
        return text, True
    if ids:
        return ids, True
    if not any(repeats[name] for name in texts):
        ids = next((n for n in names if identifies(n) and MAX_GRADES < frame[n].n_unique() <= len(frame) / 2), None)
        if ids:
            return ids, True
    return min(texts, key=lambda name: frame[name].n_unique(), default=None), len(texts) == 1


def asks(name: str) -> bool:
    """Whether a column is called like the text of a query, which a judge has to read."""
    return _asked(name) is not None


def _asked(name: str) -> str | None:
    """The name of a query's text that a column has, also inside a wrapper's; else None."""
    known = key(name)
    wrapper, _, rest = known.partition("_")
    found = rest if wrapper in _WRAPPERS else known
    return found if found in _TEXT_GROUP else None


def all_differ(column: pl.Series) -> bool:
    """Whether no value comes twice: nobody grades so, however few the rows are."""
    held = column.filter(column.str.strip_chars() != "")
    return held.n_unique() == len(held)


def identifies(name: str) -> bool:
    """Whether a column is called like an id."""
    return bool(_ID.fullmatch(key(name))) or key(name) in _ID_GROUP


def constant(frame: pl.DataFrame, name: str) -> bool:
    """Whether all cells of a column are one."""
    return frame[name].n_unique() == 1


def names_document(name: str) -> bool:
    """Whether a column is called like the id of what is judged: a document, a product, an answer."""
    return bool(_DOCUMENT_ID.fullmatch(key(name)))


def names_group(name: str) -> bool:
    """Whether a column is called like the id of a query, or of what else rows belong to."""
    return key(name) in _ID_GROUP


def copies(frame: pl.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Those of the texts that say another one's words once more (parsed, in small letters) -> which text that is."""
    head = frame.select(names).unique(maintain_order=True).head(_COMPARED)
    words = {name: head[name].str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").to_list() for name in names}
    size = {name: int(head[name].str.len_chars().sum()) for name in names}
    long_first = sorted(names, key=lambda name: (size[name], names.index(name)), reverse=True)
    found: dict[str, str] = {}
    for name in long_first:
        others = [n for n in names if n != name and n not in found]
        parsed = _PARSE.fullmatch(key(name))
        source = next((n for n in others if words[n] == words[name] or (parsed and key(n) == parsed[1])), None)
        if source and not asks(name):
            found[name] = source
    return found


def no_text(frame: pl.DataFrame, name: str) -> str | None:
    """Why a column is no text for a judge to read; None where it is one."""
    head = frame[name].head(2000)
    told = head.filter(~head.str.strip_chars().str.to_lowercase().is_in(list(MISSING)))
    if told.is_empty():
        return "empty"
    if identifies(name):
        return "an id"
    if int(told.str.contains(_WORD).sum()) <= len(told) / 2:
        return "numbers or signs"
    different = told.n_unique()
    if different <= min(MAX_GRADES, len(head) // 2):
        return f"{different} distinct value{'s' if different > 1 else ''}"
    handles = told.head(200).to_list()
    if all(_HANDLE.fullmatch(cell.strip()) for cell in handles):
        return "ids or addresses"
    return None


def odd_grades(column: pl.Series) -> tuple[str, str]:
    """Why a column that should hold grades cannot, and a mend."""
    values = sorted({bare(value) for value in column.unique().to_list() if not missing(value)})
    if any(map(nested, values)):
        return (
            f"holds lists or objects ({next(filter(nested, values))[:40]}, …), not grades",
            "Write the grade itself into a column of its own; or name another column with --gold.",
        )
    shown = ", ".join(sorted(values, key=lambda v: (number(v) is None, number(v) or 0, v[:40]))[:4])
    if len(values) < 2:
        held = f"only one grade ({values[0][:40]})" if values else "no grade"
        return (
            f"holds {held} on {many(len(column), 'row')}; a task needs at least two",
            "Give all grades that may be given, lowest first: --grades 0,1,2; or name another column with --gold.",
        )
    known = [value for value in map(number, values) if value is not None]
    if fractions(values) and len(known) == len(values) and max(known) - min(known) < MAX_GRADES:
        return (
            f"holds means of grades ({shown}, …), {len(values):,} different ones, not grades",
            "Add --bucket-grades to take each as the nearest whole grade; better, import the raters' own grades.",
        )
    if len(known) == len(values) and not dates(values):
        low, high = min(known), max(known)
        quarters = ",".join(f"{float(f'{low + (high - low) * k / 4:.2g}'):g}" for k in (1, 2, 3))
        return (
            f"holds {len(values):,} different numbers ({shown}, …); a task has at most {MAX_GRADES} grades",
            f"Cut them into classes, each cut the lowest value of its class: --cuts {quarters}; "
            "or name another column with --gold.",
        )
    if dates(values):
        return f"holds dates ({shown}, …), not grades", "Name the column of grades: --gold COLUMN."
    longest = max(values, key=len)
    if len(values) <= MAX_GRADES and len(longest) > _LONGEST:
        return (
            f"holds a text of {len(longest):,} characters ({longest[:_LONGEST]}…); a grade has at most {_LONGEST}",
            "Name the grades, and rows with others are left out: --grades LOWEST,…,HIGHEST; "
            "or give long ones short names in the file.",
        )
    return (
        f"holds {len(values):,} different values ({shown}, …); a task has at most {MAX_GRADES} grades",
        "Name another column with --gold, or put its values into fewer classes before.",
    )


def in_order(values: Iterable[str]) -> list[str]:
    """Values for people to read: numbers by value, words by the alphabet."""
    listed = list(values)
    return sorted(listed, key=float) if numeric(listed) else sorted(listed)


def one_scale(gold: frozenset[str], rated: frozenset[str]) -> bool:
    """Whether the grades of two columns can be of one scale: one holds the other, or numbers, or a known scale."""
    union = gold | rated
    return gold <= rated or rated <= gold or numeric(list(union)) or known_order(union) is not None


def captions(values: Iterable[str]) -> dict[str, str] | None:
    """number -> words, where all values are numbers with words ("3 - perfect") and no number has two; else None."""
    pairs = {value: captioned(value) for value in values}
    found = {pair[0]: pair[1] for pair in pairs.values() if pair}
    return found if found and len(found) == len(pairs) else None
