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
        PiarError: a shard is not as it was exported, or the provider refuses or cannot be reached, or ended a batch
            without answers: the other shards are taken on before that is said, and the next call makes a new one if
            it was never worked on.
        UsageError: the note of earlier batches is not whole.
    """
    import openai

    manifest = read_manifest(folder)
    for shard in manifest.shards:  # all of them, before anything is sent
        shard_path(folder, shard)
    state, empty = _read_state(folder), []
    try:
        for shard in manifest.shards:
            known = state.setdefault(shard.file, {})
            batch = _step(folder, provider, manifest, shard, known, save=lambda: _write_state(folder, state))
            empty += [(shard, batch)] if batch is not None and _is_empty(batch) else []
    except openai.OpenAIError as error:
        raise PiarError(
            f"The batch API said: {scrub(_words(error), [_key(provider)])[:300]}",
            "Check base_url and the key under [teacher]; an endpoint without a batch API can be asked directly.",
        ) from None
    if empty:
        raise _ended_empty(*empty[0], scrub(_reason(empty[0][1]), [_key(provider)])[:300])
    return {file: known["status"] for file, known in state.items()}


def _is_empty(batch: Any) -> bool:
    """Whether a batch is over and has brought nothing, neither answers nor errors."""
    return batch.status in OVER and not (batch.output_file_id or batch.error_file_id)


def _is_void(batch: Any) -> bool:
    """Whether a batch was never worked on; the files of one that was completed may only be late."""
    return _is_empty(batch) and batch.status != "completed"


def _reason(batch: Any) -> str:
    """Why a batch was refused as a whole, in the provider's words."""
    told = getattr(getattr(batch, "errors", None), "data", None) or []
    return "; ".join(dict.fromkeys(str(error.message) for error in told if getattr(error, "message", None)))


def _ended_empty(shard: RequestShard, batch: Any, reason: str) -> PiarError:
    said = f". It said: {reason}" if reason else "."
    again = "submits these requests again" if _is_void(batch) else "looks again"
    return PiarError(
        f"The batch for {shard.file} ended as {batch.status!r} without answers{said}",
        f"The same command {again}; what became of {batch.id} is to be seen at the provider.",
    )


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
) -> Any | None:
    """Take one shard a step further; the batch as it is now, None for one that was downloaded before."""
    if known.get("status") == "downloaded":
        return None
    if "batch" not in known:
        batch = _find(provider, shard) or _make(folder, provider, manifest, shard)
    else:
        batch = provider.batches.retrieve(known["batch"])
    known["batch"], known["status"] = batch.id, batch.status
    if _is_void(batch):
        del known["batch"]  # nothing was paid: the next step makes another
    save()
    if batch.status in OVER and not _is_empty(batch):
        _download(folder, provider, shard, batch)
        known["status"] = "downloaded"
        save()
    return batch


def _find(provider: Any, shard: RequestShard) -> Any | None:
    """A batch that was made for this shard before, whatever became of the note about it, unless that is void."""
    made = (b for b in provider.batches.list() if (b.metadata or {}).get("piar_shard") == shard.sha256)
    return next((b for b in made if not _is_void(b)), None)


def _make(folder: Path, provider: Any, manifest: RequestManifest, shard: RequestShard) -> Any:
    with shard_path(folder, shard).open("rb") as stream:
        file = provider.files.create(file=stream, purpose="batch")
    metadata = {"piar_shard": shard.sha256, "piar_model": manifest.name}
    return provider.batches.create(input_file_id=file.id, endpoint=URL, completion_window=WINDOW, metadata=metadata)


def _download(folder: Path, provider: Any, shard: RequestShard, batch: Any) -> None:
    """Write answers and errors of a batch that is over."""
    files = [id for id in (batch.output_file_id, batch.error_file_id) if id]
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
