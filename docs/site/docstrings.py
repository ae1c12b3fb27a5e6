"""Keras writes "Call arguments:", which Griffe does not know: here it becomes one more list."""

import griffe


class KerasSections(griffe.Extension):
    """Renders the sections of docstrings in Keras' order."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace(
                "\nCall arguments:\n", "\nArgs: Call arguments\n"
            )
