"""TensorBoard's HParams table: the settings of runs beside their results, on every backend."""

import numbers
import time

from keras_transformer.callbacks.tensorboard.event_file import EventFile


def write_hparams_columns(log_dir, hparams, metrics):
    """Declares the columns of TensorBoard's HParams table for all runs under `log_dir`.

    Without it TensorBoard makes a column of every setting and of every curve that it finds.

    Args:
        log_dir: The folder that `tensorboard --logdir` is given, or one below it; written to once.
        hparams: `{name: values}`, the values (numbers, strings or booleans, of one kind) that the
            setting takes in the runs.
        metrics: Tags of the scalars that are results.

    Example:

    >>> write_hparams_columns("runs", {"d_ff": [256, 512], "norm": ["pre"]}, ["perplexity", "bleu"])
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    columns = []
    for name, values in hparams.items():
        distinct = sorted({_plain(name, value) for value in values})
        column = api_pb2.HParamInfo(name=name, differs=len(distinct) > 1)
        if isinstance(distinct[0], bool):
            column.type = api_pb2.DATA_TYPE_BOOL
            column.domain_discrete.extend(distinct)
        elif isinstance(distinct[0], str):
            column.type = api_pb2.DATA_TYPE_STRING
            column.domain_discrete.extend(distinct)
        else:
            column.type = api_pb2.DATA_TYPE_FLOAT64
            column.domain_interval.min_value = distinct[0]
            column.domain_interval.max_value = distinct[-1]
        columns.append(column)
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=columns,
        metric_infos=[api_pb2.MetricInfo(name={"tag": tag}) for tag in metrics],
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    events = EventFile(log_dir, first_step=0)
    events.summary(0, [_value(metadata.EXPERIMENT_TAG, data)])
    events.close()


def write_hparams(log_dir, hparams, metrics, update, group=None):
    """Writes a finished run into TensorBoard's HParams table: its settings and its results.

    Runs of one group, such as the seeds of one setting, share a row of the table, which shows the
    means of their metrics.

    Args:
        log_dir: The run's own folder, the same as its `TensorBoard` callback's where it has one.
        hparams: `{name: number, string or boolean}`, the same in all runs of a group.
        metrics: `{tag: number}`, written as scalars at `update`.
        update: The update that the run ended at.
        group: The group's name; the folder's where not given.

    Raises:
        TypeError: for a setting that TensorBoard cannot show.

    Example:

    >>> for seed, bleu in ((1, 33.1), (2, 33.5)):
    ...     write_hparams(f"runs/wide-{seed}", {"d_ff": 512}, {"bleu": bleu}, 9000, group="wide")
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    now = time.time()
    start = plugin_data_pb2.SessionStartInfo(group_name=group or "", start_time_secs=now)
    for name, value in hparams.items():
        value = _plain(name, value)
        kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[name], kind, value)
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=now)
    events = EventFile(log_dir, first_step=update + 1)  # the run's curves stay whole
    for tag, data in (
        (metadata.SESSION_START_INFO_TAG, {"session_start_info": start}),
        (metadata.SESSION_END_INFO_TAG, {"session_end_info": end}),
    ):
        events.summary(0, [_value(tag, plugin_data_pb2.HParamsPluginData(**data))])
    events.scalars(update, metrics)
    events.close()


def _plain(name, value):
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(
        f"TensorBoard shows numbers, strings and booleans, but {name} is {value!r}: leave it out, "
        "or give it as a string."
    )


def _value(tag, data):
    from tensorboard.plugins.hparams import metadata

    return {
        "tag": tag,
        "metadata": metadata.create_summary_metadata(data),
        "tensor": metadata.NULL_TENSOR,
    }
