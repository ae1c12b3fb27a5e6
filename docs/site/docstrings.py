"""Adds to the classes of the reference how a layer is called, and what `**options` stands for."""

import griffe

HEADING = "\nCall arguments:\n"
VARIADIC = (griffe.ParameterKind.var_positional, griffe.ParameterKind.var_keyword)


class KerasSections(griffe.Extension):
    """Renders classes with their whole signatures, and docstrings in Keras' order."""

    def on_class(self, *, cls, **kwargs):
        if "NamedTuple" in map(str, cls.bases):
            fields = (name for name, field in cls.attributes.items() if field.annotation)
            parameters = griffe.Parameters(*map(griffe.Parameter, fields))
            cls.set_member("__init__", griffe.Function("__init__", parameters=parameters))
        elif "__init__" in cls.members:
            cls["__init__"].parameters = griffe.Parameters(*passed_on(cls))
        if cls.docstring and HEADING in cls.docstring.value:
            call = cls.all_members.get("call")  # a functional model has none
            code = f"\n```python\n{signature(cls, call)}\n```\n" if call else ""
            cls.docstring.value = cls.docstring.value.replace(
                HEADING, f"{code}\nArgs: Call arguments\n"
            )


def passed_on(cls):
    """Returns the parameters of a class, including those that `*args` and `**options` stand for.

    They belong to the class of a stack's layers or to a base class. `**kwargs` is for Keras.
    """
    own = list(cls["__init__"].parameters)
    named = [each for each in own if each.kind not in VARIADIC]
    if {each.name for each in own if each.kind in VARIADIC} <= {"kwargs"}:
        return own
    layers = cls.all_members.get("layer_class")
    receivers = [cls.modules_collection[layers.value.canonical_path]] if layers else cls.mro()
    inner = [each["__init__"].parameters for each in receivers if "__init__" in each.members]
    known = {each.name for each in named}
    return named + [each for each in inner[0] if each.name not in known] if inner else own


def signature(cls, call):
    """Writes `call(self, x, mask=None)` as `layer(x, mask=None)`, split over lines if long."""
    arguments = [
        parameter.name if parameter.default is None else f"{parameter.name}={parameter.default}"
        for parameter in call.parameters
        if parameter.name != "self"
    ]
    name = "loss" if "Loss" in " ".join(map(str, cls.bases)) else "layer"
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), ")"])
