"""A TensorBoard event file, written with nothing but the `tensorboard` package."""

import io
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


class EventFile:
    """Writes a TensorBoard event file without TensorFlow.

    Keras' callback needs TensorFlow, and `tensorboard.summary.Writer` loads it if it is installed.
    A run on JAX or PyTorch should do neither.

    Args:
        log_dir: The folder, which is made if there is none. With None nothing is written.
        first_step: TensorBoard drops what earlier files of the folder have from this step on.
    """

    def __init__(self, log_dir: str | os.PathLike | None, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        if log_dir is None:
            file = open(os.devnull, "wb")
        else:
            os.makedirs(log_dir, exist_ok=True)
            # One file per session. TensorBoard reads them in this order, as one run.
            file = open(os.path.join(log_dir, f"events.out.tfevents.{time.time_ns()}"), "xb")
        self._writer = RecordWriter(file)
        self._event = event_pb2.Event
        self._write(file_version="brain.Event:2")
        # So TensorBoard drops what a session wrote that broke off after our checkpoint.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.summary(step, [{"tag": tag, "simple_value": x} for tag, x in values.items()])

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Writes Markdown for the page Text."""
        from tensorboard.plugins.text import metadata

        data = metadata.create_summary_metadata(display_name="", description="")
        self._string(step, tag, markdown.encode(), data)

    def image(self, step: int, tag: str, figure: Any, dpi: float = 80) -> None:
        """Writes a matplotlib figure for the page Images."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        width, height = (round(inches * dpi) for inches in figure.get_size_inches())
        image = {
            "width": width,
            "height": height,
            "colorspace": 4,
            "encoded_image_string": buffer.getvalue(),
        }
        self.summary(step, [{"tag": tag, "image": image}])

    def histogram(self, step: int, tag: str, values: np.ndarray, bins: int = 30) -> None:
        """Writes how often values occur, from the least to the greatest."""
        values = np.asarray(values, "float64").reshape(-1)
        values = values[np.isfinite(values)]
        if not len(values):
            return
        counts, edges = np.histogram(values, bins=bins)
        histogram = {
            "min": values.min(),
            "max": values.max(),
            "num": len(values),
            "sum": values.sum(),
            "sum_squares": np.square(values).sum(),
            "bucket_limit": edges[1:],
            "bucket": counts,
        }
        self.summary(step, [{"tag": tag, "histo": histogram}])

    def layout(self, categories: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Writes the page Custom Scalars: `{category: {chart: [regular expressions of tags]}}`."""
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata

        layout = layout_pb2.Layout()
        for title, charts in categories.items():
            page = [{"title": name, "multiline": {"tag": tags}} for name, tags in charts.items()]
            layout.category.add(title=title, chart=page)
        data = metadata.create_summary_metadata()
        self._string(0, metadata.CONFIG_SUMMARY_TAG, layout.SerializeToString(), data)

    def graph(self, calls: Sequence[Any]) -> None:
        """Writes the layers and the data flow between them, from `visualization.shapes.run_once`.

        A node is a layer whose inner layers have no layers inside, such as attention.
        """
        from tensorboard.compat.proto import graph_pb2

        inner = {call.path for call in calls if call.inner}
        stacks = {path.rpartition("/")[0] for path in inner}
        nodes: dict[str, str] = {}  # {path of a call: path of its node}
        for call in calls:
            around = nodes.get(call.path.rpartition("/")[0])
            if around or call.path not in stacks:
                nodes[call.path] = around or call.path
        graph = graph_pb2.GraphDef(versions={"producer": 22})
        for call in calls:
            if nodes.get(call.path) == call.path:
                inputs = dict.fromkeys(nodes[path] for path in call.inputs if path in nodes)
                graph.node.add(name=call.path, op=call.layer, input=inputs)
        self._write(step=0, graph_def=graph.SerializeToString())

    def summary(self, step: int, values: Iterable[Any]) -> None:
        """Writes `Summary.Value`s, as messages or as dictionaries of their fields."""
        self._write(step=step, summary={"value": values})

    def _string(self, step, tag, data, metadata):
        tensor = {"dtype": "DT_STRING", "string_val": [data]}
        self.summary(step, [{"tag": tag, "tensor": tensor, "metadata": metadata}])

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields):
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()
