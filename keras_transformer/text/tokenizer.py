"""Text to ids and back: one SentencePiece vocabulary that owns its special ids."""

import itertools
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer import arguments
from keras_transformer.files import replacing
from keras_transformer.text.subwords import Segmenter

MASK = "<mask>"


class Tokenizer:
    """A SentencePiece vocabulary (Kudo and Richardson, 2018, arXiv 1808.06226).

    Text is first brought to Unicode NFC, so that composed and decomposed letters (Korean syllables,
    accents) give the same ids. A vocabulary of `train_tokenizer`'s default kind is lossless:
    `decode(encode(text)) == NFC(text)`, up to spaces at either end and a literal "▁".

    Args:
        model_proto: The bytes of a serialized SentencePiece model, as in a `.model` file. Its pad
            id must be 0, and it must have a start and an end id.

    Attributes:
        model_proto: Those bytes.
        pad_id, unknown_id, start_id, end_id: The special ids, read from the model.
        mask_id: The id of `"<mask>"`, for masked language models; None if the vocabulary has none.

    Raises:
        ValueError: If the bytes are no SentencePiece model, or its special ids do not fit.

    Example:

    ```python
    tokenizer = kt.text.train_tokenizer(["a man rides", "a man rests"], vocabulary_size=280)
    ids = tokenizer.encode("a man rests ½")
    tokenizer.decode(ids + [tokenizer.end_id])     # "a man rests ½"
    ```
    """

    def __init__(self, model_proto: bytes) -> None:
        import sentencepiece

        if not model_proto:
            raise ValueError(
                "expected a SentencePiece model, got 0 bytes; make one with "
                "kt.text.train_tokenizer(...).save(path)"
            )
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        except RuntimeError as error:
            raise ValueError(
                f"expected a SentencePiece model, got {len(model_proto)} bytes that are none; "
                "make one with kt.text.train_tokenizer(...).save(path)"
            ) from error
        self.model_proto = model_proto
        self.pad_id = self._processor.pad_id()
        self.unknown_id = self._processor.unk_id()
        self.start_id = self._processor.bos_id()
        self.end_id = self._processor.eos_id()
        mask_id = self._processor.piece_to_id(MASK)
        self.mask_id = mask_id if self._processor.is_control(mask_id) else None
        if self.pad_id != 0 or self.start_id < 0 or self.end_id < 0:
            raise ValueError(
                "expected a vocabulary with pad id 0 and with start and end ids, got "
                f"pad {self.pad_id}, start {self.start_id}, end {self.end_id} (-1 = none); "
                "train one with kt.text.train_tokenizer"
            )

    @property
    def vocabulary_size(self) -> int:
        """The number of ids V, special ones included."""
        return self._processor.vocab_size()

    def special_ids(self) -> list[int]:
        """Returns the ids that stand for no text, the unknown one included, in order."""
        ids = {self.pad_id, self.unknown_id, self.start_id, self.end_id, self.mask_id}
        return sorted(id for id in ids if id is not None)

    def encode(self, text: str | Sequence[str]) -> Any:
        """Text to ids, without start or end. No text gives special ids.

        Args:
            text: A string, or a list of strings.

        Returns:
            A list of ids, or a list of lists of ids.
        """
        # One call per line: for a list sentencepiece 0.2.3 starts threads at each call. That saves
        # a fifth of the time, but sometimes they wait for minutes without a reason.
        encode = self._processor.encode
        try:
            if isinstance(text, str):
                return encode(nfc(text))
            return [encode(nfc(line)) for line in text]
        except (RuntimeError, TypeError):  # which do not name the text
            if isinstance(text, str):
                arguments.string(text, "A tokenizer encodes text, got")
            arguments.strings(text, "encode")
            raise

    def sample(self, texts: Sequence[str], alpha: float, seed: int) -> list[list[int]]:
        """Texts to ids, each cut into pieces at random.

        On a "bpe" vocabulary this is BPE-dropout (Provilkov et al., 2020, arXiv 1910.13267), on a
        "unigram" one subword regularization (Kudo, 2018, arXiv 1804.10959). The pieces differ, but
        `decode` gives the same text.

        Args:
            texts: A list of strings.
            alpha: Above 0, at most 1. With "bpe" it is the probability that a merge is left out:
                0.1 in the paper; 1 gives characters. With "unigram" it is the exponent of the
                segmentations' probabilities: the smaller, the more evenly they are drawn.
            seed: Integer from 0. The same seed gives the same ids.

        Raises:
            ValueError: If `alpha` is out of its range, or the vocabulary is of another kind.
        """
        alpha = arguments.real_number("alpha", alpha)
        seed = arguments.whole_number("seed", seed, least=0)
        best = self.encode(arguments.strings(texts, "sample"))
        ids = np.fromiter(itertools.chain.from_iterable(best), np.int32)
        offsets = np.cumsum([0, *map(len, best)])
        segmenter = Segmenter(self.model_proto, ids, offsets, alpha)
        ids, offsets = segmenter.draw(np.random.default_rng(seed))
        return [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]

    def decode(self, ids: Any) -> Any:
        """Decodes ids to text. Drops pad and start, stops at the first end, strips spaces.

        Invalid UTF-8 becomes "\ufffd" and the unknown id " ⁇ ", so no model output raises.

        Args:
            ids: A list or array of ids, or a list of those, or an array of shape [B, T].

        Returns:
            A string, or a list of B strings.

        Raises:
            ValueError: If an id lies outside the vocabulary.
        """
        batched = np.ndim(ids[0]) == 1 if len(ids) else np.ndim(ids) == 2
        rows = [self._content(np.asarray(row).tolist()) for row in (ids if batched else [ids])]
        try:
            texts = [self._processor.decode(row).strip(" ") for row in rows]
        except IndexError as error:
            flat = [i for row in rows for i in row]
            raise ValueError(
                f"ids must lie in [0, {self.vocabulary_size}), got {min(flat)} to {max(flat)}: "
                "is this the tokenizer that the model was trained with?"
            ) from error
        return texts if batched else texts[0]

    def _content(self, ids):
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        return [i for i in ids if i != self.pad_id and i != self.start_id]

    def pieces(self, text: str) -> list[str]:
        """Returns the pieces of `text` as strings: "▁" is a space, "<0xE3>" a byte."""
        text = arguments.string(text, "A tokenizer encodes text, got")
        return self._processor.encode(nfc(text), out_type=str)

    def id_to_piece(self, id: int) -> str:
        """Returns the piece of an id, as a string."""
        return self._processor.id_to_piece(int(id))

    def piece_to_id(self, piece: str) -> int:
        """Returns the id of a piece, `unknown_id` if the vocabulary lacks it."""
        return self._processor.piece_to_id(piece)

    def seen_ids(self, encoded: Iterable[Any]) -> np.ndarray:
        """Returns booleans [V], True = the id occurs in `encoded`, lists or arrays of ids."""
        seen = np.zeros(self.vocabulary_size, bool)
        for ids in encoded:
            seen[np.asarray(ids, "int64")] = True
        return seen

    def unseen_pieces(self, text: str, seen_ids: np.ndarray) -> list[str]:
        """Returns the pieces of `text` that training never saw, where a translation is a guess.

        Args:
            text: A string.
            seen_ids: Booleans [V], True = the id occurred in training; see `seen_ids()`.

        Returns:
            The distinct pieces in order of appearance, made readable: without the "▁" of a space,
            and with a character instead of the bytes that spell it. Unknown pieces, which the
            vocabulary cannot express, always count as unseen.
        """
        ids, pieces = self.encode(text), self.pieces(text)
        unseen = []
        pending, pending_unseen = b"", False  # the bytes so far of one character
        for id, piece in zip(ids, pieces, strict=True):
            is_unseen = id == self.unknown_id or not seen_ids[id]
            if self._processor.is_byte(id):
                pending += bytes([int(piece[3:5], 16)])
                pending_unseen |= is_unseen
                try:
                    piece, is_unseen = pending.decode(), pending_unseen
                except UnicodeDecodeError:  # the next piece has more bytes of the character
                    continue
                pending, pending_unseen = b"", False
            if is_unseen:
                unseen.append(piece.replace("▁", " ").strip(" ") or "▁")
        return list(dict.fromkeys(unseen))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model to a file, whole or not at all. Another file is never overwritten.

        Args:
            path: The file, usually named `.model`, in an existing folder.

        Raises:
            ValueError: If `path` exists and holds something else.
            FileNotFoundError: If its folder does not exist.
        """
        path = Path(path)
        if path.exists():
            if path.is_file() and path.read_bytes() == self.model_proto:
                return
            raise ValueError(
                f"{path} exists and is not this tokenizer; choose another path or remove it"
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to save {path.name} in; make it")
        with replacing(path) as file:
            file.write(self.model_proto)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads a tokenizer that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is empty, no SentencePiece model, or has other special ids.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no tokenizer file {path}; make one with kt.text.train_tokenizer(...).save(path)"
            )
        try:
            return cls(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def in_graph(self) -> Any:
        """Returns the same tokenizer as TensorFlow ops, for tf.data, tf.function and SavedModel.

        Build it after `keras.utils.set_random_seed`, `tf.random.set_seed` and `clear_session`,
        which destroy the TensorFlow resource that it holds. To encode a corpus, `encode` is faster.
        To load a SavedModel that holds one, first `import tensorflow_text`.

        Returns:
            A `tf.Module` with two functions:
            `encode(strings [B]) -> RaggedTensor int32 [B, None]`, without special ids, and
            `decode(ids) -> strings [B]` of int32 ids that are ragged or padded, [B, T].

        Example:

        ```python
        graph = tokenizer.in_graph()
        tf.data.TextLineDataset("train.en").batch(64).map(graph.encode)
        tf.saved_model.save(graph, "tokenizer")
        ```
        """
        from keras_transformer.text.in_graph import in_graph

        return in_graph(self)


def comparable(text: str) -> str:
    """Returns a text in NFC and without spaces at its ends: equal texts look equal to a reader."""
    return nfc(text).strip()


def nfc(text: str) -> str:
    """Returns a text in Unicode NFC: one character for a letter and its accents."""
    return unicodedata.normalize("NFC", text)
