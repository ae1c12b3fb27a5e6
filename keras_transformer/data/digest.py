"""The identity of a text, independent of its files."""

import hashlib
import json
from typing import Any


def text_sha256(*texts: Any) -> str:
    """Returns the SHA-256 of texts, to record in a run's settings instead of their paths.

    A run can then be resumed after its text has moved, but not with another text.

    Args:
        *texts: Lists of pairs of strings, or strings.

    Example:

    ```python
    settings = {"seed": 1, "text_sha256": kt.data.text_sha256(train, valid)}
    ```
    """
    text = json.dumps(texts, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
