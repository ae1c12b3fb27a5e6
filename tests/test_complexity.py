"""Tests of Table 1's benchmark: counts equal the theory exactly, and the benchmark prints them."""

import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from table1 import layers, tables

from keras_transformer.layers import MultiHeadAttention

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "complexity.py"
R, K = 10, 3

on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="counted in JAX's graphs: runs under KERAS_BACKEND=jax",
)


def counted(row, n, d, kernel=K):
    from table1.measure import counted

    return counted(layers.make(row, d, R, kernel), layers.input_shapes(row, n, d))


@on_jax
@pytest.mark.parametrize(
    ("row", "operations", "chain"),
    [
        ("attention core", lambda n, d: 2 * n * n * d, lambda n: 2),
        ("attention layer", lambda n, d: 2 * n * n * d + 4 * n * d * d, lambda n: 4),
        ("restricted core", lambda n, d: 2 * n * 2 * R * d, lambda n: 2),
        ("restricted layer", lambda n, d: 2 * n * 2 * R * d + 6 * n * d * d, lambda n: 4),
        ("recurrent", lambda n, d: 2 * n * d * d, lambda n: n),
        ("LSTM", lambda n, d: 8 * n * d * d, lambda n: n),
        ("convolution", lambda n, d: K * n * d * d, lambda n: 1),
        ("separable", lambda n, d: K * n * d + n * d * d, lambda n: 2),
    ],
)
def test_operations_and_chains_are_the_formulas(row, operations, chain):
    for n, d in ((20, 67), (70, 13)):
        found = counted(row, n, d)
        assert found["forward"] == {"operations": operations(n, d), "sequential": chain(n)}
        # Every product has two gradients, and the chain is passed once more backwards.
        expected = {"operations": 3 * operations(n, d), "sequential": 2 * chain(n)}
        assert found["both"] == expected


@on_jax
def test_exponents_are_those_of_table_1_where_one_term_leads():
    def slopes(row, n, d):
        along_n = [(m, counted(row, m, d)["forward"]["operations"]) for m in (n, 2 * n)]
        along_d = [(w, counted(row, n, w)["forward"]["operations"]) for w in (d, 2 * d)]
        return tables.slope(along_n), tables.slope(along_d)

    for row in ("attention core", "restricted core", "recurrent", "convolution"):
        assert slopes(row, 40, 7) == pytest.approx(tables.LAYERS[row][1:], abs=1e-9)
    assert slopes("attention layer", 10_000, 8) == pytest.approx((2, 1), abs=0.01)
    assert slopes("attention layer", 10, 256) == pytest.approx((1, 2), abs=0.05)


@on_jax
def test_what_counts_as_a_chain():
    import jax
    from jax import numpy as jnp
    from table1 import counts

    square, x = jnp.ones((5, 5)), jnp.ones((3, 5))

    def chain(function, *inputs):
        return counts.sequential(jax.make_jaxpr(function)(*inputs).jaxpr)

    assert chain(lambda x: jnp.tanh(x) + 1, x) == 0
    assert chain(lambda x: x @ square + (2 * x) @ square, x) == 1  # independent products
    assert chain(lambda x: jax.jit(lambda y: y @ square)(x @ square), x) == 2
    assert chain(lambda x: jax.lax.cumsum(x) @ square, x) == 1
    step = lambda state, row: (state + row, state)  # noqa: E731
    assert chain(lambda x: jax.lax.scan(step, x[0], x)[0], x) == 3  # a trip without a product
    assert chain(lambda x: jax.lax.map(lambda row: row @ square @ square, x), x) == 2

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ square, lambda: x @ square @ square)

    assert chain(either, x) == 2
    assert counts.operations(jax.make_jaxpr(either)(x).jaxpr) == 2 * 3 * 5 * 5
    with pytest.raises(ValueError, match="how often"):
        chain(lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ square, x), x)


