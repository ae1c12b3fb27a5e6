"""How sure a share of right answers is, and whether two classifiers really differ."""

import math


def binomial_interval(right, count):
    """The 95 % interval of a share of right answers, by Wilson's score.

    Args:
        right: how many of the answers were right.
        count: how many there were.

    Returns:
        The lower and the upper end, between 0 and 1.

    Raises:
        ValueError: unless 0 <= right <= count and count > 0.

    Example:

    >>> binomial_interval(43_000, 50_000)  # (0.8569, 0.8630)
    """
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"{right} right answers of {count}: expected 0 to {count}, of at least 1.")
    z2 = 1.959963984540054**2
    middle = (right + z2 / 2) / (count + z2)
    half = math.sqrt(z2 * (right * (count - right) / count + z2 / 4)) / (count + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(first_right, second_right):
    """McNemar's exact test: do two classifiers of the same examples differ in accuracy?

    Only examples that one of them has right and the other wrong can tell; were the two equally
    good, each such example would fall on either side with probability 1/2.

    Args:
        first_right, second_right: booleans, one an example, True = answered rightly.

    Returns:
        The examples that the first alone has right, those that the second alone has, and the
        two-sided probability of a difference as large as theirs by chance.

    Raises:
        ValueError: if the two are not of one length.

    Example:

    >>> mcnemar([True] * 9 + [False], [True] * 4 + [False] * 5 + [True])  # (5, 1, 0.21875)
    """
    if len(first_right) != len(second_right):
        raise ValueError(
            f"Both classifiers answer the same examples: got {len(first_right)} answers of one and "
            f"{len(second_right)} of the other."
        )
    pairs = [(bool(a), bool(b)) for a, b in zip(first_right, second_right, strict=True)]
    first, second = pairs.count((True, False)), pairs.count((False, True))
    together, smaller = first + second, min(first, second)
    # The smaller tail of a fair coin, exactly: its binomial coefficients one from the other.
    coefficient = tail = 1
    for k in range(1, smaller + 1):
        coefficient = coefficient * (together - k + 1) // k
        tail += coefficient
    # Integers divide exactly where floats would overflow.
    return first, second, min(1.0, 2 * tail / 2**together)
