"""A BERT of a few thousand parameters with random weights, as a plain folder; nothing is downloaded."""

import json
from pathlib import Path

WORDS = ("red", "blue", "green", "lamp", "chair", "table", "shoe", "hat", "big", "small", "the", "for", "with", "and")


def make_tiny_encoder(folder: Path, *, pooling: str | None = None, seed: int = 0, length: int = 64) -> Path:
    """Save it; with `pooling` (`mean`, `cls`, …) as sentence-transformers does."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [f"{mark}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789[]" for mark in ("", "##")]
    vocabulary = {word: i for i, word in enumerate([*special, *letters, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(
        BertConfig(vocab_size=len(vocabulary), max_position_embeddings=length + 2, initializer_range=0.3, **size)
    ).save_pretrained(folder)
    if pooling:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        layers = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
        (folder / "modules.json").write_text(json.dumps(layers))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        flags = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken", "max": "max_tokens"}
        told = {f"pooling_mode_{flag}": name == pooling for name, flag in flags.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    return folder
