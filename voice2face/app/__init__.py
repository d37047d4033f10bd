"""The web page: ``create_app`` makes an ASGI application of a pipeline (extra ``app``)."""

from voice2face.app.limits import Limits
from voice2face.app.server import create_app

__all__ = ["Limits", "create_app"]
