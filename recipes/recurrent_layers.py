"""Recurrent encoder and decoder of Keras' layers, with a fixed context or with attention."""

import keras
from keras import ops, tree

from keras_transformer.layers import Dropout

CELLS = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM}
ATTENTIONS = {"additive": keras.layers.AdditiveAttention, "dot": keras.layers.Attention}


def _recurrent(cell, units, **options):
    """Returns Keras' layer, which returns all outputs and the last state."""
    if cell == "lstm":  # a search that XLA compiles cannot call cuDNN
        options["use_cudnn"] = False
    return CELLS[cell](units, return_sequences=True, return_state=True, **options)


class _Stack(keras.layers.Layer):
    """The settings of encoder and decoder."""

    def __init__(self, cell, units, num_layers=1, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.cell, self.units, self.num_layers = cell, units, num_layers
        self.dropout = Dropout(dropout, dtype=self.dtype_policy)
        self.supports_masking = True

    def compute_mask(self, *_, **__):
        return None  # the outputs do not have the mask of the inputs


class RecurrentEncoder(_Stack):
    """A stack of recurrent layers that reads a source. Padding does not change the state.

    ```
    h_t = cell(x_t, h_(t-1))
    ```

    Args:
        cell: `"rnn"` (Keras' SimpleRNN) or `"lstm"`.
        units: Width H of the outputs and of each state.
        num_layers: Layers L.
        dropout: The rate between layers (Zaremba et al., 2014).
        bidirectional: Whether half of the units of each layer read backwards (Bahdanau et al.,
            2015, section 3.2).

    Call arguments:
        inputs: Floats [B, S, D].
        mask: Booleans [B, S], True = real token.

    Returns:
        Outputs [B, S, H], and for each layer the list of its last states [B, H].

    Example:

    ```python
    encoder = RecurrentEncoder("lstm", units=64, num_layers=2)
    outputs, states = encoder(keras.random.normal((2, 5, 32)))
    ```
    """

    def __init__(self, *args, bidirectional=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.bidirectional = bidirectional
        options = {"dtype": self.dtype_policy}
        if not bidirectional:
            self.layers = [
                _recurrent(self.cell, self.units, **options) for _ in range(self.num_layers)
            ]
            return
        if self.units % 2:
            raise ValueError(
                f"Half of the units read backwards: expected an even number, got {self.units}."
            )
        self.layers = [
            keras.layers.Bidirectional(_recurrent(self.cell, self.units // 2, **options), **options)
            for _ in range(self.num_layers)
        ]

    def build(self, inputs_shape):
        for i, layer in enumerate(self.layers):
            layer.build((*inputs_shape[:2], self.units if i else inputs_shape[-1]))
        self.built = True

    def call(self, inputs, mask=None, training=None):
        x, states = inputs, []
        for i, layer in enumerate(self.layers):
            x = self.dropout(x, training=training) if i else x
            x, *state = layer(x, mask=mask, training=training)
            if self.bidirectional:  # [forwards, backwards] of each state
                half = len(state) // 2
                pairs = zip(state[:half], state[half:], strict=True)
                state = [ops.concatenate(pair, axis=-1) for pair in pairs]
            states.append(state)
        return x, states


class _Cell:
    """A cell for Keras' loop, which passes no memory, around a step that knows its memory."""

    def __init__(self, step, states):
        self.step, self.states = step, states
        self.state_size = [state.shape[-1] for state in tree.flatten(states)]
        self.compute_dtype = keras.backend.standardize_dtype(states[-1][0].dtype)

    def call(self, inputs, states):
        states = self.step(inputs, tree.pack_sequence_as(self.states, list(states)))
        return states[-1][0], tree.flatten(states)

    __call__ = call


class RecurrentDecoder(_Stack):
    """A stack of recurrent layers that writes a target, with or without attention to a memory.

    ```
    None        s_t = cell(x_t, s_(t-1))                                   Sutskever et al., 2014
    "additive"  c_t = sum_j softmax_j(v^T tanh(W s_(t-1) + U h_j)) h_j     Bahdanau et al., 2015
                s_t = cell([x_t; c_t], s_(t-1))
    "dot"       s_t = cell([x_t; a_(t-1)], s_(t-1))                        Luong et al., 2015
                c_t = sum_j softmax_j(s_t^T h_j) h_j
    with either a_t = tanh(W_c [s_t; c_t])
    ```

    The output is a linear map of `s_t`, with attention of `a_t`, to the width of the inputs.

    Args:
        cell, units, num_layers, dropout: As in `RecurrentEncoder`. With attention, the loop drops
            the same units at all positions (Gal and Ghahramani, 2016).
        attention: None, `"additive"` or `"dot"`.

    Call arguments:
        inputs: Floats [R, T, D].
        states: Those of `start` or of an earlier call.
        values: With attention the encoder's outputs [B, S, H]. R may be N times B, with the N rows
            (beams) of a source next to each other.
        values_mask: Booleans [B, S], True = real token.
        keys: [B, S, H] from `project`; computed unless given.

    Returns:
        Outputs [R, T, D], and the states after them.

    Example:

    ```python
    outputs, states = encoder(x)
    decoder = RecurrentDecoder("lstm", units=64, num_layers=2, attention="dot")
    y, states = decoder(keras.random.normal((2, 7, 32)), decoder.start(states), outputs)
    ```
    """

    def __init__(self, *args, attention=None, **kwargs):
        super().__init__(*args, **kwargs)
        options = {"dtype": self.dtype_policy}
        self.layers = [_recurrent(self.cell, self.units, **options) for _ in range(self.num_layers)]
        self.attention = self.query = self.key = self.combine = None
        if attention is not None:
            self.attention = ATTENTIONS[attention](**options, name="attention")
            self.combine = keras.layers.Dense(
                self.units, activation="tanh", use_bias=False, **options, name="combine"
            )
        if attention == "additive":
            self.query = keras.layers.Dense(self.units, **options, name="query")
            self.key = keras.layers.Dense(self.units, use_bias=False, **options, name="key")

    def build(self, inputs_shape, *_, **__):
        d_model, units = inputs_shape[-1], self.units
        fed = units if self.attention else 0
        for i, layer in enumerate(self.layers):
            layer.build((None, None, units if i else d_model + fed))
        if self.attention:
            self.attention.build([(None, None, units)] * 3)
            self.combine.build((None, 2 * units))
        if self.query:
            self.query.build((None, units))
            self.key.build((None, None, units))
        self.readout = keras.layers.Dense(d_model, dtype=self.dtype_policy, name="readout")
        self.readout.build((None, None, units))
        self.built = True

    def start(self, states):
        """Returns the states before the first position, from the encoder's last states."""
        if not self.attention:
            return states
        return [*states, [ops.zeros_like(states[-1][0])]]

    def project(self, values):
        """Returns the keys of all queries: U h_j, or h_j itself."""
        return self.key(values) if self.key else values

    def call(self, inputs, states, values=None, values_mask=None, keys=None, training=None):
        if self.attention:
            keys = self.project(values) if keys is None else keys
            x, states = self._loop(inputs, states, (values, keys, values_mask), training)
        else:
            x, before, states = inputs, states, []
            for i, (layer, state) in enumerate(zip(self.layers, before, strict=True)):
                x = self.dropout(x, training=training) if i else x
                x, *state = layer(x, initial_state=state, training=training)
                states.append(state)
        return self.readout(self.dropout(x, training=training)), states

    def _loop(self, inputs, states, memory, training):
        # Drawn outside the loop, because a compiled loop cannot advance the seed.
        ones = ops.ones_like(states[-1][0])
        kept = [self.dropout(ones, training=training) for _ in self.layers[1:]]
        cell = _Cell(lambda x, states: self._step(x, states, memory, kept), states)
        loop = keras.layers.RNN(
            cell, return_sequences=True, return_state=True, dtype=self.dtype_policy
        )
        x, *flat = loop(inputs, initial_state=tree.flatten(states), training=training)
        return x, tree.pack_sequence_as(states, flat)

    def _step(self, x, states, memory, kept):
        """One position: x [R, D] and the states -> the new states, the last of which is a_t."""
        *states, [fed] = states
        if self.query:
            fed = context = self._attend(self.query(states[-1][0]), *memory)
        x, after = ops.concatenate([x, fed], axis=-1), []
        for i, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            x, state = layer.cell(x * kept[i - 1] if i else x, state)
            after.append(list(state))
        if not self.query:
            context = self._attend(x, *memory)
        return [*after, [self.combine(ops.concatenate([x, context], axis=-1))]]

    def _attend(self, query, values, keys, mask):
        """Queries [R, H] -> contexts [R, H]. The rows of a source are positions of one query."""
        query = ops.reshape(query, (ops.shape(values)[0], -1, self.units))
        context = self.attention([query, values, keys], mask=[None, mask])
        return ops.reshape(context, (-1, self.units))
