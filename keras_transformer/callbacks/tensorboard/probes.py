"""What TensorBoard shows of a translation model beside its curves."""

import os
from pathlib import Path

import numpy as np
from keras import ops

from keras_transformer.files import replacing

# Pixels across that TensorBoard gives a picture. It scales without smoothing, so letters are only
# readable in a picture of just this width.
FRAME = 350


class Probes:
    """Fixed pairs of sentences that `TensorBoard` looks at again and again.

    Images: what the last layer attends to when it reads them, teacher-forced, as a mean over its
    heads with the tokens on the axes, and the same of each layer and head; once the masks of the
    first pair and the positional encoding. Graphs: the layers, and what flows between them.
    Histograms: every weight matrix. Projector: the target embedding, each row with its token.

    TensorBoard sorts by name, so the pictures are under `view/`: after the curves, which are under
    `train/` and `validation/`.

    Args:
        pairs: A list of (source, target).
        tokenizer: The vocabulary of the source, and of the target where they share one.
        target_tokenizer: The vocabulary of the target.

    Example:

    >>> probes = Probes(pairs[:2], tokenizer)
    >>> model.fit(batches, epochs=10, steps_per_epoch=500, callbacks=[
    ...     TensorBoard("logs", probes=probes)])
    """

    KINDS = ("encoder", "decoder", "cross")

    def __init__(self, pairs, tokenizer, target_tokenizer=None):
        self.tokenizer = tokenizer
        self.target_tokenizer = target_tokenizer or tokenizer
        self._ids, self._pieces = [], []
        for source, target in pairs:
            source_ids = [*self.tokenizer.encode(source), self.tokenizer.end_id]
            target_ids = [self.target_tokenizer.start_id, *self.target_tokenizer.encode(target)]
            self._ids.append((source_ids, target_ids))
            self._pieces.append(
                [
                    [vocabulary.id_to_piece(i) for i in ids]
                    for vocabulary, ids in (
                        (self.tokenizer, source_ids),
                        (self.target_tokenizer, target_ids),
                    )
                ]
            )

    def draw_once(self, events, model):
        """Masks, positions and the graph of the layers, which do not change."""
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

    def draw(self, events, model, update):
        """Attention, and histograms of the weights, as they are now."""
        from keras_transformer import visualization

        for number, (ids, (source, target)) in enumerate(
            zip(self._ids, self._pieces, strict=True), start=1
        ):
            arrays = (np.array([each], "int32") for each in ids)
            weights = model.attention_weights(*arrays)
            axes = {"encoder": (source, source), "decoder": (target, target)}
            axes["cross"] = (target, source)
            for kind in self.KINDS:
                maps = weights[kind][:, 0]  # [L, H, T, S]
                mean = visualization.attention(maps[-1].mean(axis=0), *axes[kind])
                name = f"view/attention {number}: {kind}, mean of heads"
                events.image(update, name, mean, dpi=FRAME / mean.get_figwidth())
                heads = visualization.attention(maps, *axes[kind])
                events.image(update, f"view/heads {number}: {kind}", heads)
        for variable in model.trainable_variables:
            if len(variable.shape) > 1:
                values = ops.convert_to_numpy(ops.cast(variable, "float32"))
                events.histogram(update, f"weights/{variable.path}", values)

    def write_embedding(self, log_dir, model):
        """The target embedding and its tokens, in the files that TensorBoard's Projector reads."""
        log_dir = Path(log_dir)
        os.makedirs(log_dir, exist_ok=True)
        [table] = [
            variable
            for variable in model.target_embedding.trainable_variables
            if variable.shape[0] == model.target_embedding.vocabulary_size
        ]
        rows = ops.convert_to_numpy(ops.cast(table, "float32"))[
            : self.target_tokenizer.vocabulary_size
        ]
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
            ("projector_config.pbtxt", config),
        ):
            with replacing(log_dir / name) as file:
                file.write(text.encode())