# Fails if: nothing is dilated.
@on_jax
@pytest.mark.parametrize(
    ("row", "path"),
    [
        ("attention layer", lambda n, k: 1),
        ("restricted layer", lambda n, k: math.ceil((n - 1) / (R // 2))),
        ("recurrent", lambda n, k: n),
        ("convolution", lambda n, k: math.ceil((n - 1) / (k // 2))),
        ("separable", lambda n, k: math.ceil((n - 1) / (k // 2))),
        ("convolution, dilated", lambda n, k: math.ceil(math.log(n, k))),
    ],
)
def test_the_way_from_the_first_to_the_last_position(row, path):
    from table1.paths import path_length

    n, kernel = 30, 5
    assert path_length(row, n, 3, R, kernel) == path(n, kernel)


# Fails if: the states are not shifted.
@on_jax
@pytest.mark.parametrize("row", ["recurrent", "LSTM"])
def test_a_recurrent_layer_is_its_cell_applied_n_times(row):
    import jax
    from table1.paths import recurrence

    n, d = 11, 5
    layer = layers.make(row, d, R, K)
    x = keras.random.normal((1, n, d))
    states = [s[None] for s in keras.tree.flatten(layer.cell.get_initial_state(n))]
    found, expected = [x, *states], layer(x)
    apply = jax.jit(recurrence(layer.cell))
    for applied in range(1, n + 1):
        found = apply(*found)
        same = np.isclose(found[-1], expected, rtol=1e-5, atol=1e-6).all(axis=-1)[0]
        assert same.tolist() == [True] * applied + [False] * (n - applied)


# Fails if: windows are not centred, are one short, or are not masked at the edges.
def test_restricted_attention_is_attention_under_the_mask_of_a_neighbourhood():
    n, d = 30, 14
    restricted = layers.make("restricted layer", d, R, K)
    x = keras.random.normal((2, n, d))
    near = np.abs(np.arange(n)[:, None] - np.arange(n)) <= R // 2
    expected = restricted.attention(x, attention_mask=near)
    np.testing.assert_allclose(
        *map(ops.convert_to_numpy, (restricted(x), expected)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("row", ["attention core", "restricted core"])
def test_a_core_is_the_layer_without_its_projections(row):
    n, d = 30, 128
    core = layers.make(row, d, R, K)
    assert not core.weights
    x = keras.random.normal((1, n, d))
    layer = MultiHeadAttention(d, layers.heads(d))
    layer.build(x.shape)
    for kernel in layer.weights:
        kernel.assign(np.eye(d))
    heads = ops.transpose(ops.reshape(x, (1, n, 2, d // 2)), (0, 2, 1, 3))
    near = np.abs(np.arange(n)[:, None] - np.arange(n)) <= R // 2
    expected = layer(x, attention_mask=near if row == "restricted core" else None)
    found = core(heads, heads, heads)  # if restricted: [heads * blocks, 1, R, width]
    found = ops.transpose(ops.reshape(found, (2, n, d // 2)), (1, 0, 2))
    np.testing.assert_allclose(
        *map(ops.convert_to_numpy, (ops.reshape(found, (1, n, d)), expected)), rtol=1e-4, atol=1e-5
    )


# Fails if: crossings are searched in the wrong direction.
@pytest.mark.tensorflow_only
def test_slopes_and_crossings():
    assert tables.slope([(n, 7 * n**2.5) for n in (3, 11, 50)]) == pytest.approx(2.5)
    assert tables.slope([(3, 1.0)]) is None and tables.slope([(3, 1.0), (5, 0.0)]) is None
    pair = {"attention": "attention core", "recurrence": "recurrent", "d": 7}

    def crossing(factor):
        cells = [
            {"layer": layer, "n": n, "d": 7, "way": "forward", "seconds": seconds(n)}
            for layer, seconds in (
                ("attention core", lambda n: factor * n * n),
                ("recurrent", lambda n: 7.0 * n),
            )
            for n in (2, 4, 16)
        ]
        return tables.crossing(cells, pair, "forward")

    assert [crossing(1), crossing(0.1), crossing(9)] == ["7", "> 16", "< 2"]


# Fails if: the peak of an earlier run is not reset.
@pytest.mark.tensorflow_only
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_what_a_run_takes_whatever_it_gives_back():
    from table1.measure import mebibytes

    taken = [mebibytes(lambda size=size: np.ones(size * 2**17)) for size in (16, 64)]
    assert taken == pytest.approx([16, 64], abs=3)


@pytest.mark.tensorflow_only
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_quick_run_ends_with_tables(tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed: pip install -e '.[jax]'")
    pytest.importorskip("matplotlib")
    files = {name: tmp_path / name for name in ("report.json", "tables.md", "picture.png")}
    outputs = [
        f"--{option}={file}"
        for option, file in zip(("output", "markdown", "picture"), files.values(), strict=True)
    ]
    rows = ["attention core", "recurrent"]
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(
        [*command, "--quick", "--layers", *rows, *outputs], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(files["report.json"].read_text())
    assert [(cell["d"], cell["n"]) for cell in report["crossings"]] == [(64, 64)]  # n = d
    assert all(cell["seconds"] > 0 for cell in report["times"])
    assert {cell["layer"] for cell in report["memory"]} == {*rows}
    lines = files["tables.md"].read_text().splitlines()
    [recurrence] = [line for line in lines if line.startswith("| recurrent | n d^2 |")]
    assert recurrence.split(" | ")[2:] == ["2,097,152", "16 32", "32 64", "16 32", "n |"]
    assert files["picture.png"].stat().st_size > 10_000
    # Reading the report prints the same, and measures nothing.
    again = subprocess.run(
        [*command, f"--report={files['report.json']}"], capture_output=True, text=True
    )
    assert again.stdout == done.stdout and "recurrent" in done.stdout
    for arguments, complaint in (
        (["--report", "nothing"], "no file nothing"),
        (["--output", str(tmp_path / "no" / "x.json")], "folder"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and complaint in done.stderr
