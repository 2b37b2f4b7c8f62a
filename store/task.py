"""The task: which fields are judged, by which grades, with which trace steps and slices."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from store.errors import UsageError
from store.files import read_text
from store.ids import short_hash

# Columns of `samples` that a task's field may not shadow.
RESERVED = frozenset(
    {
        "sample_id",
        "group_key",
        "split",
        "source",
        "origin",
        "parent_id",
        "external_id",
        "run_id",
        "created_at",
        "inclusion",
        "grade",
        "truth",
        "judge",
        "vote",
    }
)
MAX_SYMBOL = 32  # characters
_EXPLAINED = 12  # complaints about one file that are told
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Grade(_Strict):
    """One grade: the symbol is the student's first token, the value orders grades."""

    symbol: str = Field(min_length=1, max_length=MAX_SYMBOL, pattern=r"^\S+$")
    name: str = ""
    value: float = Field(allow_inf_nan=False)
    meaning: str = ""

    @field_validator("symbol")
    @classmethod
    def _printable(cls, symbol: str) -> str:
        if not symbol.isprintable():
            raise ValueError("a grade symbol must be printable")
        return symbol


class Step(_Strict):
    """One structured sub-judgement of the trace; `choices` empty means free text on one line."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    asks: str = ""
    choices: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _not_a_keyword(cls, name: str) -> str:
        if name in {"grade", "evidence", "rules", "verdict"}:
            raise ValueError(f"step name {name!r} is a field of every trace; choose another")
        return name


class Task(_Strict):
    """What is judged. Read from `task.toml`; see `design` in the README for an example.

    Attributes:
        name: a short name, for headings and reports.
        group_by: the field or column whose equal values belong together (search: the query).
        fields: the text fields a judge reads, in order.
        grades: in ascending order of value.
        steps: structured sub-judgements of the trace.
        slices: name -> SQL condition over the fields, for guards and reports.
        ask: one sentence that says what is judged, shown to judges and annotators.
        ordered: the values order the grades. Where they do not (names of kinds, words of a scale that nobody has put
            in order), no measure that needs an order may be told.
    """

    name: str = Field(min_length=1)
    group_by: str = Field(min_length=1)
    fields: tuple[str, ...] = Field(min_length=1)
    grades: tuple[Grade, ...] = Field(min_length=2)
    steps: tuple[Step, ...] = ()
    slices: dict[str, str] = Field(default_factory=dict)
    ask: str = ""
    ordered: bool = True

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An ordered task is written, and hashed, as it was before tasks could be without order."""
        data: dict[str, Any] = dump(self)
        return {key: value for key, value in data.items() if key != "ordered" or not value}

    @field_validator("fields")
    @classmethod
    def _field_names(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        for name in fields:
            if not _NAME.fullmatch(name):
                raise ValueError(f"field {name!r} must be letters, digits and underscores (at most 63)")
            if name.lower() in RESERVED:
                raise ValueError(f"field {name!r} is a reserved column; rename it with --map NEW={name}")
        if len({f.lower() for f in fields}) != len(fields):
            raise ValueError("field names must differ (ignoring case)")
        return fields

    @model_validator(mode="after")
    def _grades_in_order(self) -> "Task":
        symbols = [g.symbol for g in self.grades]
        if len(set(symbols)) != len(symbols):
            raise ValueError("grade symbols must differ")
        object.__setattr__(self, "grades", tuple(sorted(self.grades, key=lambda g: g.value)))
        return self

    @model_validator(mode="after")
    def _steps_differ(self) -> "Task":
        if len({step.name for step in self.steps}) != len(self.steps):
            raise ValueError("step names must differ")
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """Grade symbols in ascending order of value; probabilities are stored in this order."""
        return tuple(g.symbol for g in self.grades)

    @property
    def values(self) -> dict[str, float]:
        """Grade symbol -> value."""
        return {g.symbol: g.value for g in self.grades}

    @property
    def asked(self) -> str:
        """The field that the others are judged against: the one that the task groups by, else the first."""
        return self.group_by if self.group_by in self.fields else self.fields[0]

    def pair(self, texts: Sequence[str]) -> tuple[str, str]:
        """A sample as two texts: the field `asked`, and all others, a line each.

        Args:
            texts: of the fields, in their order; with one field the second text is empty.
        """
        first = self.fields.index(self.asked)
        return texts[first], "\n".join(text for i, text in enumerate(texts) if i != first)

    def index(self, symbol: str) -> int:
        """Position of a grade symbol.

        Raises:
            ValueError: the symbol is not a grade of this task.
        """
        return self.symbols.index(symbol)

    @property
    def hash(self) -> str:
        """Identity of what is judged: changing it makes older runs incomparable."""
        return short_hash(self.model_dump(mode="json"))


def load_task(path: Path) -> Task:
    """Read `task.toml`.

    Raises:
        UsageError: missing file, broken TOML, unknown key, invalid value, or a slice that is not one SQL condition;
            names the place.
    """
    try:
        task = Task.model_validate(tomllib.loads(read_text(path)))
        check_slices(task)
        return task
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist", "Make a project with `piar init DIR`, or pass -C DIR.") from None
    except ValidationError as error:
        raise UsageError(f"{path.name}: {explain(error)}", "Mend the key that it names.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not valid TOML: {str(error)[:300]}", "Mend the line that it names.") from None


def check_slices(task: Task) -> None:
    """Let DuckDB read each slice as a condition over an empty `samples`, where no file and no other table exists.

    Raises:
        UsageError: a slice that is not one condition over the columns of `samples`.
    """
    if not task.slices:
        return
    import duckdb  # here, because the rest of this module is for machines without a database too

    from store.user_sql import expression

    columns = ["group_key", "split", "source", "origin", "external_id", *task.fields]
    fix = f"Write one SQL condition over {', '.join(task.fields)}."
    with duckdb.connect(config={"enable_external_access": "false"}) as con:
        con.execute("create table samples (" + ", ".join(f'"{name}" varchar' for name in columns) + ")")
        for name, text in task.slices.items():
            condition = expression(text, f"task.toml: slices.{name}", fix)
            try:
                con.execute(f"select 1 from samples where coalesce({condition}, false)").fetchall()
            except duckdb.Error as error:
                text = str(error).split("\n", 1)[0]
                raise UsageError(f"task.toml: slices.{name} is not a condition over the fields: {text}", fix) from None


def dump_task(task: Task) -> str:
    """The task as TOML; `load_task` reads it back equal."""
    import tomli_w  # only who writes a task needs it: engines elsewhere read one

    data = _without_empty(task.model_dump(mode="json"))
    escaped = tomli_w.dumps(data)
    # Lines of a text are easier to read one below the other, but TOML would lose a carriage return there.
    return escaped if r"\r" in escaped else tomli_w.dumps(data, multiline_strings=True)


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item not in ("", [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


# What `json.dumps(…, ensure_ascii=False)` does to a text, without making an encoder for each sample.
_quoted = json.encoder.encode_basestring


# What tokenizers and templates may take for their own marks (`<|im_end|>`, `</s>`, `[/INST]`), without the first
# character, which is written as a JSON escape instead: the same text to a reader of JSON, and no mark to a tokenizer.
CONTROL = {
    "<": r"[|｜]|/?s>|<SYS>>|</SYS>>|/?(?:think|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|end_of_text|tool_call"
    r"|image|unused[0-9]+)>",
    "[": r"/?(?:INST|SYSTEM_PROMPT|THINK|AVAILABLE_TOOLS|TOOL_CALLS|IMG)\]",
}
_CONTROL = [(first, re.compile(f"{re.escape(first)}({rest})")) for first, rest in CONTROL.items()]


def sample_text(fields: Mapping[str, str]) -> str:
    """A sample as every judge reads it: one JSON object on one line, in which nothing looks like a control token."""
    text = "{" + ", ".join([f"{_quoted(name)}: {_quoted(text)}" for name, text in fields.items()]) + "}"
    for first, mark in _CONTROL:
        if first in text:
            text = mark.sub(rf"\\u{ord(first):04x}\1", text)
    return text


_LIST = 'must be a list, e.g. ["a", "b"] (in a shell between single quotes)'
_PLAINLY = {"extra_forbidden": "unknown key", "tuple_type": _LIST, "list_type": _LIST}


def explain(error: ValidationError) -> str:
    """Pydantic's complaints as `place: what is wrong`, joined; never with the input's value."""
    lines, found = [], error.errors(include_url=False, include_input=False)
    for item in found[:_EXPLAINED]:
        place = ".".join(str(part) for part in item["loc"])[:80] or "top level"
        text = _PLAINLY.get(item["type"], item["msg"].removeprefix("Value error, "))
        lines.append(f"{place}: {text}")
    left = [f"and {len(found) - _EXPLAINED:,} more"] if len(found) > _EXPLAINED else []
    return "; ".join([*lines, *left])
