"""Checkpoints: found, downloaded, verified, written and copied."""
