"""What a text is, wherever its files are."""

import hashlib
import json


def text_sha256(*texts):
    """The SHA-256 of texts, to record in a run's settings in place of their paths.

    A run is then resumed where its text was moved, and refused where the text is another.

    Args:
        *texts: Lists of pairs of strings, or strings.

    Returns:
        A string of 64 hexadecimal digits.

    Example:

    ```python
    settings = {"seed": 1, "text_sha256": kt.data.text_sha256(train, valid)}
    ```
    """
    text = json.dumps(texts, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
