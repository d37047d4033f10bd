"""One portrait a recording: ``python examples/folder.py recordings/ portraits/``."""

import sys
from pathlib import Path

from voice2face import Portrait, Voice2FacePipeline

if len(sys.argv) != 3:
    sys.exit(__doc__)
recordings, portraits = map(Path, sys.argv[1:])
portraits.mkdir(exist_ok=True)
endings = {".wav", ".flac", ".ogg", ".mp3", ".aiff"}
files = sorted(path for path in recordings.iterdir() if path.suffix.lower() in endings)
pipe = Voice2FacePipeline.from_pretrained()
results = pipe.map(files, batch_size=8, on_error="return")
for file, result in zip(files, results, strict=True):
    if isinstance(result, Portrait):
        result.save(portraits / f"{file.name}.png")
    else:
        print(f"{file}: {result}", file=sys.stderr)
