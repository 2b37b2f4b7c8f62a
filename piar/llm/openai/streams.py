"""Answers that come as a stream of events, from servers that know no other way, put together to one reply. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

MARK = b"data:"
BY_PIECES = ("content", "reasoning_content", "reasoning", "refusal")  # of a message


def is_stream(payload: bytes) -> bool:
    """Whether a reply looks like a stream of server-sent events, which may begin with comments."""
    return payload.lstrip().startswith((MARK, b":", b"event:", b"id:", b"retry:"))


def joined(payload: bytes) -> dict[str, Any] | None:
    """The reply that a stream of chat completions adds up to; an error in it as an error, what was cut off as it is.

    Args:
        payload: the whole stream.

    Returns:
        None where nothing in it is an event of a chat.
    """
    reply: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant"}
    choice: dict[str, Any] = {"index": 0, "finish_reason": None, "message": message}
    for event in _events(payload):
        if event.get("error"):
            return {**reply, "error": event["error"]}
        reply |= {name: value for name, value in event.items() if name != "choices" and value is not None}
        parts = event.get("choices")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, Mapping) and not part.get("index"):
                reply["choices"] = [choice]
                _add(choice, message, part)
    return reply or None


def _events(payload: bytes) -> Iterator[Mapping[str, Any]]:
    """The objects that the events hold; keep-alive comments, the closing mark and lines that are not whole are none."""
    for line in payload.splitlines():
        if line.startswith(MARK):
            try:
                event = json.loads(line[len(MARK) :])
            except (ValueError, RecursionError):
                continue
            if isinstance(event, Mapping):
                yield event


def _add(choice: dict[str, Any], message: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add one event's part of the first choice to what came before."""
    delta = part.get("delta")
    delta = delta if isinstance(delta, Mapping) else {}
    for name in BY_PIECES:
        if isinstance(delta.get(name), str):
            message[name] = message.get(name, "") + delta[name]
    choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
    told = part.get("logprobs")
    tokens = told.get("content") if isinstance(told, Mapping) else None
    if isinstance(tokens, list):
        choice.setdefault("logprobs", {"content": []})["content"] += tokens
