"""The private methods of Keras that this package overrides, and the checks that they still work.

A release of Keras may rename a private method or stop calling it. Keras would then ignore our
override without a message, and training would be subtly wrong. So importing fails if a method is
missing, and the first update fails if Keras did not call it.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

# {our class: {when Keras calls the methods: their names}}
HOOKS: dict[str, dict[str, tuple[str, ...]]] = {
    "PaperAdam": {
        "update": (
            "_get_current_learning_rate",
            "_backend_apply_gradients",
            "_clip_gradients",
            "_apply_weight_decay",
            "_backend_update_step",
        ),
        "update on tensorflow": ("_all_reduce_sum_gradients", "_distributed_tf_update_step"),
        "update with use_ema": ("_update_model_variables_moving_average",),
        "end with use_ema": ("_overwrite_model_variables_with_average_value",),
    },
    "LossScale": {
        "update on jax": ("_stateless_handle_non_finite_grads",),
        "update": ("_stateful_handle_non_finite_grads",),  # on JAX from the one above
    },
    "LossPerLabel": {"update": ("_compute_loss",)},
}


class _Calls:
    """The hooks that were called on an object. No container, which Keras would try to save."""

    def __init__(self):
        self.names, self.checked = set(), set()


def guarded(keras_class: type) -> Callable[[type], type]:
    """Decorates one of the classes of `HOOKS`: its overrides are checked and their calls recorded.

    Args:
        keras_class: The class of Keras whose methods are overridden.

    Raises:
        ImportError: If Keras has no method of that name.
    """

    def decorate(cls):
        for when, names in HOOKS[cls.__name__].items():
            for name in names:
                if _here(when) and not hasattr(keras_class, name):
                    raise ImportError(no_longer(cls.__name__, "has", name))
                setattr(cls, name, _recorded(getattr(cls, name)))
        return cls

    return decorate


def check_calls(instance: Any, cls: type, *moments: str) -> None:
    """Checks once that Keras has called the hooks of a moment, such as "update".

    Raises:
        RuntimeError: If Keras has not called one of them.
    """
    calls = _calls(instance)
    for when, names in HOOKS[cls.__name__].items():
        if _here(when) and when.partition(" on ")[0] in moments and when not in calls.checked:
            for name in names:
                if name not in calls.names:
                    raise RuntimeError(no_longer(cls.__name__, "calls", name))
            calls.checked.add(when)


def is_checked(instance: Any, moment: str) -> bool:
    """Whether `check_calls` has found nothing wrong at this moment."""
    return moment in _calls(instance).checked


def no_longer(owner: str, verb: str, name: str) -> str:
    """The message of an error: what Keras no longer does, and what to do about it."""
    return (
        f"Keras {keras.__version__} no longer {verb} `{name}`, on which {owner} relies. Use "
        f"keras>=3.15,<{keras.__version__}, or a newer version of keras_transformer."
    )


def _recorded(method):
    @functools.wraps(method)
    def recorded(self, *args, **kwargs):
        _calls(self).names.add(method.__name__)
        return method(self, *args, **kwargs)

    return recorded


def _calls(instance):
    return vars(instance).setdefault("_keras_hook_calls", _Calls())


def _here(when):
    return when.partition(" on ")[2] in ("", keras.backend.backend())
