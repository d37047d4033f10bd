"""One file a paper, each told in its own terms."""
