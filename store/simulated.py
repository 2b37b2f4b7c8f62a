"""Which samples are made up: their source says so, whatever the task or the file is called later."""

from store.db import Store

MARK = "(simulated)"


def simulated_sources(store: Store) -> list[str]:
    """The sources of samples that are marked as simulated, in order."""
    return store.frame("select distinct source from samples where contains(source, ?) order by 1", [MARK])[
        "source"
    ].to_list()
