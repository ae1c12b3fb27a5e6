"""What TensorBoard shows of a translation model beside its curves."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer.callbacks.tensorboard.event_file import EventFile
from keras_transformer.files import replacing
from keras_transformer.ops import processes
from keras_transformer.text import Tokenizer

# The width of a picture in TensorBoard, in pixels. It scales other widths without smoothing, which
# makes letters unreadable.
FRAME = 350
CONFIG = "projector_config.pbtxt"  # which makes TensorBoard show the Projector


class Probes:
    """Fixed pairs of sentences that `TensorBoard` draws again and again.

    - Images: what the last layer attends to when it reads the pairs, teacher-forced, as a mean over
      its heads with the tokens on the axes, and what each layer and head attends to. Once, the
      masks of the first pair and the positional encoding.
    - Graphs: the layers and the data flow between them.
    - Histograms: every weight matrix.
    - Projector: the target embedding, each row with its token.

    TensorBoard sorts by name, so the pictures are named `view/`, which comes after the curves
    `train/` and `validation/`.

    Args:
        pairs: A list of (source, target).
        tokenizer: The vocabulary of the source.
        target_tokenizer: The vocabulary of the target; that of the source unless given.

    Example:

    >>> probes = Probes(pairs[:2], tokenizer)
    >>> model.fit(batches, epochs=10, steps_per_epoch=500, callbacks=[
    ...     TensorBoard("logs", probes=probes)])
    """

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]],
        tokenizer: Tokenizer,
        target_tokenizer: Tokenizer | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.target_tokenizer = target_tokenizer or tokenizer
        self._ids, self._pieces = [], []
        for source, target in pairs:
            source_ids = [*self.tokenizer.encode(source), self.tokenizer.end_id]
            target_ids = [self.target_tokenizer.start_id, *self.target_tokenizer.encode(target)]
            self._ids.append((source_ids, target_ids))
            self._pieces.append(
                (
                    [self.tokenizer.id_to_piece(i) for i in source_ids],
                    [self.target_tokenizer.id_to_piece(i) for i in target_ids],
                )
            )

    def draw_once(self, events: EventFile, model: Any) -> None:
        """Writes what does not change: masks, positions and the graph of the layers."""
        from keras_transformer import visualization
        from keras_transformer.visualization.shapes import run_once

        events.graph(run_once(model, 2, 5, 4))

        source, target = self._pieces[0]
        padded = [*source, "<pad>"], [*target, "<pad>"]
        events.image(0, "view/masks", visualization.masks(*padded))
        embedding = model.target_embedding
        if embedding.positions == "sinusoidal":
            figure = visualization.positional_encoding(64, embedding.d_model)
            events.image(0, "view/positional encoding", figure)

    def draw(self, events: EventFile, model: Any, update: int) -> None:
        """Writes the present attention, and histograms of the present weights."""
        from keras_transformer import visualization

        for number, (ids, (source, target)) in enumerate(
            zip(self._ids, self._pieces, strict=True), start=1
        ):
            arrays = (np.array([each], "int32") for each in ids)
            weights = model.attention_weights(*arrays)
            axes = {"encoder": (source, source), "decoder": (target, target)}
            axes["cross"] = (target, source)
            for kind, tokens in axes.items():
                maps = weights[kind][:, 0]  # [L, H, T, S]
                mean = visualization.attention(maps[-1].mean(axis=0), *tokens)
                name = f"view/attention {number}: {kind}, mean of heads"
                events.image(update, name, mean, dpi=FRAME / mean.get_figwidth())
                heads = visualization.attention(maps, *tokens)
                events.image(update, f"view/heads {number}: {kind}", heads)
        for variable in model.trainable_variables:
            if len(variable.shape) > 1:
                values = processes.whole(variable).astype("float32")
                events.histogram(update, f"weights/{variable.path}", values)

    def write_embedding(self, log_dir: str | os.PathLike | None, model: Any) -> None:
        """Writes the target embedding and its tokens into the files that Projector reads.

        All processes of a training call it, and those without a `log_dir` write nothing.
        """
        table = processes.whole(model.target_embedding.token.embeddings).astype("float32")
        if log_dir is None:
            return
        log_dir = Path(log_dir)
        os.makedirs(log_dir, exist_ok=True)
        rows = table[: self.target_tokenizer.vocabulary_size]
        vectors = "".join("\t".join(f"{x:.4g}" for x in row) + "\n" for row in rows)
        tokens = (self.target_tokenizer.id_to_piece(i) for i in range(len(rows)))
        labels = "".join(repr(t)[1:-1] + "\n" if not t.isprintable() else t + "\n" for t in tokens)
        config = (
            'embeddings {\n  tensor_name: "embedding"\n  tensor_path: "embedding.tsv"\n'
            '  metadata_path: "tokens.tsv"\n}\n'
        )
        for name, text in (
            ("embedding.tsv", vectors),
            ("tokens.tsv", labels),
            (CONFIG, config),  # last: it says that the others are there
        ):
            with replacing(log_dir / name) as file:
                file.write(text.encode())

    def has_embedding(self, log_dir: str | os.PathLike) -> bool:
        """Whether `write_embedding` has ended there since `forget_embedding`."""
        return (Path(log_dir) / CONFIG).exists()

    def forget_embedding(self, log_dir: str | os.PathLike) -> None:
        """Takes the embedding of an earlier training from Projector."""
        (Path(log_dir) / CONFIG).unlink(missing_ok=True)
