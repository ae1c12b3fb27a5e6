"""How certain a share of right answers is, and whether two classifiers really differ."""

import math


def binomial_interval(right, count):
    """Returns the 95 % interval of a share of right answers, by Wilson's score.

    Args:
        right: How many of the answers were right.
        count: How many there were.

    Returns:
        The lower and the upper end, between 0 and 1.

    Raises:
        ValueError: Unless 0 <= right <= count and count > 0.

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

    Only the examples count that one classifier has right and the other has wrong. If both were
    equally good, each such example would fall on either side with probability 1/2.

    Args:
        first_right, second_right: One boolean per example, True = answered correctly.

    Returns:
        The number of examples that only the first has right, the number that only the second has
        right, and the two-sided probability of so large a difference by chance.

    Raises:
        ValueError: If the two differ in length.

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
    # The smaller tail of a fair coin, exactly: each binomial coefficient comes from the last one.
    coefficient = tail = 1
    for k in range(1, smaller + 1):
        coefficient = coefficient * (together - k + 1) // k
        tail += coefficient
    # Integers divide exactly where floats would overflow.
    return first, second, min(1.0, 2 * tail / 2**together)
