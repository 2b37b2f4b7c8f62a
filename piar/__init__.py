"""Test your labelling guideline like code, then ship a small model that grades in one token."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from piar.project.facade import Project
    from store.errors import PiarError

__all__ = ["PiarError", "Project"]


def __getattr__(name: str) -> Any:
    # Looked up on first use, so that `import piar` stays light.
    if name == "Project":
        from piar.project.facade import Project

        return Project
    if name == "PiarError":
        from store.errors import PiarError

        return PiarError
    raise AttributeError(f"module 'piar' has no attribute {name!r}")
