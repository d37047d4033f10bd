"""One portrait a recording: ``python examples/folder.py recordings/ portraits/``."""

import sys
from pathlib import Path

from voice2face import Voice2FacePipeline

recordings, portraits = map(Path, sys.argv[1:3])
portraits.mkdir(exist_ok=True)
files = sorted(path for path in recordings.iterdir() if path.suffix in {".wav", ".flac", ".mp3"})
pipe = Voice2FacePipeline.from_pretrained()
for file, portrait in zip(files, pipe.map(files, batch_size=8, seed=0), strict=True):
    portrait.save(portraits / f"{file.stem}.png")
