"""What a server counts, in the text format of Prometheus."""

import collections
import threading

# Upper bounds of the histogram of latencies, in seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

HELP = {
    "requests_total": ("counter", "Requests answered, by path and HTTP status."),
    "request_seconds": ("histogram", "Time from the request to its answer, by path."),
    "sentences_total": ("counter", "Sentences translated."),
    "source_tokens_total": ("counter", "Tokens of translated sentences, without their ends."),
    "target_tokens_total": ("counter", "Tokens of the best translations, without their ends."),
    "batches_total": ("counter", "Calls of the translator; each may answer many requests."),
    "failures_total": ("counter", "Calls of the translator that raised an error."),
    "queue_sentences": ("gauge", "Sentences that wait for the translator."),
}


class Counters:
    """Counts requests and work. Its methods may be called by any thread.

    Example:

    ```python
    counters = Counters()
    counters.add(sentences_total=2)
    counters.request("/translate", 200, 0.04)
    counters.text(queue_sentences=0)  # what `GET /metrics` answers
    ```
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {n: 0 for n in HELP if n.endswith("_total") and n != "requests_total"}
        self._requests: collections.Counter[tuple[str, int]] = collections.Counter()
        self._seconds: dict[str, list[float]] = {}

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        with self._lock:
            return self._requests.total()

    def add(self, **counts: int) -> None:
        """Adds to the counters of these names."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts one request. The path must be one of few, so it may not be a client's choice."""
        with self._lock:
            self._requests[path, status] += 1
            found = self._seconds.setdefault(path, [0] * len(BOUNDS) + [0.0])
            for place, bound in enumerate(BOUNDS):
                found[place] += seconds <= bound
            found[-1] += seconds

    def text(self, **gauges: float) -> str:
        """Returns all counters, and the values given, in the text format of Prometheus."""
        with self._lock:
            samples: list[tuple[str, str, float]] = [
                ("requests_total", f'{{path="{path}",status="{status}"}}', count)
                for (path, status), count in sorted(self._requests.items())
            ]
            for path, (*below, total) in sorted(self._seconds.items()):
                count = sum(n for (each, _), n in self._requests.items() if each == path)
                for bound, number in zip([*BOUNDS, "+Inf"], [*below, count], strict=True):
                    labels = f'{{path="{path}",le="{bound}"}}'
                    samples.append(("request_seconds_bucket", labels, number))
                samples.append(("request_seconds_sum", f'{{path="{path}"}}', total))
                samples.append(("request_seconds_count", f'{{path="{path}"}}', count))
            samples += [
                (name, "", count) for name, count in [*self._counts.items(), *gauges.items()]
            ]
        lines = []
        for name, (kind, meaning) in HELP.items():
            full = f"keras_transformer_{name}"
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} {kind}"]
            lines += [
                f"keras_transformer_{sample}{labels} {number}"
                for sample, labels, number in samples
                if sample == name or (kind == "histogram" and sample.startswith(f"{name}_"))
            ]
        return "\n".join([*lines, ""])
