"""Tests that freed memory is kept, by page faults. The setting is permanent for a process."""

import os
import platform
import subprocess
import sys

import pytest

from keras_transformer.ops import memory

pytestmark = pytest.mark.tensorflow_only

SCRIPT = """
import resource
import numpy as np

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**23)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned_each_time = page_faults()
from keras_transformer.ops.memory import keep_freed_memory
assert keep_freed_memory() is True
page_faults()
kept = page_faults()
assert kept * 10 <= returned_each_time, (kept, returned_each_time)

import keras
model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
model.compile("sgd", "mse")
before = model.get_weights()[0]
model.fit(np.ones((5, 7)), np.ones((5, 3)), verbose=0)
assert np.isfinite(model.get_weights()[0]).all() and (model.get_weights()[0] != before).any()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_freed_memory_is_used_again():
    # NumPy asks for huge pages, which would give too few faults to see a difference.
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # would raise if it were called
    assert memory.keep_freed_memory() is False


PEAK = """
import re
import keras
import numpy as np
from keras_transformer import losses, models, optimizers
from keras_transformer.ops.memory import training_step_bytes

V, SHAPE = 8000, (67, 53, 59)
model = models.Transformer.from_preset("tiny", V)
model.compile(optimizers.PaperAdam(128), losses.SmoothedCrossentropy(0.1))

def memory(name):  # getrusage may count that of the process which started this one
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(name + ":\\s*([0-9]+) kB", file.read())[1])

before = memory("VmRSS")
rows, source, target = SHAPE
inputs = {"source_ids": np.ones((rows, source)), "target_ids": np.ones((rows, target))}
for _ in range(2):
    model.train_on_batch(inputs, np.ones((rows, target)), np.full((rows, target), 1e-3))
used = memory("VmHWM") - before
print(training_step_bytes(model, [(3, 2, 2), SHAPE]) / used)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_estimate_is_near_the_measured_peak():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.6 < float(done.stdout.split()[-1]) < 1.4
