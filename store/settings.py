"""The base of every package's settings: pydantic, unknown keys refused, frozen."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from store.errors import UsageError


class Settings(BaseModel):
    """A section of `piar.toml`. Subclass it in the package that reads it; `piar.project.facade` composes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def having(self, **said: Any) -> Self:
        """These settings with what a caller says in their place; None leaves one as it is.

        Raises:
            UsageError: a value that the section would refuse in `piar.toml`.
        """
        from store.task import explain

        try:
            return type(self).model_validate({**dict(self), **{k: v for k, v in said.items() if v is not None}})
        except ValidationError as error:
            raise UsageError(explain(error), "Mend that argument.") from None


def with_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`piar.toml`'s tables with `--set a.b=c` applied; values are read as TOML, or taken as text.

    Raises:
        UsageError: an override without `=`, or a path through something that is not a table.
    """
    import copy
    import tomllib

    result: dict[str, Any] = copy.deepcopy(dict(data))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"--set {override!r} has no value", "Write --set section.key=value.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, key = path.strip().split(".")
        table = result
        for name in parents:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"--set {override!r}: {name!r} is not a section", "See `piar.toml` for the sections.")
        table[key] = value
    return result
