"""SentencePiece models whose ids are those of a model, from Marian's vocabulary and two models.

Marian cuts a text by the SentencePiece model of its side, and looks the pieces up in a vocabulary,
which may serve both sides. Here a tokenizer's ids are the model's. So both SentencePiece models are
rebuilt: the pieces of the vocabulary in its order, after four special ids. A piece that only the
other side has is marked as unused: no text is cut into it, and it can be decoded. A piece that the
vocabulary lacks, which is unknown to Marian, gets an id at the end, with the vector of the unknown.
"""

from typing import Any, NamedTuple

import numpy as np

from keras_transformer.interop.marian.files import Parts
from keras_transformer.text import Tokenizer

PAD, UNKNOWN, START, END = range(4)
NAMES = ["<pad>", "<unk>", "<s>", "</s>"]


class Vocabulary(NamedTuple):
    """One side's tokenizer, and where its ids were in Marian's vocabulary."""

    tokenizer: Tokenizer
    rows: np.ndarray  # [V] integers: the old id of each new one, -1 for a zero vector
    own: np.ndarray  # [V] booleans: whether the old id has no other new one, so that it is emitted
    old_size: int  # number of old ids


def vocabularies(parts: Parts) -> tuple[Vocabulary, Vocabulary]:
    """The vocabularies of source and target, of one size if they share an embedding matrix."""
    models = [_parsed(spm) for spm in parts.spm]
    shared = "Wemb" in parts.arrays
    names = ("Wemb", "Wemb") if shared else ("encoder_Wemb", "decoder_Wemb")
    if shared and parts.pieces[0] != parts.pieces[1]:
        raise ValueError(
            "Source and target share one embedding matrix, but have two vocabularies. One of the "
            "files belongs to another model: copy the model as a whole."
        )
    pieces = []
    for name, each in zip(names, parts.pieces, strict=True):
        rows = len(parts.arrays[name]) if name in parts.arrays else 0
        if rows < len(each):
            raise ValueError(
                f"The vocabulary has {len(each)} pieces, and the array {name} has {rows} rows. One "
                "of the files belongs to another model: copy the model as a whole."
            )
        pieces.append(each + [""] * (rows - len(each)))  # a row that no text needs has a logit too
    missing = []
    for model, known in zip(models, map(set, pieces), strict=True):
        missing.append([p.piece for p in model.pieces if _is_text(p) and p.piece not in known])
    if shared:
        both = list(dict.fromkeys(missing[0] + missing[1]))
        missing = [both, both]
    start = parts.start
    source = _vocabulary(models[0], pieces[0], missing[0], start, is_source=True)
    target = _vocabulary(models[1], pieces[1], missing[1], start, is_source=False)
    return source, target


def language_tags(tokenizer: Tokenizer) -> list[str]:
    """The tags that a multilingual model of Marian wants before a source, such as `>>fra<<`.

    Args:
        tokenizer: That of the source, as `kt.interop.marian.load` gives it.

    Returns:
        The tags in the order of their ids; an empty list for a model of two languages.

    Example:

    ```python
    translator = kt.interop.marian.load("opus-mt-en-ROMANCE")
    kt.interop.marian.language_tags(translator.tokenizer)  # [">>fra<<", ">>ita<<"]
    translator.translate([">>fra<< A man rides a horse."])
    ```
    """
    pieces = map(tokenizer.id_to_piece, range(tokenizer.vocabulary_size))
    return [piece.removeprefix("▁") for piece in pieces if _is_tag(piece.removeprefix("▁"))]


def _is_tag(piece):
    return piece.startswith(">>") and piece.endswith("<<") and len(piece) > 4


def _parsed(spm: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as protocol

    try:
        model = protocol.ModelProto.FromString(spm)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise ValueError("A .spm file is no SentencePiece model: copy it again.") from error
    if not model.pieces:
        raise ValueError("A .spm file is no SentencePiece model: copy it again.")
    return model


def _is_text(piece):
    """Whether a piece stands for text, or was a part of one while pieces were merged."""
    return piece.type not in (piece.UNKNOWN, piece.CONTROL)


def _vocabulary(model, pieces, missing, start, is_source):
    ids = {piece: id for id, piece in enumerate(pieces)}
    for name in (NAMES[UNKNOWN], NAMES[END]):
        if name not in ids:
            raise ValueError(f"The vocabulary has no {name}, which every model of Marian has.")
    pad = ids.get(NAMES[PAD], -1)
    others = [id for id in range(len(pieces)) if id not in (pad, ids["<unk>"], ids["</s>"])]
    start = -1 if start is None else start
    special = [-1, ids[NAMES[UNKNOWN]], start, ids[NAMES[END]]]
    rows = np.array([*special, *others, *[ids[NAMES[UNKNOWN]]] * len(missing)])
    own = rows >= 0
    own[len(special) + len(others) :] = False
    # The logit of the start is that of padding in Marian's vocabulary, which is never emitted.
    own[START] = start == pad >= 0
    names = [*NAMES, *(pieces[id] or f"<unused {id}>" for id in others), *missing]
    if NAMES[START] in names[4:]:
        names[START] = "<start>"
    first_missing = len(names) if is_source else len(special) + len(others)
    tokenizer = Tokenizer(_rebuilt(model, names, first_missing, is_source))
    return Vocabulary(tokenizer, rows, own, len(pieces))


def _rebuilt(model: Any, names: list[str], first_unused: int, is_source: bool) -> bytes:
    """The bytes of a SentencePiece model with these pieces, which cuts text as `model` does.

    Pieces from id `first_unused` on are not cut out of a text, so it is cut into smaller ones.
    """
    old = {piece.piece: piece for piece in model.pieces}
    new = type(model)()
    new.CopyFrom(model)
    del new.pieces[:]
    spec = new.trainer_spec
    spec.vocab_size = len(names)
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id = PAD, UNKNOWN, START, END
    spec.pad_piece, spec.unk_piece, spec.bos_piece, spec.eos_piece = names[:4]
    prefix = "▁" if model.normalizer_spec.add_dummy_prefix else ""
    for id, name in enumerate(names):
        piece = new.pieces.add(piece=name, score=0.0)
        if id < 4:
            piece.type = piece.UNKNOWN if id == UNKNOWN else piece.CONTROL
        elif is_source and _is_tag(name):
            # With the space that SentencePiece puts before a text, so that it is no piece itself.
            piece.piece, piece.type = prefix + name, piece.USER_DEFINED
        elif name in old and _is_text(old[name]):
            piece.score, piece.type = old[name].score, old[name].type
            if id >= first_unused and piece.type != piece.BYTE:
                piece.type = piece.UNUSED
        else:
            piece.type = piece.UNUSED
    return new.SerializeToString()
