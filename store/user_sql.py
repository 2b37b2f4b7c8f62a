"""SQL that users write in settings and options: one expression over columns, which reaches nothing else.

A project folder may come from anybody, so that a slice, a signal or a condition is no more trusted than a row. DuckDB
parses the text, and what it understood is looked through before the text stands in a query of ours.
"""

import json
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from store.errors import UsageError

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE"}  # neither recursive ones nor those that change rows
_SOURCES = {"TABLE_FUNCTION", "SHOW_REF", "PIVOT", "COLUMN_DATA"}  # functions that read files are table functions
_EFFECTS = {"nextval", "setval", "setseed", "sleep_ms", "pg_sleep", "write_log"}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expression(text: str, place: str, fix: str, tables: Collection[str] = ()) -> str:
    """A user's SQL expression in brackets, fit to stand in any query.

    Args:
        text: as it was written.
        place: where, for the complaint.
        fix: what to write instead.
        tables: tables and views that its subqueries may read.

    Raises:
        UsageError: not one expression, or one that asks for more than columns and these tables.
    """
    problem = _problem(text, frozenset(name.lower() for name in tables))
    if problem:
        raise UsageError(f"{place} is not one SQL expression that may stand there: {problem}.", fix)
    return f"({text}\n)"  # a line of its own, because the text may end in a comment


def subquery(text: str, place: str, fix: str, tables: Collection[str]) -> str:
    """A user's query in brackets, fit to be read from: one `select` over these tables. Else as `expression`."""
    (tree,) = _parsed(f"select * from ({text}\n)")
    problem = str(tree.get("error_message", ""))[:200]
    if not problem:
        (node,) = (found["node"] for found in tree["statements"][:1])
        whole = len(tree["statements"]) == 1 and node["type"] == "SELECT_NODE" and _is_bare(node, "SUBQUERY")
        known = frozenset(name.lower() for name in tables)
        problem = _looked_through(node, known) if whole else "it holds more than one query"
    if problem:
        raise UsageError(f"{place} is not one SQL query that may stand there: {problem}.", fix)
    return f"({text}\n)"


@lru_cache(maxsize=256)
def _problem(text: str, tables: frozenset[str]) -> str:
    """What is wrong with an expression; "" when nothing is."""
    if not text.strip():
        return "it is empty"
    # A text that closes a bracket it did not open fails between one pair or the other.
    for tree in _parsed(f"select ({text}\n)", f"select [{text}\n]"):
        if "error_message" in tree:
            return " ".join(str(tree["error_message"]).split("LINE 1:")[0].split())[:200]
        statements = [found["node"] for found in tree["statements"]]
        if len(statements) != 1 or statements[0]["type"] != "SELECT_NODE" or not _is_bare(statements[0]):
            return "it holds more than one expression"
    if len(statements[0]["select_list"][0]["arguments"]) != 1:  # of the list
        return "it holds more than one expression"
    return _looked_through(statements[0], tables)


def _looked_through(tree: dict[str, Any], tables: frozenset[str]) -> str:
    """What a parsed text asks for beyond columns and tables; "" when nothing."""
    nodes = list(_nodes(tree))
    own = {str(part["key"]) for node in nodes for part in node.get("cte_map", {}).get("map", ())}
    if not all(_PLAIN.fullmatch(name) for name in own):
        return "a name in WITH is not plain"
    known = tables | {name.lower() for name in own}
    return next((reason for node in nodes if (reason := _refused(node, known))), "")


def _parsed(*statements: str) -> list[dict[str, Any]]:
    """What DuckDB understands of each statement, or why it does not."""
    import duckdb

    found: list[dict[str, Any]] = []
    with duckdb.connect(config={"enable_external_access": "false"}) as con:
        for statement in statements:
            try:
                (row,) = con.execute("select json_serialize_sql(?)", [statement]).fetchall()
                found.append(json.loads(row[0]))
            except duckdb.Error as error:
                found.append({"error_message": str(error)})
    return found


def _is_bare(node: dict[str, Any], source: str = "EMPTY") -> bool:
    """Whether a query is `select EXPRESSION`, of nothing or of one source, and no more."""
    clauses = ("where_clause", "having", "qualify", "sample", "group_expressions", "modifiers")
    return (
        len(node["select_list"]) == 1
        and node["from_table"]["type"] == source
        and not any(node.get(clause) for clause in clauses)
    )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects in what DuckDB parsed."""
    todo = [tree]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            yield found
            todo += found.values()
        elif isinstance(found, list):
            todo += found


def _refused(node: dict[str, Any], tables: Collection[str]) -> str:
    kind, name = str(node.get("type", "")), str(node.get("function_name", "")).lower()
    if kind.endswith("_NODE") and kind not in _QUERIES:
        return "it may not change rows or repeat itself"
    if kind in _SOURCES:
        return "no table function may stand there"
    if kind == "BASE_TABLE" and (
        str(node["table_name"]).lower() not in tables
        or node.get("catalog_name")
        or node.get("schema_name") not in ("", None, "main")
    ):
        return f"it reads {str(node['table_name'])[:60]!r}"
    if kind == "VALUE_PARAMETER":
        return "a parameter has no value there"
    return f"{name} may not be called there" if name in _EFFECTS else ""
