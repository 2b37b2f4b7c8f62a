"""A provider's batch API behind request files: upload, wait, download; called again, it goes on where it was.

What is known of each shard lies in `batches.json` beside the manifest, written after every step. Before a
batch is made, the provider is asked whether one for this shard is there already: a crash between making
and noting it must not pay twice.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import RootModel, ValidationError

from piar.llm.openai.batch_files import URL, RequestManifest, RequestShard, read_manifest, shard_path
from piar.llm.openai.transports import missing_teacher
from piar.llm.secrets import scrub, without
from piar.llm.settings import OPENAI_URL, ModelSettings, endpoint_key
from store.errors import PiarError, UsageError
from store.files import read_text, write_text

STATE = "batches.json"
OVER = frozenset({"completed", "failed", "expired", "cancelled"})
WINDOW = "24h"


def connect_provider(settings: ModelSettings) -> Any:
    """An `openai` client for files and batches at a model's endpoint.

    Raises:
        PiarError: the package or the key is missing.
    """
    try:
        import openai
    except ImportError:
        raise missing_teacher("openai") from None
    key = endpoint_key(settings) or "none"
    http = openai.DefaultHttpxClient(follow_redirects=False)  # samples and key go to this address alone
    return openai.OpenAI(
        base_url=settings.base_url or OPENAI_URL, api_key=key, timeout=settings.timeout, http_client=http
    )


def advance(folder: Path, provider: Any) -> dict[str, str]:
    """Take each shard one step further: make its batch, look how it is, or download what it answered.

    Args:
        folder: of `export_requests`.
        provider: an `openai.OpenAI` client, or one that behaves like it.

    Returns:
        shard file -> status; `downloaded` when its responses are in the folder.

    Raises:
        PiarError: a shard is not as it was exported, or the provider refuses, cannot be reached, or ended a batch
            without answers. What is noted stays.
        UsageError: the note of earlier batches is not whole.
    """
    import openai

    manifest = read_manifest(folder)
    for shard in manifest.shards:  # all of them, before anything is sent
        shard_path(folder, shard)
    state = _read_state(folder)
    try:
        for shard in manifest.shards:
            known = state.setdefault(shard.file, {})
            _step(folder, provider, manifest, shard, known, save=lambda: _write_state(folder, state))
    except openai.OpenAIError as error:
        raise PiarError(
            f"The batch API said: {scrub(_words(error), [_key(provider)])[:300]}",
            "Check base_url and the key under [teacher]; an endpoint without a batch API can be asked directly.",
        ) from None
    return {file: known["status"] for file, known in state.items()}


def _words(error: Exception) -> str:
    target = getattr(getattr(error, "response", None), "headers", {}).get("location")
    return f"it redirects to {target!r}, and nothing is sent on" if target else str(error)


def _key(provider: Any) -> str:
    return str(getattr(provider, "api_key", ""))


def _step(
    folder: Path,
    provider: Any,
    manifest: RequestManifest,
    shard: RequestShard,
    known: dict[str, str],
    save: Callable[[], None],
) -> None:
    if known.get("status") == "downloaded":
        return
    if "batch" not in known:
        batch = _find(provider, shard) or _make(folder, provider, manifest, shard)
    else:
        batch = provider.batches.retrieve(known["batch"])
    known["batch"], known["status"] = batch.id, batch.status
    save()
    if batch.status in OVER:
        _download(folder, provider, shard, batch)
        known["status"] = "downloaded"
        save()


def _find(provider: Any, shard: RequestShard) -> Any | None:
    """A batch that was made for this shard before, whatever became of the note about it."""
    return next((b for b in provider.batches.list() if (b.metadata or {}).get("piar_shard") == shard.sha256), None)


def _make(folder: Path, provider: Any, manifest: RequestManifest, shard: RequestShard) -> Any:
    with shard_path(folder, shard).open("rb") as stream:
        file = provider.files.create(file=stream, purpose="batch")
    metadata = {"piar_shard": shard.sha256, "piar_model": manifest.name}
    return provider.batches.create(input_file_id=file.id, endpoint=URL, completion_window=WINDOW, metadata=metadata)


def _download(folder: Path, provider: Any, shard: RequestShard, batch: Any) -> None:
    """Write answers and errors of a batch that is over; a batch without either is a failure to be told."""
    files = [id for id in (batch.output_file_id, batch.error_file_id) if id]
    if not files:
        raise PiarError(
            f"The batch for {shard.file} ended as {batch.status!r} without answers.",
            f"Look at batch {batch.id} at the provider; delete its entry in {STATE} to submit the shard again.",
        )
    lines = (without(provider.files.content(id).text, [_key(provider)]) for id in files)
    text = "".join(part.rstrip("\n") + "\n" for part in lines)
    write_text(folder / shard.answers, text)


class _State(RootModel[dict[str, dict[str, str]]]):
    """Shard file -> what is known of its batch."""


def _read_state(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / STATE
    try:
        return _State.model_validate_json(read_text(path)).root
    except FileNotFoundError:
        return {}
    except ValidationError:
        raise UsageError(
            f"{path} is not whole.", "Delete it: batches that were made before are found again at the provider."
        ) from None


def _write_state(folder: Path, state: dict[str, dict[str, str]]) -> None:
    write_text(folder / STATE, json.dumps(state, indent=1))
