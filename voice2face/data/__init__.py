"""Tables of faces and voices, and what is seen in aligned faces; for training and evaluation."""
