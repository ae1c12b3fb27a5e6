"""A TensorBoard event file, written with the `tensorboard` package alone."""

import io
import os
import time

import numpy as np


class EventFile:
    """A TensorBoard event file, written with the `tensorboard` package alone.

    Keras' callback needs TensorFlow, and `tensorboard.summary.Writer` loads it where it is
    installed; a run on JAX or PyTorch should do neither.
    """

    def __init__(self, log_dir, first_step):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        os.makedirs(log_dir, exist_ok=True)
        # one file per session: TensorBoard reads them in this order, as one run
        path = os.path.join(log_dir, f"events.out.tfevents.{time.time_ns()}")
        self._writer = RecordWriter(open(path, "xb"))
        self._event = event_pb2.Event
        self._write(file_version="brain.Event:2")
        # TensorBoard drops what a broken-off session wrote after the checkpoint we start from
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def scalars(self, step, values):
        self.summary(step, [{"tag": tag, "simple_value": x} for tag, x in values.items()])

    def text(self, step, tag, markdown):
        """Markdown, as TensorBoard's Text shows it."""
        from tensorboard.plugins.text import metadata

        tensor = {"dtype": "DT_STRING", "string_val": [markdown.encode()]}
        data = metadata.create_summary_metadata(display_name="", description="")
        self.summary(step, [{"tag": tag, "tensor": tensor, "metadata": data}])

    def image(self, step, tag, figure, dpi=80):
        """A matplotlib figure."""
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

    def histogram(self, step, tag, values, bins=30):
        """How often values come, between the least and the greatest of them."""
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

    def layout(self, categories):
        """The charts of the Custom Scalars page: `{category: {chart: [regular expressions]}}`."""
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata

        layout = layout_pb2.Layout(
            category=[
                layout_pb2.Category(
                    title=category,
                    chart=[
                        layout_pb2.Chart(title=chart, multiline={"tag": tags})
                        for chart, tags in charts.items()
                    ],
                )
                for category, charts in categories.items()
            ]
        )
        tensor = {"dtype": "DT_STRING", "string_val": [layout.SerializeToString()]}
        value = {
            "tag": metadata.CONFIG_SUMMARY_TAG,
            "tensor": tensor,
            "metadata": metadata.create_summary_metadata(),
        }
        self.summary(0, [value])

    def graph(self, calls):
        """Layers and what flows between them, from `show.shapes.recorded_calls`.

        A node is a layer whose inner layers have none themselves: one of attention, say.
        """
        from tensorboard.compat.proto import graph_pb2

        inner = {call.path for call in calls if call.inner}
        stacks = {path.rpartition("/")[0] for path in inner}
        nodes = {}  # of every call within a node, the node
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

    def summary(self, step, values):
        """Writes `Summary.Value`s, as messages or as dictionaries of their fields."""
        self._write(step=step, summary={"value": values})

    def close(self):
        self._writer.close()

    def _write(self, **fields):
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()
