"""Held-out figures of a checkpoint: ``python -m voice2face.evaluation``."""
