"""The memory of a training step: how much it takes, and how to keep it from step to step."""

import ctypes
import sys
from collections.abc import Iterable
from typing import Any

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Lets the process keep the memory of large tensors instead of returning it to the system.

    A training step on the CPU frees tensors of hundreds of megabytes (the logits and their
    gradients) and needs as much again in the next step. By default glibc returns such blocks to the
    system at once. Getting one back costs tens of thousands of page faults, which can take longer
    than the arithmetic on a virtual machine. The setting holds for the whole process, so importing
    the package does not change it. Training a `Transformer`, making a `Translator` and the commands
    do.

    Returns:
        Whether it took effect: True on Linux with glibc. Elsewhere nothing is done.

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
        (_M_MMAP_MAX, 0),  # Large blocks come from the heap, ...
        (_M_TRIM_THRESHOLD, 2**31 - 1),  # ... which does not shrink, ...
        (_M_TOP_PAD, 256 * 2**20),  # ... and grows in large steps.
        (_M_ARENA_MAX, 1),  # All threads share one heap: others are limited to 64 MiB.
    )
    return all([mallopt(*setting) for setting in settings])


def training_step_bytes(model: Any, shapes: Iterable[tuple[int, int, int]]) -> int:
    """Estimates the bytes that training adds to the process at the largest of the shapes.

    They hold weights, gradients, two moments and the tensors of the backward pass. Per layer and
    position those are about 14 (encoder) or 24 (decoder) vectors of width D and 3 of width F, and
    three copies of the attention weights; and three copies of the logits. All are float32. On a CPU
    the process grew by 0.9 to 1.4 times the estimate (TensorFlow, six shapes).

    Args:
        model: A `Transformer`.
        shapes: An iterable of (rows, source length, target length).

    Returns:
        The estimate, in bytes.
    """
    encoder = model.encoder.layers[0]
    d_model, d_ff, heads = encoder.d_model, encoder.d_ff, encoder.num_heads
    encoder_layers, decoder_layers = model.encoder.num_layers, model.decoder.num_layers
    vocabulary = model.output_shape[-1]

    def activations(rows: int, source: int, target: int) -> int:
        encoded = source * (14 * d_model + 3 * d_ff) + 3 * heads * source * source
        decoded = target * (24 * d_model + 3 * d_ff) + 3 * heads * target * (target + source)
        floats = encoder_layers * encoded + decoder_layers * decoded + 3 * target * vocabulary
        return rows * floats

    passes = 2 if model._r_drop else 1
    return 4 * (4 * model.count_params() + passes * max(activations(*shape) for shape in shapes))
