"""`python -m piar.cli.docs` prints the reference of all verbs; `docs/cli.md` is its output, and a test compares."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from piar.cli.app import build

HEAD = """# The command line

Made by `python -m piar.cli.docs > docs/cli.md`. Every verb also takes, before or after its name:
`-C DIR` (the project folder), `--set KEY=VALUE` (override a key of piar.toml) and `--json` (print one JSON document
on stdout and nothing else; progress goes to stderr).

Exit codes: 0 done; 1 the work failed in a way that the message explains; 2 wrong usage or configuration;
3 a check found a regression; 130 interrupted, everything so far kept. With `--json` an error is a document, too, wrong
usage included: `{"error": {"message": …, "fix": …, "exit_code": …}}` on stdout; stderr says the same to people.

`piar --install-completion` sets up completion of verbs, options and their values for bash, zsh or fish;
`piar --show-completion` prints it.
"""
EVERYWHERE = {"-C", "--set", "--json", "--help"}


def reference() -> str:
    """All verbs as Markdown."""
    parts = [HEAD]
    panel = ""
    for path, command in verbs():
        if command.rich_help_panel and command.rich_help_panel != panel:
            panel = command.rich_help_panel
            parts.append(f"## {panel}\n")
        parts.append(_section(path, command))
    return "\n".join(parts)


def verbs(command: Any = None, path: tuple[str, ...] = ("piar",)) -> Iterator[tuple[str, Any]]:
    """Every verb with its full name, groups before their own verbs."""
    root: Any = command or get_command(build())
    for name in root.list_commands(None):
        child = root.commands[name]
        yield " ".join((*path, name)), child
        if hasattr(child, "commands"):
            yield from verbs(child, (*path, name))


def options(command: Any) -> list[Any]:
    """Arguments and options of a verb, without those that every verb takes and those that are no more."""
    return [p for p in command.params if not EVERYWHERE & set(p.opts) and not p.hidden]


def _section(path: str, command: Any) -> str:
    lines = [f"### {path}\n", command.help.strip(), ""]
    rows = [_row(parameter) for parameter in options(command)]
    if rows:
        lines += ["| argument or option | what it does | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    name = ", ".join((*parameter.opts, *parameter.secondary_opts)) if is_option else parameter.metavar or parameter.name
    shown = parameter.show_default if isinstance(parameter.show_default, str) else _default(parameter)
    value = f" {parameter.metavar}" if is_option and parameter.metavar else ""
    return "| " + " | ".join(_cell(text) for text in (f"`{name}{value}`", parameter.help or "", shown)) + " |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False, "") else str(parameter.default)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
