"""Everything that exists because a machine is slow or a backend differs.

Each fast function is beside its plain definition, and tests/test_ops.py compares the two.
"""

from typing import Any

# A backend's tensor, a symbolic one or a NumPy array; Keras has no type that covers them all.
Tensor = Any

__all__ = ["Tensor"]
