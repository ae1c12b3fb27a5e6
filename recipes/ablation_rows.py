"""The rows of Table 3 scaled to a small base; for ablate_paper.py."""

from typing import NamedTuple

from keras_transformer.models import PRESETS, TABLE_3


class Scale(NamedTuple):
    """The small base that the rows are scaled to, in arguments of `Transformer`."""

    num_layers: int = 3
    d_model: int = 128
    num_heads: int = 8
    d_ff: int = 512
    dropout: float = 0.1
    max_length: int = 256  # of learned positions


def scaled(row, scale):
    """Returns the arguments of `Transformer` that keep the row's ratios to the paper's base.

    Args:
        row: A row of `TABLE_3`.
        scale: The small base.

    Raises:
        ValueError: If a size is no whole number.

    Example:

    >>> scaled(TABLE_3["C-layers-2"], Scale(num_layers=3))["num_layers"]  # 2 of 6 are 1 of 3
    """
    base = PRESETS["base"]

    def share(name, of_scale, of_base):
        size, rest = divmod(row.changes[name] * of_scale, of_base)
        if rest or not size:
            raise ValueError(
                f"its {name} is {row.changes[name]} where the base's is {of_base}, and that share "
                f"of {of_scale} is no whole number"
            )
        return size

    options = {
        name: getattr(scale, name) for name in ("num_layers", "d_model", "num_heads", "d_ff")
    }
    options |= {
        name: share(name, options[name], base[name]) for name in options if name in row.changes
    }
    dropout = row.changes.get("dropout", base["dropout"])
    options["dropout"] = round(scale.dropout * dropout / base["dropout"], 6)
    head = scale.d_model // scale.num_heads, base["d_model"] // base["num_heads"]
    widths = {name: share(name, *head) for name in ("key_dim", "value_dim") if name in row.changes}
    if not widths and options["d_model"] % options["num_heads"]:
        raise ValueError(
            f"a d_model of {options['d_model']} does not divide into {options['num_heads']} heads"
        )
    if not options["dropout"] < 1:
        raise ValueError(f"its dropout is {options['dropout']}, expected a share below 1")
    options |= widths
    if "positions" in row.changes:
        options |= {"positions": row.changes["positions"], "max_length": scale.max_length}
    return options


def scaled_rows(names, scale):
    """Returns the arguments of these rows, and the errors of those that do not fit the scale."""
    rows, misfits = {}, {}
    for name in names:
        try:
            rows[name] = scaled(TABLE_3[name], scale)
        except ValueError as error:
            misfits[name] = error
    return rows, misfits


def setting_of(name, options):
    """Returns what TensorBoard's table shows of a row."""
    head = options["d_model"] // options["num_heads"]
    widths = {"key_dim": head, "value_dim": head, "positions": "sinusoidal"}
    shown = {"row": name, "label_smoothing": TABLE_3[name].label_smoothing, **widths, **options}
    shown.pop("max_length", None)
    return shown
