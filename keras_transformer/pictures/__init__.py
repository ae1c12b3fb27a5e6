"""Pictures of what a model does. matplotlib is imported when one is drawn.

```python
from keras_transformer import pictures

weights = model.attention_weights(source_ids, target_ids)
figure = pictures.attention(weights["cross"][-1, 0], target_tokens, source_tokens)
figure.savefig("attention.png")  # a matplotlib figure
```

All are drawn in fonts that have Korean, the mark of SentencePiece (▁) and the minus sign, whatever
fonts the machine has.
"""

from keras_transformer.pictures.attention import attention, token_probabilities
from keras_transformer.pictures.fonts import drawn_in_our_fonts, korean_font
from keras_transformer.pictures.masks import masks
from keras_transformer.pictures.patches import (
    layers_of_attention,
    layers_of_convolution,
    patch_attention,
    receptive_field,
)
from keras_transformer.pictures.positions import positional_encoding

__all__ = [
    "attention",
    "drawn_in_our_fonts",
    "korean_font",
    "layers_of_attention",
    "layers_of_convolution",
    "masks",
    "patch_attention",
    "positional_encoding",
    "receptive_field",
    "token_probabilities",
]
