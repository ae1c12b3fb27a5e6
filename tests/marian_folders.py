"""Tiny random models of Marian, in folders as Hugging Face and OPUS-MT have them."""

import io
import json
import struct

import numpy as np
import sentencepiece

HEADS, WIDTH = 3, 37
SIZES = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 2}
SIDES = ("source", "target")
OPTIONS = {
    "type": "transformer",
    "dim-emb": SIZES["d_model"],
    "enc-depth": SIZES["encoder_layers"],
    "dec-depth": SIZES["decoder_layers"],
    "transformer-heads": HEADS,
    "transformer-dim-ffn": WIDTH,
    "transformer-ffn-depth": 2,
    "transformer-ffn-activation": "swish",
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-decoder-autoreg": "self-attention",
    "transformer-no-projection": False,
    "transformer-guided-alignment-layer": "last",
}


def processor(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def write_text(folder, spm, pieces):
    for side, model in zip(SIDES, spm, strict=True):
        (folder / f"{side}.spm").write_bytes(model)
    ids = {piece: id for id, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")


def random_arrays(size, pre_norm=False):
    """The arrays of a model of Marian, by its names."""
    width, rng, arrays = SIZES["d_model"], np.random.default_rng(11), {}

    def add(name, *shape, scale=0.4, centre=0.0):
        arrays[name] = rng.normal(centre, scale, shape).astype("float32")

    def norm(name, suffix="_pre" if pre_norm else ""):
        add(f"{name}_ln_scale{suffix}", 1, width, centre=1.0)
        add(f"{name}_ln_bias{suffix}", 1, width)

    add("Wemb", size, width)
    add("decoder_ff_logit_out_b", 1, size)
    arrays["decoder_ff_logit_out_b"][0, :2] += [5, -20]
    for stack in ("encoder", "decoder"):
        for number in range(1, SIZES[f"{stack}_layers"] + 1):
            scope = f"{stack}_l{number}"
            for block in ("self", "context")[: 1 + (stack == "decoder")]:
                for letter in "qkvo":
                    add(f"{scope}_{block}_W{letter}", width, width)
                    add(f"{scope}_{block}_b{letter}", 1, width)
                norm(f"{scope}_{block}_Wo")
            add(f"{scope}_ffn_W1", width, WIDTH)
            add(f"{scope}_ffn_b1", 1, WIDTH)
            add(f"{scope}_ffn_W2", WIDTH, width)
            add(f"{scope}_ffn_b2", 1, width)
            norm(f"{scope}_ffn_ffn")
        if pre_norm:
            norm(f"{stack}_top", "")
    return arrays


def yaml_key(piece):
    """A key as Marian writes it: quoted, with escapes."""
    return json.dumps(piece, ensure_ascii=False)


def write_distribution(folder, spm, pieces, arrays, **options):
    """Writes a folder as OPUS-MT distributes it. An argument with another name changes a file."""
    import yaml

    folder.mkdir(exist_ok=True)
    write_text(folder, spm, pieces)
    (folder / "vocab.json").unlink()
    lines = [f"{yaml_key(piece)}: {id}" for id, piece in enumerate(pieces)]
    (folder / "opus.vocab.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    decoder = {"relative-paths": True, "models": ["opus.npz"], "beam-size": 6, "normalize": 1}
    decoder |= {"vocabs": ["opus.vocab.yml"] * 2} | options.pop("decoder", {})
    (folder / "decoder.yml").write_text(yaml.safe_dump(decoder))
    text = yaml.safe_dump(OPTIONS | {k.replace("_", "-"): v for k, v in options.items()})
    code = np.frombuffer(text.encode() + b"\0", "int8")
    np.savez(folder / "opus.npz", **arrays, **{"special:model.yml": code})
    return folder


def write_safetensors(path, arrays):
    header, place = {}, 0
    for name, array in arrays.items():
        end = place + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [place, end]}
        place = end
    head = json.dumps(header).encode()
    numbers = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    path.write_bytes(struct.pack("<Q", len(head)) + head + numbers)


def hugging_face(folder, spm, pieces, arrays, **config):
    """Writes arrays of Marian as transformers would, with the pad id after the pieces."""
    folder.mkdir(exist_ok=True)
    write_text(folder, spm, [*pieces, "<pad>"])
    table = np.vstack([arrays["Wemb"], np.zeros((1, SIZES["d_model"]), "float32")])
    bias = np.append(arrays["decoder_ff_logit_out_b"], np.float32([[0]]), axis=1)
    saved = {"model.shared.weight": table, "final_logits_bias": bias}
    parts = {"self": "self_attn", "context": "encoder_attn"}
    for name, array in arrays.items():
        stack, _, rest = name.partition("_l")
        number, _, rest = rest.partition("_")
        if not number.isdigit():
            continue
        block, _, part = rest.partition("_")
        kind = "weight" if part[0] == "W" and "ln" not in part or "scale" in part else "bias"
        if "ln" in part:
            inner = f"{parts[block]}_layer_norm" if block in parts else "final_layer_norm"
        elif block in parts:
            inner = f"{parts[block]}.{part[1].replace('o', 'out')}_proj"
        else:
            inner = f"fc{part[1]}"
        array = array.T if kind == "weight" and "ln" not in part else array.reshape(-1)
        saved[f"model.{stack}.layers.{int(number) - 1}.{inner}.{kind}"] = array
    write_safetensors(folder / "model.safetensors", saved)
    default = {
        "model_type": "marian",
        **SIZES,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": WIDTH,
        "decoder_ffn_dim": WIDTH,
        "activation_function": "swish",
        "scale_embedding": True,
        "decoder_start_token_id": len(pieces),
    }
    (folder / "config.json").write_text(json.dumps(default | config))
    return folder


def train_spm(lines, kind, size):
    """Trains a SentencePiece model with at most this many pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def pieces_of_both(spm):
    """Marian's vocabulary of two SentencePiece models, by id."""
    found = ["</s>", "<unk>"]
    for model in map(processor, spm):
        ids = range(model.vocab_size())
        found += [model.id_to_piece(i) for i in ids if not (model.is_control(i) or i == 0)]
    return list(dict.fromkeys(found))


def tiny_distribution(folder, pairs, tags=()):
    """Writes a whole random distribution for pairs of strings."""
    spm = [train_spm(side, "char", 60) for side in zip(*pairs, strict=True)]
    pieces = [*pieces_of_both(spm), *tags]
    write_distribution(folder, spm, pieces, random_arrays(len(pieces)))
