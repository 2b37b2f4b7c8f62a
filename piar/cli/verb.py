"""What all verbs share: -C, --set and --json, how an answer is shown, and how an error is.

A verb is a function that returns an `Answer`; it never prints. Other packages plug theirs in with
`@verb(app, "name", Panel.TRAIN)`, and reach the project by `open_project()`.
"""

import dataclasses
import inspect
import json
import math
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer
from typer.core import TyperGroup

from piar.cli.stray import Stray
from store.errors import PiarError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from piar.project.facade import Project

P = ParamSpec("P")

# Which extra brings a package that the core install leaves out.
EXTRAS = {
    "openai": "teacher",
    "aiohttp": "teacher",
    "label_studio_sdk": "review",
    "torch": "train",
    "transformers": "train",
    "tokenizers": "train",
    "safetensors": "train",
    "peft": "train",
    "vllm": "vllm",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "python_calamine": "excel",
    "ir_measures": "rank",
    "pytrec_eval": "rank",
}


class Panel(StrEnum):
    """The groups that `piar --help` shows, in order."""

    START = "start"
    IMPROVE = "improve"
    LABEL = "label"
    PEOPLE = "people"
    TRAIN = "train"
    LOOK = "look"
    DEVELOPER = "developer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb found.

    Attributes:
        document: what `--json` prints; its keys are stable.
        view: what a person sees: text, or a rich renderable. Text is never read as markup.
        exit_code: 0, 1 when nothing came of what was asked, or 3 when a check found a regression.
    """

    document: Mapping[str, Any]
    view: "RenderableType"
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that every verb takes, and what was said of the columns, word for word."""

    folder: Path = Path()
    overrides: tuple[str, ...] = ()
    as_json: bool = False
    columns: tuple[str, ...] = ()


INTERRUPTED = PiarError("Interrupted. What had arrived is kept; the same command goes on from there.", exit_code=130)
_OS_MENDS: dict[type[OSError], str] = {
    FileNotFoundError: "Check the name, and whether its folder is there.",
    IsADirectoryError: "That is a folder: name a file.",
    NotADirectoryError: "Part of that path is a file: name another.",
    PermissionError: "Check its permissions, and those of its folder.",
}
_OS_MEND = "Look whether the disk is full or gone; what had arrived is kept, and the same command goes on."
_COMMAND = re.compile(r"`(piar [a-z][^`]*)`")
_REPEATED = ("columns", "reading")  # panels of options that look, init and import share
_asked: ContextVar[Asked] = ContextVar("asked")

