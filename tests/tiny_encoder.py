"""Encoders of a few thousand parameters with random weights, as folders; nothing is downloaded."""

import json
from pathlib import Path

from trainers.sentence_folder import POOLINGS

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
        told = {f"pooling_mode_{flag}": name == pooling for name, flag in POOLINGS.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    return folder


_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_SMALL = _SIZE | {"embedding_size": 16}
_DECODER = _SIZE | {"num_key_value_heads": 1, "head_dim": 16}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
FAMILIES = {  # model type -> its configuration
    "bert": _SIZE,
    "roberta": _SIZE,
    "xlm-roberta": _SIZE,
    "mpnet": _SIZE,
    "albert": _SMALL,
    "electra": _SMALL,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "deberta-v2": _SIZE | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": _SIZE | {"global_attn_every_n_layers": 2, "local_attention": 8},
    "nomic_bert": _SIZE,
    "t5": _T5,
    "qwen3": _DECODER,
    "gemma3_text": _DECODER | {"use_bidirectional_attention": True, "sliding_window": 8},
}
_NEWER = {
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
}


def make_sentence_encoder(folder, family="bert", poolings=("mean",), layers=(), *, newer=False, body="", **said):
    """Save an encoder as sentence-transformers does.

    Args:
        layers: behind the pooling, `(kind, what its config.json says)`; random weights where it has some.
        newer: named as its versions from 5.4 on do.
        body: folder of the transformer inside.
        said: `prompts`, `lower`, `include_prompt`, and `padding_side` of the tokenizer.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    inside = make_tiny_encoder(folder / body)
    tokenizer = AutoTokenizer.from_pretrained(inside, padding_side=said.get("padding_side", "right"))
    tokenizer.save_pretrained(inside)
    torch.manual_seed(3)
    places = {} if family == "t5" else {"max_position_embeddings": 70}
    ids = {
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "mask_token_id": 4,
    }
    model = AutoModel.from_config(
        AutoConfig.for_model(family, vocab_size=len(tokenizer), **ids, **places, **FAMILIES[family])
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(inside)

    steps, size = [("Transformer", body, {})], 32 * len(poolings)
    mode = {"pooling_mode": poolings} if newer else {f"pooling_mode_{POOLINGS[name]}": True for name in poolings}
    pooled = {"include_prompt": said.get("include_prompt", True)}
    steps.append(("Pooling", "1_Pooling", mode | {"word_embedding_dimension": 32} | pooled))
    for i, (kind, config) in enumerate(layers, 2):
        name, told = f"{i}_{kind}", {}
        if kind == "Dense":
            told = {"in_features": size, "out_features": size, "bias": True}
        elif kind == "LayerNorm":
            told = {"dimension": size}
        steps.append((kind, name, told | config))
        shapes = _shapes(kind, told | config)
        size = config.get("out_features", size)
        (folder / name).mkdir()
        if shapes:
            save_file({key: torch.randn(shape) for key, shape in shapes.items()}, folder / name / "model.safetensors")
    home = _NEWER if newer else {kind: f"sentence_transformers.models.{kind}" for kind in _NEWER}
    for _, name, config in steps[1:]:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    modules = [{"idx": i, "name": str(i), "path": path, "type": home[kind]} for i, (kind, path, _) in enumerate(steps)]
    (folder / "modules.json").write_text(json.dumps(modules))
    limits = {"max_seq_length": 48, "do_lower_case": said.get("lower", False)}
    (inside / "sentence_bert_config.json").write_text(json.dumps(limits))
    settings = {"prompts": said.get("prompts", {}), "default_prompt_name": said.get("usual")}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def _shapes(kind, config):
    if kind == "LayerNorm":
        return {"norm.weight": config["dimension"], "norm.bias": config["dimension"]}
    if kind != "Dense":
        return {}
    matrix = (config["out_features"], config["in_features"])
    bias = {"linear.bias": matrix[0]} if config["bias"] else {}
    changes = config.get("use_residual") and matrix[0] != matrix[1]
    return {"linear.weight": matrix, **bias, **({"residual.weight": matrix} if changes else {})}
