"""One file a paper, told in its own terms."""

from voice2face.methods.fine_portraitist import FinePortraitist
from voice2face.methods.method import Method, Sample
from voice2face.methods.scldm import SCLDM

METHODS: dict[str, type[Method]] = {method.name: method for method in (SCLDM, FinePortraitist)}

__all__ = ["METHODS", "SCLDM", "FinePortraitist", "Method", "Sample"]