Folder = Annotated[
    Path | None,
    typer.Option(
        "-C", metavar="DIR", help="The project folder.", show_default="this one", rich_help_panel="everywhere"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of piar.toml, e.g. evolve.rounds=2.",
        rich_help_panel="everywhere",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.", rich_help_panel="everywhere")
]


def asked() -> Asked:
    """The shared options of the verb that is running."""
    return _asked.get(Asked())


def open_project() -> "Project":
    """The project that -C names, as it is named there, with --set applied."""
    from piar.project.config import load
    from piar.project.facade import Project

    return Project(asked().folder, load(asked().folder, asked().overrides))


def located(path: Path) -> Path:
    """Something that is read: as named from where the user stands, else as named from the project's folder."""
    inside = asked().folder / path
    return inside if not path.exists() and inside.exists() else path


def here(command: str) -> str:
    """A command for this project as it works from where the user stands: with the -C that this call was given."""
    verb_of = command.split()[1:2]
    if asked().folder == Path() or " -C " in command or verb_of in ([], ["look"], ["init"]):
        return command
    return f"{command} -C {shlex.quote(str(asked().folder))}"


def with_commands(text: str) -> str:
    """A text whose commands in backticks work from where the user stands, see `here`."""
    return _COMMAND.sub(lambda found: f"`{here(found[1])}`", text)


def group(help: str, cls: type[TyperGroup] = TyperGroup, *, completion: bool = False) -> typer.Typer:
    """An application, or a verb with verbs of its own (`piar review push`).

    Args:
        completion: offer to install completion for the shell.
    """
    app = typer.Typer(
        cls=cls,
        help=help,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(remember)
    return app


def verb(
    app: typer.Typer, name: str, panel: Panel | None = None
) -> Callable[[Callable[P, Answer]], Callable[P, Answer]]:
    """Register a function as a verb; its docstring is the help, its `Answer` is what gets printed."""

    def register(function: Callable[P, Answer]) -> Callable[P, Answer]:
        app.command(name, cls=Stray, rich_help_panel=panel)(_command(function))
        return function

    return register


def remember(
    ctx: typer.Context, project_folder: Folder = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Keep the shared options of one level; those after the verb are stronger than those before it."""
    before = ctx.obj or Asked()
    ctx.obj = Asked(
        project_folder or before.folder, before.overrides + tuple(overrides or ()), before.as_json or as_json
    )


def _command(function: Callable[..., Answer]) -> Callable[..., None]:
    own = inspect.signature(function, eval_str=True).parameters
    shared = inspect.signature(remember, eval_str=True).parameters

    def command(ctx: typer.Context, **arguments: Any) -> None:
        remember(ctx, **{name: arguments.pop(name) for name in shared if name != "ctx"})
        options = dataclasses.replace(ctx.obj, columns=tuple(_said(ctx)))
        raise typer.Exit(perform(partial(function, **arguments), options))

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own.values(), *shared.values())]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = inspect.getdoc(function)
    return command


def _said(ctx: typer.Context) -> Iterator[str]:
    """The options about a file's columns that were given, as they would be typed again."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if (
            source is not None
            and source.name == "COMMANDLINE"
            and getattr(option, "rich_help_panel", None) in _REPEATED
        ):
            value = ctx.params[option.name or ""]
            for one in value if isinstance(value, list | tuple) else [value]:
                yield from (option.opts[0],) if one is True else (option.opts[0], str(one))


def perform(action: Callable[[], Answer], options: Asked) -> int:
    """Run a verb, print its answer on stdout and anything else on stderr; returns the exit code."""
    token = _asked.set(options)
    try:
        with redirect_stdout(sys.stderr), _notes():  # a library that prints must not spoil the answer
            answer = action()
        show(answer, as_json=options.as_json)
        return answer.exit_code
    except PiarError as error:
        return complain(error, options.as_json)
    except KeyboardInterrupt:
        messages().print(f"\n{INTERRUPTED.message}", style="yellow")
        return _document(INTERRUPTED) if options.as_json else INTERRUPTED.exit_code
    except BrokenPipeError:  # the reader (`head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        return complain(_missing(error), options.as_json)
    except OSError as error:
        mend = next((fix for kind, fix in _OS_MENDS.items() if isinstance(error, kind)), _OS_MEND)
        told = PiarError(f"{error.strerror or error}: {error.filename or 'the file system'}", mend)
        return complain(told, options.as_json)
    except Exception as error:  # a fault of ours: whoever reads stdout is told, and the place is on stderr
        if options.as_json:
            _document(PiarError(f"{type(error).__name__}: {error}", "This is a fault of piar; please report it."))
        raise
    finally:
        _asked.reset(token)


@contextmanager
def _notes() -> Iterator[None]:
    """What the library warns of, as one line for people instead of a place in the source."""

    def tell(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        messages().print(f"note  {message}", style="yellow")

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell
        yield


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer on stdout."""
    if as_json:
        print(_json(plain(answer.document)))
    elif isinstance(answer.view, str):
        print(clean(answer.view))  # not through the console, which would wrap it at 80 columns
    else:
        console(sys.stdout).print(answer.view, crop=False)  # a command stays on its line, to be copied
    sys.stdout.flush()


def complain(error: PiarError, as_json: bool = False) -> int:
    """Print what is wrong and how to mend it on stderr, with `as_json` on stdout, too; returns the exit code."""
    from rich.text import Text

    out = messages()
    out.print(Text.assemble(("error  ", "bold red"), error.message))
    if error.fix:
        fix = Text.assemble(("  fix  ", "bold green"), with_commands(error.fix))
        out.print(fix, soft_wrap=True)  # a command can be copied
    return _document(error) if as_json else error.exit_code


def _document(error: PiarError) -> int:
    """Print an error as the one document that `--json` promises; returns the exit code."""
    told = {"message": clean(error.message), "fix": clean(with_commands(error.fix)), "exit_code": error.exit_code}
    with suppress(OSError):  # where stdout is what failed, stderr has said it
        print(_json({"error": told}), flush=True)
    return error.exit_code


def _json(document: Any) -> str:
    """A document as stdout can hold it: with JSON's own escapes where its encoding knows few signs."""
    every = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return json.dumps(document, ensure_ascii=not every, indent=2)


def messages() -> "Console":
    """Where progress and messages go: stderr; always the same console, so that lines appear above a progress bar."""
    return console(sys.stderr)


@lru_cache(maxsize=2)
def console(file: Any) -> "Console":
    """A console that takes text from data as it is: no markup, no emoji codes, no highlighting, no control codes."""
    from rich.console import Console, ConsoleRenderable, RenderHook
    from rich.text import Text

    class Clean(RenderHook):
        """Every line passes here on its way to the terminal."""

        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            for shown in renderables:
                if isinstance(shown, Text):
                    shown.plain = clean(shown.plain)  # as long as before, so that styles keep their places
            return renderables

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            """The reader of an answer (`head`) has seen enough, which is no failure; rich would exit 1."""
            if file is sys.stdout:
                raise BrokenPipeError
            super().on_broken_pipe()

    made = Piped(file=file, markup=False, emoji=False, highlight=False, soft_wrap=False)
    made.push_render_hook(Clean())
    return made


# What a terminal obeys instead of showing it: control codes, turns of the writing direction, half surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(value: Any) -> str:
    """Text from data as a terminal may safely print it."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", "" if value is None else str(value))


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses as objects, paths and dates as text, NaN as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, Decimal):  # what SQL makes of sum(): a number of as many digits as it takes
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return plain(value.model_dump(mode="json")) if hasattr(value, "model_dump") else str(value)


def _missing(error: ModuleNotFoundError) -> PiarError:
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        raise error
    return UsageError(f"This needs the package {package}, which is not installed.", f"pip install 'piar[{extra}]'")
