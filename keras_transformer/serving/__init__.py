"""A translator as an HTTP server: the verb `serve`, and the same as an ASGI application.

`batching` joins requests that wait into one call of the translator. `requests` reads and checks
what clients send, and `admission` refuses what would be too much. `service` answers, `endpoints`
speaks HTTP. Only `endpoints` needs Starlette, which the extra `serve` installs.
"""

from keras_transformer.serving.limits import Limits
from keras_transformer.serving.server import app, serve

__all__ = ["Limits", "app", "serve"]
