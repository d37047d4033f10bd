"""The web page of a checkpoint that draws in two stages."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from tests.app_server import Visit, serve
from tests.conftest import tiny_portraitist
from voice2face import Voice2FacePipeline
from voice2face.app import create_app, drawing


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))


def test_both_stages_are_counted_and_shown(
    tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Voice2FacePipeline(**tiny_portraitist(), output_size=48, name="fine").to("cpu")
    ran, shown_after = [], []
    for stage in ("bottom", "upper"):
        denoiser = getattr(pipe.method, f"{stage}_denoiser")
        denoiser.register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    previews = drawing.previews

    def note(*arguments: object) -> list[str]:
        shown_after.append(ran[-1])
        return previews(*arguments)

    monkeypatch.setattr(drawing, "previews", note)
    recording = io.BytesIO()
    sf.write(recording, tone, 16_000, format="WAV")
    with serve(create_app(pipe)) as port:
        events = list(Visit(port, recording.getvalue(), seed=7, steps=3).events())
    assert [name for name, _ in events] == ["heard", *["step"] * 6, "drawn"]
    steps = [told for name, told in events if name == "step"]
    assert [(told["step"], told["steps"]) for told in steps] == [(k, 6) for k in range(1, 7)]
    assert shown_after == ["bottom"] * 3 + ["upper"] * 3
    for told in steps:
        assert [opened(picture).size for picture in told["pictures"]] == [(192, 192)] * 4
    drawn = events[-1][1]["portraits"]
    assert [portrait["seed"] for portrait in drawn] == ["7", "8", "9", "10"]
    assert [opened(portrait["png"]).size for portrait in drawn] == [(48, 48)] * 4
