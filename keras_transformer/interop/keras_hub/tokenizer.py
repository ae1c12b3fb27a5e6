"""A tokenizer of KerasHub with the ids and the methods of this package."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer import arguments
from keras_transformer.files import new_folder, read_json, write_json
from keras_transformer.interop.keras_hub.ids import NONE, PADDING, START, our_ids, their_ids

CONFIG = "hub_tokenizer.json"


class HubTokenizer:
    """A tokenizer of KerasHub, with the ids of the models that `load` makes.

    Text is cut as KerasHub cuts it, and only the ids differ. `Translator`, `encode_pairs`,
    `encode_texts` and `MaskedPlan` take it. It is no SentencePiece vocabulary, so runs of the
    command line, caches of encoded pairs, subword sampling and exports do not take it.

    A text of BART begins with `<s>` on both sides, as in its training. The start of a target is an
    id of its own, with the vector of `</s>`.

    Args:
        tokenizer: A `BertTokenizer`, `RobertaTokenizer`, `XLMRobertaTokenizer`, `GPT2Tokenizer` or
            `BartTokenizer` of KerasHub, without `sequence_length`.

    Attributes:
        tokenizer: That tokenizer.
        vocabulary_size: The number of ids V.
        pad_id, start_id, end_id: The special ids; padding is 0.
        unknown_id, mask_id: The ids of unknown text and of the mask, or None.

    Raises:
        ValueError: For another tokenizer, or a BART with other special ids than its presets.

    Example:

    ```python
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "rid", "##es"]
    theirs = keras_hub.models.BertTokenizer(words)  # or from_preset
    tokenizer = kt.interop.keras_hub.HubTokenizer(theirs)
    tokenizer.encode("a man rides")  # [5, 6, 7, 8]
    ```
    """

    pad_id = 0

    def __init__(self, tokenizer: Any) -> None:
        backbone = getattr(getattr(tokenizer, "backbone_cls", None), "__name__", None)
        if backbone not in PADDING:
            raise ValueError(
                f"A {type(tokenizer).__name__} cannot be read. Give a tokenizer of KerasHub for a "
                f"{', '.join(PADDING)}."
            )
        if tokenizer.sequence_length:
            raise ValueError(
                f"The tokenizer pads to sequence_length={tokenizer.sequence_length}, and batches "
                "are padded here. Make it without sequence_length."
            )
        pad_id = NONE if PADDING[backbone] == NONE else tokenizer.pad_token_id
        self.tokenizer = tokenizer
        self._theirs = their_ids(backbone, tokenizer.vocabulary_size(), pad_id)
        self._ours = our_ids(self._theirs)
        self.vocabulary_size = len(self._theirs)
        self.end_id = self._id(tokenizer.end_token_id)
        self.start_id = self._id(tokenizer.start_token_id)
        self.mask_id = self._id(getattr(tokenizer, "mask_token_id", None))
        unknown = getattr(tokenizer, "oov_token", "<unk>")
        known = unknown in tokenizer.get_vocabulary()
        self.unknown_id = self._id(tokenizer.token_to_id(unknown) if known else None)
        self._begin: list[int] = []
        if backbone == "BartBackbone":
            special = tokenizer.start_token_id, pad_id, tokenizer.end_token_id
            if special != (0, 1, 2):
                raise ValueError(
                    f"The start, padding and end of this BART are {special}, and (0, 1, 2) in its "
                    "presets. Give the tokenizer of a preset."
                )
            self._begin, self.start_id = [self.start_id], START

    def _id(self, theirs):
        return None if theirs is None else int(self._ours[theirs])

    def special_ids(self) -> list[int]:
        """Returns the ids that stand for no text, the unknown one included, in order."""
        ids = {self.pad_id, self.unknown_id, self.start_id, self.end_id, self.mask_id}
        return sorted(id for id in {*ids, *self._begin} if id is not None)

    def encode(self, text: str | Sequence[str]) -> Any:
        """Text to ids, without the start and the end of a batch's rows.

        Args:
            text: A string, or a list of strings.

        Returns:
            A list of ids, or a list of lists of ids.
        """
        if isinstance(text, str):
            return self.encode([text])[0]
        texts = arguments.strings(text, "encode")
        rows = self.tokenizer.tokenize(texts) if texts else []
        return [self._begin + self._ours[list(ids)].tolist() if len(ids) else [] for ids in rows]

    def decode(self, ids: Any) -> Any:
        """Decodes ids to text, without special ids and what follows the first end.

        Args:
            ids: A list or array of ids, or a list of those, or an array of shape [B, T].

        Returns:
            A string, or a list of B strings.
        """
        if len(ids) and np.ndim(ids[0]) == 1:
            return [self.decode(row) for row in ids]
        row = np.asarray(ids, int).tolist()
        if row[:1] == [self.start_id]:
            row = row[1:]  # which is the end too, in GPT-2
        if self.end_id in row:
            row = row[: row.index(self.end_id)]
        special = self.special_ids()
        theirs = [int(self._theirs[id]) for id in row if id not in special]
        return self.tokenizer.detokenize(theirs).strip(" ") if theirs else ""

    def id_to_piece(self, id: int) -> str:
        """Returns the token of an id, as KerasHub writes it."""
        theirs = self._theirs[id]
        return "<pad>" if theirs == NONE else self.tokenizer.id_to_token(int(theirs))

    def save_to_folder(self, folder: str | os.PathLike) -> None:
        """Writes the tokenizer to a new folder, which `from_folder` reads.

        Raises:
            ValueError: If the folder exists.
        """
        kind, config = type(self.tokenizer).__name__, self.tokenizer.get_config()
        del config["dtype"]  # an object; theirs is always int32
        with new_folder(folder) as new:
            write_json(new / CONFIG, {"class_name": kind, "config": config})
            self.tokenizer.save_assets(str(new))

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "HubTokenizer":
        """Reads what `save_to_folder` wrote. No code in the folder is executed.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the folder names another class.
        """
        import keras_hub

        record = read_json(Path(folder) / CONFIG)
        kind = record["class_name"]
        if f"{kind.removesuffix('Tokenizer')}Backbone" not in PADDING:
            raise ValueError(
                f"{folder} has a {kind}, which cannot be read. Give a folder that "
                "HubTokenizer.save_to_folder wrote."
            )
        tokenizer = getattr(keras_hub.models, kind)(**record["config"])
        tokenizer.load_assets(str(folder))
        return cls(tokenizer)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"A HubTokenizer has no {name}. What needs it takes only a SentencePiece vocabulary, "
            "such as one of kt.text.train_tokenizer."
        )
