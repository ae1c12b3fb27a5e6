"""A training on disk: its settings, checkpoints, log and averaged weights."""

from keras_transformer.runs.run_directory import RunDirectory

__all__ = ["RunDirectory"]
