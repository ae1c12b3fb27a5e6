"""The columns of TensorBoard's HParams table, declared for all runs of an ablation."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence

from keras_transformer.callbacks.tensorboard import EventFile


def write_hparams_columns(
    log_dir: str | os.PathLike, hparams: Mapping[str, Iterable], metrics: Sequence[str]
) -> None:
    """Declares the columns of the HParams table for all runs under `log_dir`.

    Otherwise TensorBoard makes a column of every setting and every curve. Call this once.

    Args:
        log_dir: The argument of `tensorboard --logdir`, or a folder in it.
        hparams: `{name: values}`, the values of a setting in all runs: all numbers, all strings or
            all booleans.
        metrics: The tags of the scalars that are results.

    Example:

    >>> write_hparams_columns("runs", {"d_ff": [256, 512], "norm": ["pre"]}, ["perplexity", "bleu"])
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    columns = []
    for name, values in hparams.items():
        distinct = sorted(set(values))
        column = api_pb2.HParamInfo(name=name, differs=len(distinct) > 1)
        if isinstance(distinct[0], bool | str):
            boolean = isinstance(distinct[0], bool)
            column.type = api_pb2.DATA_TYPE_BOOL if boolean else api_pb2.DATA_TYPE_STRING
            column.domain_discrete.extend(distinct)
        else:
            column.type = api_pb2.DATA_TYPE_FLOAT64
            column.domain_interval.min_value = float(distinct[0])
            column.domain_interval.max_value = float(distinct[-1])
        columns.append(column)
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=columns,
        metric_infos=[api_pb2.MetricInfo(name={"tag": tag}) for tag in metrics],
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    events = EventFile(log_dir, first_step=0)
    value = {
        "tag": metadata.EXPERIMENT_TAG,
        "metadata": metadata.create_summary_metadata(data),
        "tensor": metadata.NULL_TENSOR,
    }
    events.summary(0, [value])
    events.close()
