"""Which piar this is."""

from importlib import metadata


def version() -> str:
    """The installed version, or `source` when run from a checkout that was never installed."""
    try:
        return metadata.version("piar")
    except metadata.PackageNotFoundError:
        return "source"
