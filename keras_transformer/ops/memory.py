"""The memory of a training step: how much it takes, and how to keep it from step to step."""

import ctypes
import sys

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory():
    """Lets the process keep the memory of large tensors instead of returning it to the system.

    A training step on the CPU frees tensors of hundreds of megabytes (the logits and their
    gradients) and asks for the same again in the next step. By default glibc gives such blocks
    back to the system at once, and each comes back as tens of thousands of page faults, each page
    filled with zeros: on a virtual machine that can cost more than the arithmetic. It concerns
    the whole process, so importing the package does not do it; training a `Transformer`, making a
    `Translator` and the commands do.

    Returns:
        Whether it took effect: True on Linux with glibc, False elsewhere (where nothing is done).

    Example:

    ```python
    keep_freed_memory()
    model.fit(batches, epochs=10, steps_per_epoch=500)
    ```
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = (
        (_M_MMAP_MAX, 0),  # large blocks come from the heap, ...
        (_M_TRIM_THRESHOLD, 2**31 - 1),  # ... which does not shrink, ...
        (_M_TOP_PAD, 256 * 2**20),  # ... grows in large steps, ...
        (_M_ARENA_MAX, 1),  # ... and is one: those of other threads are limited to 64 MiB
    )
    return all([mallopt(*setting) for setting in settings])


def training_step_bytes(model, shapes):
    """Estimated bytes that training needs at the largest of the shapes, beside the program's own.

    Weights, gradients and two moments; and what the backward pass needs again, counted from the
    layers' own tensors: per position about 14 (encoder) or 24 (decoder) vectors of width D and 3 of
    width F a layer, three copies of the attention weights, and three of the logits, all float32. On
    the CPU the process was seen to grow by 0.9 to 1.4 times that (TensorFlow, six shapes).

    Args:
        model: a `Transformer`.
        shapes: an iterable of (rows, source length, target length).

    Returns:
        The estimate, in bytes.
    """
    encoder = model.encoder.layers[0]
    d_model, d_ff, heads = encoder.d_model, encoder.d_ff, encoder.num_heads
    encoder_layers, decoder_layers = model.encoder.num_layers, model.decoder.num_layers
    vocabulary = model.output_shape[-1]

    def activations(rows, source, target):
        encoded = source * (14 * d_model + 3 * d_ff) + 3 * heads * source * source
        decoded = target * (24 * d_model + 3 * d_ff) + 3 * heads * target * (target + source)
        floats = encoder_layers * encoded + decoder_layers * decoded + 3 * target * vocabulary
        return rows * floats

    return 4 * (4 * model.count_params() + max(activations(*shape) for shape in shapes))
