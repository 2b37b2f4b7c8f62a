"""What may leave this machine, and where it may go: `[privacy]` in `piar.toml`."""

from dataclasses import dataclass

from piar.llm.settings import ModelSettings, is_local
from store.errors import UsageError
from store.settings import Settings
from store.task import Task


class PrivacySettings(Settings):
    """`[privacy]`. Both lists hold for endpoints on other machines only.

    Attributes:
        fields: fields of the task that may leave; None: all of them.
        hosts: hosts that samples may be sent to; None: any.
    """

    fields: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What a model would be shown: the host that samples go to (None: this machine), and their fields."""

    host: str | None
    fields: tuple[str, ...]


def disclosure(task: Task, model: ModelSettings, privacy: PrivacySettings) -> Disclosure:
    """What judging with this model would disclose.

    Raises:
        UsageError: it would send a field, or to a host, that `[privacy]` does not allow.
    """
    if is_local(model.host):
        return Disclosure(None, task.fields)
    if privacy.hosts is not None and model.host not in privacy.hosts:
        raise UsageError(
            f"Samples may not be sent to {model.host}: it is not among [privacy] hosts.",
            "Add the host there if it may read your samples, or choose another model.",
        )
    kept = [name for name in task.fields if privacy.fields is not None and name not in privacy.fields]
    if kept:
        raise UsageError(
            f"The field {kept[0]!r} may not leave this machine: it is not among [privacy] fields.",
            "Add it there, make a project without that field, or choose a local model.",
        )
    return Disclosure(model.host, task.fields)
