"""Prompt templates, rendered so that they can do nothing but write a text, of bounded size and in bounded time.

A project folder may come from anybody. A template sees plain texts, numbers, lists and dicts, never an object of ours
with methods; what would make large values at a stroke is missing or counted; every loop, call and filter counts a step.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache, wraps
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateRuntimeError, Undefined, nodes, pass_context
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from pydantic import BaseModel

from store.task import Task

MOST_CHARACTERS = 4_000_000  # written by one template, and of any text inside it
MOST_STEPS = 500_000
SECONDS = 20.0
_LONGEST_RANGE = 1_000
_LARGEST_NUMBER = 10**15
_FILTERS = (
    "capitalize",
    "default",
    "d",
    "first",
    "int",
    "items",
    "last",
    "length",
    "count",
    "list",
    "lower",
    "map",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "sort",
    "string",
    "title",
    "trim",
    "unique",
    "upper",
)
_METHODS: dict[type, set[str]] = {
    str: {
        "capitalize",
        "count",
        "endswith",
        "find",
        "isdigit",
        "lower",
        "lstrip",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "title",
        "upper",
    },
    dict: {"get", "items", "keys", "values"},
    list: {"count", "index"},
    tuple: {"count", "index"},
    **{kind: set() for kind in (bool, int, float, range)},
}


@dataclass
class _Spent:
    """What one rendering has used up."""

    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    steps: int = 0
    characters: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS or time.monotonic() > self.until:
            raise TemplateRuntimeError(f"it takes more than {MOST_STEPS:,} steps or {SECONDS:g} seconds")

    def write(self, text: str) -> str:
        self.characters += len(_short(text))
        if self.characters > MOST_CHARACTERS:
            raise TemplateRuntimeError(f"it writes more than {MOST_CHARACTERS:,} characters")
        return text


_spent: ContextVar[_Spent] = ContextVar("spent")


def render_text(source: str, values: Mapping[str, Any]) -> str:
    """What a template says of some values; they reach it as texts, numbers, lists and dicts.

    Raises:
        jinja2.TemplateError: the template is broken, names something unknown, or wants more than it may have.
    """
    with _counting():
        try:
            return _compiled(source).render(_plain(values))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise TemplateRuntimeError(f"{type(error).__name__}: {error}") from None
        except (MemoryError, RecursionError, SyntaxError):
            raise TemplateRuntimeError("it is nested too deeply, or makes values that are too large") from None


@contextmanager
def _counting() -> Iterator[None]:
    token = _spent.set(_Spent())
    try:
        yield
    finally:
        _spent.reset(token)


def _plain(value: Any) -> Any:
    """A value without methods of ours: models and dataclasses become dicts."""
    if isinstance(value, BaseModel):
        more = {"symbols": value.symbols} if isinstance(value, Task) else {}
        return _plain({**value.model_dump(), **more})
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return str(value)


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    environment = _environment()
    tree = environment.parse(source)
    _Counted(environment).visit(tree)
    return environment.from_string(tree)


@lru_cache(maxsize=1)
def _environment() -> "_Environment":
    found = _Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        optimized=False,
        extensions=[_Counter],
        finalize=_written,
    )
    filters = {name: FILTERS[name] for name in _FILTERS}
    own: dict[str, Callable[..., Any]] = {"json": _json, "join": _join, "replace": _replace}
    found.filters = {name: _counted(function) for name, function in {**filters, **own}.items()}
    found.globals = {"range": _range, "namespace": found.globals["namespace"]}
    return found


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox without methods that build large values, and with arithmetic that stays small."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        allowed = _METHODS.get(type(obj))
        return super().is_safe_attribute(obj, attr, value) and (allowed is None or attr in allowed)

    def wrap_str_format(self, value: Any) -> None:
        """No `format`: a width makes any length."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Numbers as usual, texts and lists joined by `+`."""
        _spent.get().step()
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list | tuple):
            return _short(left + right)
        if not all(isinstance(x, int | float) and abs(x) <= _LARGEST_NUMBER for x in (left, right)) or operator == "**":
            raise TemplateRuntimeError(f"{operator} is for numbers up to {_LARGEST_NUMBER:.0e}; join texts with ~")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A macro, a method or a function of the sandbox."""
        _spent.get().step()
        return super().call(context, obj, *args, **kwargs)


class _Counter(Extension):
    """Reaches compiled templates by a name that no template can hide."""

    identifier = "piar"

    def step(self) -> str:
        """Count one turn of a loop."""
        _spent.get().step()
        return ""

    def joined(self, *parts: Any) -> str:
        """The operator `~`."""
        return _joined("", [_scalar(part) for part in parts])


class _Counted(NodeTransformer):
    """Puts a step into every loop, and joins texts with care."""

    def __init__(self, environment: _Environment) -> None:
        self._counter = environment.extensions[_Counter.identifier]

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([self._counter.call_method("step", lineno=node.lineno)], lineno=node.lineno))
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        return nodes.Const(node.data, lineno=node.lineno)  # constants are finalized, and so counted

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._counter.call_method("joined", node.nodes, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        # Lists within lists could double in depth, so that comparing two of them would never end.
        return self._of_constants(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return node if node.ctx == "store" else self._of_constants(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._of_constants(node, [pair.value for pair in node.items])

    def _of_constants(self, node: nodes.Node, items: list[nodes.Expr]) -> nodes.Node:
        if not all(isinstance(item, nodes.Const) for item in items):
            raise TemplateRuntimeError("lists and dicts may hold constants only; join texts with ~")
        return node


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # keeps the mark of filters that are given the context
    def counted(*args: Any, **kwargs: Any) -> Any:
        _spent.get().step()
        return function(*args, **kwargs)

    return counted


def _short(value: Any) -> Any:
    if len(value) > MOST_CHARACTERS:
        raise TemplateRuntimeError(f"it makes a text of more than {MOST_CHARACTERS:,} characters")
    return value


@pass_context  # so that nothing is written when the template is compiled
def _written(_: Any, value: Any) -> str:
    """Every value that a template writes, into a variable too."""
    return _spent.get().write(_scalar(value))


def _scalar(value: Any) -> str:
    if isinstance(value, str | bool | int | float | Undefined) or value is None:
        return str(value)  # raises for what is undefined
    raise TemplateRuntimeError(f"a {type(value).__name__} is no text; use |json, or |join")


def _joined(between: str, parts: list[str]) -> str:
    if sum(map(len, parts)) + len(between) * len(parts) > MOST_CHARACTERS:
        raise TemplateRuntimeError(f"it makes a text of more than {MOST_CHARACTERS:,} characters")
    return between.join(parts)


def _join(value: Iterable[Any], d: str = "") -> str:
    return _joined(_scalar(d), [_scalar(item) for item in value])


def _replace(text: Any, old: str, new: str) -> str:
    before, now = _scalar(text), _scalar(new)
    if len(before) + (before.count(_scalar(old)) * len(now)) > MOST_CHARACTERS:
        raise TemplateRuntimeError(f"it makes a text of more than {MOST_CHARACTERS:,} characters")
    return before.replace(_scalar(old), now)


def _json(value: Mapping[str, Any]) -> str:
    """A sample as one JSON object; Jinja's own `tojson` escapes for HTML."""
    return str(_short(json.dumps(dict(value), ensure_ascii=False)))


def _range(*args: int) -> range:
    found = range(*args)
    if len(found) > _LONGEST_RANGE:
        raise TemplateRuntimeError(f"a range has at most {_LONGEST_RANGE:,} numbers")
    return found
