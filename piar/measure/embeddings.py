"""The encoder of `[baselines]`: what it makes of a text is kept beside the store, in `embeddings/`.

A file there is named by a hash of the encoder's files, so that its vectors are never those of another one. The folder
can be removed at any time.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import UsageError
from store.manifest import file_sha256
from store.settings import Settings
from store.vectors import FOLDER, VectorCache, Vectors
from trainers.sentence_folder import Role, here, read

if TYPE_CHECKING:
    from trainers.embedding import Encoder

NO_ENCODER = 'Name its folder: `[baselines] encoder = "PATH"` in piar.toml, or --set baselines.encoder=PATH.'
_PATIENCE_SECONDS = 5.0  # without a word
_VERSION = "2"  # of how a text becomes a vector
_ROLES: tuple[Role | None, ...] = (None, "query", "document")
_SHAPES = (".json", ".safetensors", ".txt", ".model")  # files that shape a vector
log = logging.getLogger(__name__)


class BaselineSettings(Settings):
    """The `[baselines]` section of `piar.toml`.

    Attributes:
        encoder: folder of a frozen text encoder in safetensors, or the hub's name of one that was downloaded; puts
            `cosine` and `probe` beside the other baselines.
    """

    encoder: str = ""


class Embedder:
    """Texts, and what they are in a pair -> unit vectors of an encoder; it is loaded when a new text comes.

    Args:
        folder: of the encoder.
        cache: the project's folder of vectors; None keeps them in memory alone.
        keep: write new vectors there.

    Raises:
        UsageError: no folder of a model.
        PiarError: its vectors are made in a way that is not known here.
    """

    def __init__(self, folder: Path, cache: Path | None = None, *, keep: bool = True) -> None:
        said = read(folder)
        if not (said.body / "config.json").is_file():
            what = f"{said.body} has no config.json" if folder.is_dir() else f"there is no folder {folder}"
            raise UsageError(f"[baselines] encoder: {what}.", "Name the folder of a text encoder, or download it.")
        self.folder, self._said = folder, said
        name = fingerprint(folder)[:24] if cache else ""
        prompts = {said.prompt(role) for role in _ROLES}
        files = {prompt: cache and cache / f"{name}{_suffix(prompt)}.sqlite" for prompt in prompts}
        self._caches = {prompt: VectorCache(file, keep=keep) for prompt, file in files.items()}

    @cached_property
    def _encoder(self) -> "Encoder":
        from trainers.embedding import Encoder

        return Encoder.load(self.folder)

    def __call__(self, texts: Sequence[str], role: Role | None = None) -> Vectors:
        """(N, D) vectors, in the order given; says how many texts were cut.

        Args:
            role: what the texts are in a pair, by which the encoder's prompts are chosen.

        Raises:
            PiarError: the folder holds no text encoder.
        """
        before = self._cut
        cache = self._caches[self._said.prompt(role)]
        found = cache.vectors(texts, lambda new: self._encoder.embed(new, role), _Wait().tell)
        if cut := self._cut - before:
            log.warning("%d new texts were cut: the encoder is given %d tokens", cut, self._encoder.tokens)
        return found

    @property
    def _cut(self) -> int:
        return self._encoder.cut if "_encoder" in self.__dict__ else 0


class _Wait:
    """Words for whoever waits longer than some seconds for vectors."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def tell(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self._said < _PATIENCE_SECONDS:
            return
        self._said = now
        left = (now - self._began) / done * (of - done)
        log.warning("embedding %s of %s texts · about %d s left", f"{done:,}", f"{of:,}", left)


def _suffix(prompt: str) -> str:
    """Vectors behind a prompt are kept in a file of their own."""
    return f"-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}" if prompt else ""


def fingerprint(folder: Path) -> str:
    """Hash of all files that shape an encoder's vectors, those of its layers too."""
    told = hashlib.sha256(_VERSION.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _SHAPES:
            told.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return told.hexdigest()


def embedder(settings: BaselineSettings, project: Path | None = None, *, keep: bool = True) -> Embedder | None:
    """The encoder that a project names, None where it names none.

    Args:
        project: its folder, from which the encoder may be named too; None: nothing is written.
        keep: write new vectors into the project; a reader does not.
    """
    if not settings.encoder:
        return None
    named = Path(settings.encoder).expanduser()
    inside = project / named if project else named
    folder = inside if inside.exists() and not named.exists() else here(settings.encoder)
    return Embedder(folder, project / FOLDER if project else None, keep=keep)
