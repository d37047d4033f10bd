"""A recording as the package holds it: ``(samples,)`` float32, mono at 16 kHz."""

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16_000  # samples a second
