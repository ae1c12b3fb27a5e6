"""TensorBoard's HParams table: the settings of runs beside their results."""

import numbers
import os
import time
from collections.abc import Mapping
from typing import Any

from keras_transformer.callbacks.tensorboard.event_file import EventFile


def write_hparams(
    log_dir: str | os.PathLike,
    hparams: Mapping[str, Any],
    metrics: Mapping[str, float],
    update: int,
    group: str | None = None,
) -> None:
    """Writes a finished run into TensorBoard's HParams table: its settings and its results.

    Runs of one group, such as the seeds of one setting, share a row, with the means of their
    metrics.

    Args:
        log_dir: The run's folder, the same as that of its `TensorBoard` callback.
        hparams: `{name: number, string or boolean}`, the same in all runs of a group.
        metrics: `{tag: number}`, written as scalars at `update`.
        update: The update at which the run ended.
        group: The group's name; the folder's unless given.

    Raises:
        TypeError: If TensorBoard cannot show a setting.

    Example:

    >>> for seed, bleu in ((1, 33.1), (2, 33.5)):
    ...     write_hparams(f"runs/wide-{seed}", {"d_ff": 512}, {"bleu": bleu}, 9000, group="wide")
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    now = time.time()
    start = plugin_data_pb2.SessionStartInfo(group_name=group or "", start_time_secs=now)
    for name, value in hparams.items():
        if isinstance(value, bool | str):
            kind = "bool_value" if isinstance(value, bool) else "string_value"
        elif isinstance(value, numbers.Real):
            kind, value = "number_value", float(value)
        else:
            raise TypeError(
                f"TensorBoard shows numbers, strings and booleans, but {name} is {value!r}. Leave "
                "it out, or pass it as a string."
            )
        setattr(start.hparams[name], kind, value)
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=now)
    events = EventFile(log_dir, first_step=update + 1)  # so that the run's curves stay whole
    for tag, data in (
        (metadata.SESSION_START_INFO_TAG, {"session_start_info": start}),
        (metadata.SESSION_END_INFO_TAG, {"session_end_info": end}),
    ):
        content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
        events.summary(0, [{"tag": tag, "metadata": content, "tensor": metadata.NULL_TENSOR}])
    events.scalars(update, metrics)
    events.close()
