"""A frozen text encoder: one unit vector a text, made as its folder says (`trainers.sentence_folder`)."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from store.errors import PiarError
from trainers.chat import whole
from trainers.folder import load_encoder, load_tokenizer, match_tokens
from trainers.pooling import Pooled
from trainers.sentence_folder import Role, SentenceFolder, read

TOKENS = 256  # most of a text, where the encoder could read more
_BATCH = 32


class Encoder:
    """A frozen encoder; `embed` maps texts to unit vectors.

    Attributes:
        tokens: how much of a text it reads.
        cut: texts so far that were longer.
    """

    def __init__(self, model: Any, tokenizer: Any, pooled: Pooled, folder: SentenceFolder) -> None:
        self._model, self._tokenizer, self._pooled, self._folder = model.eval(), tokenizer, pooled.eval(), folder
        self.tokens, self.cut = reach(folder, model, tokenizer), 0

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """An encoder from a folder.

        Raises:
            PiarError: nothing there that is a text encoder in safetensors, or one with layers that are not known here.
        """
        model, tokenizer, pooled, said = load_sentence_encoder(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, pooled.to(device), said)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], role: Role | None = None) -> NDArray[np.float32]:
        """[N, D] unit vectors, in the order given; `cut` counts the texts that were longer than `tokens`.

        Args:
            role: what the texts are in a pair, by which a folder's prompts are chosen.
        """
        end, most = self._tokenizer.truncation_side == "left", 16 * self.tokens
        prompt, shorter = self._folder.prompt(role), [text[-most:] if end else text[:most] for text in texts]
        ids = tokenize(self._tokenizer, shorter, prompt)
        if cut := sum(len(one) > self.tokens for one in ids):
            self.cut += cut
            ids = tokenize(self._tokenizer, shorter, prompt, self.tokens)
        skipped = prompt_tokens(self._tokenizer, prompt) if self._folder.skips_prompt else 0
        vectors = np.zeros((len(texts), self._pooled.size), dtype=np.float32)
        for chosen, inputs in batches(self._tokenizer, ids, _BATCH, self._model):
            states = self._model(**inputs).last_hidden_state.float()
            vectors[chosen] = self._pooled(states, inputs["attention_mask"], skipped).cpu().numpy()
        return vectors


def load_sentence_encoder(folder: Path) -> tuple[Any, Any, Pooled, SentenceFolder]:
    """Body, tokenizer, what stands behind the body, and what the folder says.

    Raises:
        PiarError: nothing there that is a text encoder in safetensors, or one with layers that are not known here.
    """
    said = read(folder)
    plain = not (folder / "modules.json").is_file()
    model, tokenizer = load_encoder(str(said.body), plain=plain), load_tokenizer(str(said.body))
    match_tokens(str(folder), model, tokenizer)
    if said.lower:
        from tokenizers import normalizers

        backend = tokenizer.backend_tokenizer
        first = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(first)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    special = [token for token in tokenizer.all_special_tokens if any(token in one for one in said.prompts.values())]
    if special:
        raise PiarError(
            f"A prompt of {folder} holds the control token {special[0]!r}: not known here.",
            "Use another sentence encoder, or take the prompt out of its config_sentence_transformers.json.",
        )
    return model, tokenizer, Pooled.of(said, model.config.get_text_config().hidden_size), said


def tokenize(tokenizer: Any, texts: Sequence[str], prompt: str = "", limit: int | None = None) -> list[list[int]]:
    """Tokens of texts, each behind a prompt, `limit` at most of each, cut on the tokenizer's side but never in the
    prompt; what a text says is never a control token."""
    if not texts:
        return []
    if prompt and limit is not None and tokenizer.truncation_side == "left":
        first = min(prompt_tokens(tokenizer, prompt), limit - 1)
        whole_ones = tokenize(tokenizer, texts, prompt)
        return [ids if len(ids) <= limit else ids[:first] + ids[len(ids) - limit + first :] for ids in whole_ones]
    told = {"truncation": limit is not None, "max_length": limit, "verbose": False, "split_special_tokens": True}
    found: list[list[int]] = tokenizer([prompt + whole(text) for text in texts], **told)["input_ids"]
    nothing = [tokenizer.pad_token_id]  # of a text without a token, where the tokenizer adds none
    return [ids or nothing for ids in found]


def alike(texts: Sequence[Sequence[int]], size: int, encoder: Any) -> Iterator[list[int]]:
    """Places of texts of like length, `size` at most, to be read together; of one length, where the encoder would read
    what pads them."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    exact = getattr(encoder, "reads_padding", False)
    for _, some in groupby(order, lambda i: len(texts[i]) if exact else 0):
        places = list(some)
        yield from (places[start : start + size] for start in range(0, len(places), size))


def batches(tokenizer: Any, ids: Sequence[list[int]], size: int, encoder: Any) -> Iterator[tuple[list[int], Any]]:
    """Tokens of texts of like length as an encoder reads them, and the places of these texts."""
    for part in alike(ids, size, encoder):
        yield part, pad(tokenizer, {"input_ids": [ids[i] for i in part]}).to(encoder.device)


def pad(tokenizer: Any, batch: dict[str, Any]) -> Any:
    """Texts as one batch, padded on the right whatever the folder says: where positions are counted from the left, a
    pad in front of a text would move it, so that what is read of it hung on what stands beside it."""
    return tokenizer.pad(batch, return_tensors="pt", padding_side="right", verbose=False)


def prompt_tokens(tokenizer: Any, prompt: str) -> int:
    """How many of a text's tokens are its prompt's, without those that a tokenizer puts at the end."""
    if not prompt:
        return 0
    [ids] = tokenize(tokenizer, [prompt])
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def reach(folder: SentenceFolder, model: Any, tokenizer: Any) -> int:
    """Tokens of a text that an encoder is given: `TOKENS`, or fewer where it reads or was taught on fewer."""
    return min(n for n in (TOKENS, context(model, tokenizer), folder.tokens) if n)


def context(model: Any, tokenizer: Any) -> int | None:
    """Tokens that an encoder can read at once, None where it says nothing."""
    reads = [getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # Some count positions from behind the padding's.
            reads.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    known = [int(n) for n in reads if isinstance(n, int) and 0 < n < 10**9]
    return min(known, default=None)
