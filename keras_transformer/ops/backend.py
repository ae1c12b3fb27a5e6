"""The name of the Keras backend. Rooms above `ops/` ask here, and never Keras itself."""

import keras


def name() -> str:
    """Returns the backend of this process: `"tensorflow"`, `"jax"` or `"torch"`.

    Keras reads it once, from `KERAS_BACKEND`, when it is imported. Use the name to record it, or to
    say it in a message. A computation that differs between backends belongs into `ops/`, where the
    difference stays behind one function.
    """
    return keras.backend.backend()
