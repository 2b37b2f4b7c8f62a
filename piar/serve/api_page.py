"""The page at `/docs`: the API in plain HTML, without a script and without anything from elsewhere."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{overflow:auto}"


def api_page(description: Mapping[str, Any]) -> str:
    """An OpenAPI description for people to read.

    Args:
        description: as `/openapi.json` gives it; all of its texts are shown as text.
    """
    info = description["info"]
    parts = [f"<h1>{escape(info['title'])}</h1>", f"<p>{escape(info.get('description', ''))}</p>"]
    parts.append("<p>For programs: <a href='openapi.json'>openapi.json</a></p>")
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            parts += [f"<h2>{escape(method.upper())} {escape(path)}</h2>", *_operation(told)]
    parts.append("<h2>Schemas</h2>")
    for name, schema in description.get("components", {}).get("schemas", {}).items():
        parts += [f"<h3 id='{escape(name)}'>{escape(name)}</h3>", _code(schema)]
    title = f"<title>{escape(info['title'])}</title>"
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'>{title}<style>{_STYLE}</style>"
    return f"{head}<body>{''.join(parts)}</body></html>"


def _operation(told: Mapping[str, Any]) -> Iterator[str]:
    """What one method of a path takes and gives."""
    yield f"<p>{escape(told.get('summary', ''))}</p>"
    if "requestBody" in told:
        yield f"<p>Body:</p>{_code(told['requestBody']['content'])}"
    for status, answer in told["responses"].items():
        yield f"<p>{escape(status)}: {escape(answer['description'])}</p>"
        if content := answer.get("content"):
            yield _code(content)


def _code(data: Any) -> str:
    return f"<pre>{escape(json.dumps(data, indent=2, ensure_ascii=False))}</pre>"
