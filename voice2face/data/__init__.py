"""Tables of faces and voices, and what is seen in pictures; for training and evaluation."""
