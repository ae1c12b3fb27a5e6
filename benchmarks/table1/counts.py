"""Counts what a layer does in its JAX graph, the jaxpr: exact, and the same on every machine.

As in Table 1, only matrix products and convolutions count, not softmax, activations and sums. A
loop counts once per trip; the jaxpr has the number of trips.
"""

import math

from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")


def operations(jaxpr):
    """Returns the multiplications of all products. A convolution's zeros at the edges count too."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            total += _multiplications(equation)
            continue
        parts = [operations(part) for part in _within(equation)]
        if equation.primitive.name == "cond":
            parts = [max(parts)]
        total += sum(parts) * (equation.params["length"] if _is_scan(equation) else 1)
    return total


def sequential(jaxpr):
    """Returns the length of the longest chain of products in which every product needs the last.

    A trip of a loop is at least one. An array counts as a whole: it is ready with its last number.
    """
    return max(_depths(jaxpr, [0] * len(jaxpr.invars)), default=0)


def _multiplications(equation):
    left, right = (each.aval.shape for each in equation.invars)
    result = math.prod(equation.outvars[0].aval.shape)
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (summed, _), _ = numbers
        return result * math.prod(left[axis] for axis in summed)
    return result * math.prod(right) // right[numbers.rhs_spec[0]]  # all but the output channels


def _depths(jaxpr, depths):
    """Returns the longest chain that ends in each result, given those that end in the inputs."""
    known = dict(zip(jaxpr.invars, depths, strict=True))
    for equation in jaxpr.eqns:
        inputs = [known.get(x, 0) if _is_variable(x) else 0 for x in equation.invars]
        if equation.primitive.name in PRODUCTS:
            found = [1 + max(inputs)]
        elif _is_scan(equation):
            found = _depths_of_scan(equation, inputs)
        elif parts := list(_within(equation)):
            # A conditional's first input is its predicate.
            given = inputs[1:] if equation.primitive.name == "cond" else inputs
            ways = [_depths(part, given) for part in parts]
            found = [max(each, *inputs[:1]) for each in map(max, zip(*ways, strict=True))]
        else:
            found = [max(inputs, default=0)] * len(equation.outvars)
        known.update(zip(equation.outvars, found, strict=True))
    return [known.get(x, 0) if _is_variable(x) else 0 for x in jaxpr.outvars]


def _depths_of_scan(equation, inputs):
    """Follows a loop trip by trip, because a trip waits for the state of the one before."""
    constants, carried = equation.params["num_consts"], equation.params["num_carry"]
    [body] = _within(equation)
    state = inputs[constants : constants + carried]
    results = [0] * (len(equation.outvars) - carried)
    for trip in range(equation.params["length"]):
        found = _depths(body, inputs[:constants] + state + inputs[constants + carried :])
        state = [max(each, trip + 1) for each in found[:carried]]
        results = [max(both) for both in zip(results, found[carried:], strict=True)]
    return state + results


def _is_scan(equation):
    return equation.primitive.name == "scan"


def _is_variable(x):
    return not isinstance(x, core.Literal)


def _within(equation):
    """Yields the graphs inside an operation."""
    if equation.primitive.name == "while":
        raise ValueError("The graph has a loop that does not say how often it runs.")
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part
