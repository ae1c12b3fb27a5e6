"""Reads a folder of a `MarianMTModel`, as Hugging Face's transformers saves it."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer.arguments import whole_number
from keras_transformer.interop.marian.files import (
    Parts,
    by_id,
    file_in,
    read_json_object,
    read_safetensors,
    refuse_others,
)

EPSILON = 1e-5  # of PyTorch's LayerNorm
ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu"}
# Options of config.json, also those that transformers no longer reads: see `refuse_others`.
WANTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("marian", "another model"),
    "scale_embedding": (True, "embeddings without the factor sqrt(d_model)"),
    "normalize_before": (False, "Marian's pre-norm without the name pre"),
    "normalize_embedding": (False, "a LayerNorm on the embeddings"),
    "add_final_layer_norm": (False, "a LayerNorm after the stacks"),
    "static_position_embeddings": (True, "positions of another kind"),
}
# Their names of a layer's parts -> Marian's.
PARTS = {
    "self_attn.q_proj": "self_{}q",
    "self_attn.k_proj": "self_{}k",
    "self_attn.v_proj": "self_{}v",
    "self_attn.out_proj": "self_{}o",
    "self_attn_layer_norm": "self_Wo_ln_{}",
    "encoder_attn.q_proj": "context_{}q",
    "encoder_attn.k_proj": "context_{}k",
    "encoder_attn.v_proj": "context_{}v",
    "encoder_attn.out_proj": "context_{}o",
    "encoder_attn_layer_norm": "context_Wo_ln_{}",
    "fc1": "ffn_{}1",
    "fc2": "ffn_{}2",
    "final_layer_norm": "ffn_ffn_ln_{}",
}
HEAD = "decoder_ff_logit_out_Wt"
# Marian's names of the matrices [V, D] -> theirs.
TABLES = {
    "Wemb": "model.shared.weight",
    "encoder_Wemb": "model.encoder.embed_tokens.weight",
    "decoder_Wemb": "model.decoder.embed_tokens.weight",
    HEAD: "lm_head.weight",
}
LAYER = re.compile(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")

TO_SAFETENSORS = """\
{folder} has no model.safetensors, and pytorch_model.bin may hold code, so it is not read. Convert \
it, if you trust it: python -c "from transformers import MarianMTModel as M; \
M.from_pretrained('{folder}').save_pretrained('NEW')". Then copy source.spm, target.spm and \
vocab.json to NEW."""


def read(folder: Path) -> Parts:
    """Reads the folder; see `load`."""
    config = read_json_object(file_in(folder, "config.json"))
    refuse_others(folder / "config.json", {"scale_embedding": False, **config}, WANTED)
    if not (folder / "model.safetensors").exists() and (folder / "pytorch_model.bin").exists():
        raise ValueError(TO_SAFETENSORS.format(folder=folder))
    sizes = _sizes(config, folder)
    frequencies = 10_000.0 ** (-2 * np.arange(sizes["d_model"] // 2) / sizes["d_model"])
    saved = read_safetensors(file_in(folder, "model.safetensors"))
    _check_positions(saved, frequencies, folder)
    names = ["vocab.json"]
    if not config.get("share_encoder_decoder_embeddings", True):
        names.append("target_vocab.json")
    paths = [file_in(folder, name) for name in names]
    pieces = [by_id(read_json_object(path), path) for path in paths]
    start = whole_number("decoder_start_token_id", config.get("decoder_start_token_id"), 0)
    spm = [file_in(folder, f"{side}.spm").read_bytes() for side in ("source", "target")]
    return Parts(
        _renamed(saved, len(pieces) == 1),
        sizes,
        frequencies,
        (spm[0], spm[1]),
        (pieces[0], pieces[-1]),
        start,
    )


def _sizes(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    def size(name):
        return whole_number(f"{folder / 'config.json'}: {name}", config.get(name))

    for name in ("attention_heads", "ffn_dim"):
        if size(f"encoder_{name}") != size(f"decoder_{name}"):
            raise ValueError(
                f"{folder / 'config.json'} has encoder_{name}: {size(f'encoder_{name}')} and "
                f"decoder_{name}: {size(f'decoder_{name}')}. A Transformer has one for both."
            )
    activation = config.get("activation_function", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{folder / 'config.json'} has activation_function: {activation!r}, expected one of "
            f"{', '.join(ACTIVATIONS)}."
        )
    return {
        "num_layers": size("encoder_layers"),
        "num_decoder_layers": size("decoder_layers"),
        "d_model": size("d_model"),
        "num_heads": size("encoder_attention_heads"),
        "d_ff": size("encoder_ffn_dim"),
        "dropout": float(config.get("dropout", 0.1)),
        "activation": ACTIVATIONS[activation],
        "epsilon": EPSILON,
        "norm": "post",
    }


def _check_positions(saved, frequencies, folder):
    """Compares the table of positions, which older files hold, with the sinusoids."""
    for side in ("encoder", "decoder"):
        table = saved.pop(f"model.{side}.embed_positions.weight", None)
        if table is None:
            continue
        angles = np.arange(len(table))[:, None] * frequencies
        expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        if table.shape != expected.shape or np.abs(table - expected).max() > 1e-3:
            raise ValueError(
                f"{folder / 'model.safetensors'} holds positions of the {side} that are not the "
                "sinusoids of transformers' MarianMTModel. They are not read."
            )


def _renamed(saved: dict[str, np.ndarray], shared: bool) -> dict[str, np.ndarray]:
    """The arrays by Marian's names. Of equal arrays, transformers saves one under any name."""
    arrays = {}
    for name in [name for name in saved if LAYER.fullmatch(name)]:
        stack, number, part, kind = LAYER.fullmatch(name).groups()  # type: ignore[union-attr]
        if part not in PARTS:
            continue
        is_norm = part.endswith("layer_norm")
        suffix = {"weight": "scale" if is_norm else "W", "bias": "bias" if is_norm else "b"}[kind]
        array = saved.pop(name)
        renamed = f"{stack}_l{int(number) + 1}_{PARTS[part].format(suffix)}"
        arrays[renamed] = array.T if suffix == "W" else array
    if "final_logits_bias" in saved:
        arrays["decoder_ff_logit_out_b"] = saved.pop("final_logits_bias")
    tables = {name: saved.pop(theirs) for name, theirs in TABLES.items() if theirs in saved}
    tied = "Wemb" if shared else "decoder_Wemb"
    for other in ("decoder_Wemb", "encoder_Wemb", HEAD) if shared else (HEAD,):
        if tied not in tables and other in tables:
            tables[tied] = tables[other]
    if shared:
        tables = {name: table for name, table in tables.items() if name in (tied, HEAD)}
    if HEAD in tables and np.array_equal(tables[HEAD], tables[tied]):
        del tables[HEAD]
    return arrays | tables | saved  # the caller refuses unknown names
