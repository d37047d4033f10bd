"""Print how far apart torchaudio's and soxr's resampling lie, for a file and several rates.

Where torchaudio's compiled extension does not load beside the installed torch, its operators get
stand-ins first: resampling needs none of them.
"""

from __future__ import annotations

import sys

import numpy as np
import soundfile as sf
import torch

OPERATORS = {
    "_torchaudio": ["cuda_version() -> int?", "is_align_available() -> bool"],
    "torchaudio": [
        "_lfilter_core_loop(Tensor a, Tensor b, Tensor(a!) c) -> ()",
        "_overdrive_core_loop(Tensor a) -> Tensor",
    ],
}


def stand_in_for_the_extension() -> list[torch.library.Library]:
    libraries = []
    for namespace, operators in OPERATORS.items():
        library = torch.library.Library(namespace, "DEF")
        for operator in operators:
            library.define(operator)
        libraries.append(library)
    libraries[0].impl("cuda_version", lambda: None, "CompositeExplicitAutograd")
    libraries[0].impl("is_align_available", lambda: False, "CompositeExplicitAutograd")
    torch.ops.load_library = lambda _: None
    return libraries


def main() -> None:
    kept = []
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        for name in [name for name in sys.modules if name.startswith("torchaudio")]:
            del sys.modules[name]
        kept = stand_in_for_the_extension()
    from voice2face.audio.resampling import resample_with_soxr, resample_with_torchaudio

    speech, _ = sf.read(sys.argv[1], dtype="float32")
    for rate in map(int, sys.argv[2:]):
        one, other = resample_with_torchaudio(speech, rate), resample_with_soxr(speech, rate)
        length = min(len(one), len(other))
        if abs(len(one) - len(other)) > 1:
            raise ValueError(f"{rate} Hz: {len(one)} and {len(other)} samples")
        difference = np.square(one[:length] - other[:length]).mean()
        print(rate, difference / np.square(one).mean())
    del kept


if __name__ == "__main__":
    main()
