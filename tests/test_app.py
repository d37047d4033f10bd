from __future__ import annotations

import asyncio
import base64
import gc
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.app_server import BYTES, Visit, refusal, serve
from tests.conftest import tiny_components
from voice2face import Voice2FacePipeline
from voice2face.app import Limits, create_app
from voice2face.app.jobs import JobQueue
from voice2face.app.server import PAGE
from voice2face.cli import main
from voice2face.commands.app import allowed_hosts
from voice2face.errors import AudioDecodeError, NoSpeechError
from voice2face.models import FaceCheck
from voice2face.picture_files import SYNTHETIC_SOURCE
from voice2face.watermark import detect


def content(address: str) -> bytes:
    return base64.b64decode(address.split(",")[1])


def pixels(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(content(address))) as image:
        return np.asarray(image.convert("RGB").resize((64, 64))).astype(float)


def encoded(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


@pytest.fixture
def talk(tone: np.ndarray) -> bytes:
    return encoded(tone)


def test_portraits_emerge_and_are_those_of_the_library(
    pipeline: Voice2FacePipeline, female_speech: Path
) -> None:
    with serve(create_app(pipeline)) as port:
        visit = Visit(port, female_speech.read_bytes(), seed=7, steps=6, guidance=2.5, variety=0.3)
        events = list(visit.events())
    assert [name for name, _ in events] == ["heard", *["step"] * 6, "drawn"]

    evidence = pipeline.listen(female_speech).evidence
    heard = events[0][1]
    assert (heard["sex"], heard["age"]) == (evidence.sex, evidence.age) == ("female", "30-39")
    assert heard["male_probability"] == pytest.approx(evidence.male_probability, abs=1e-5)
    assert heard["speech_seconds"] == evidence.speech_seconds
    assert heard.keys() == evidence.as_dict().keys()
    assert heard["warnings"] == []

    asked = {"num_inference_steps": 6, "guidance_scale": 2.5, "variety": 0.3}
    expected = pipeline(female_speech, num_images=4, seed=7, **asked)
    drawn = events[-1][1]["portraits"]
    assert [portrait["seed"] for portrait in drawn] == ["7", "8", "9", "10"]
    for portrait, made in zip(drawn, expected, strict=True):
        assert content(portrait["png"]) == made.png()
        with Image.open(io.BytesIO(made.png())) as image:
            assert detect(image).answer == "yes"

    steps = [step for _, step in events[1:-1]]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {step["steps"] for step in steps} == {6}
    for k, portrait in enumerate(drawn):
        final = pixels(portrait["png"])
        away = [np.abs(pixels(step["pictures"][k]) - final).mean() for step in steps]
        assert away[-1] < away[2] < away[0], "the previews come nearer to the portrait"


def test_settings_that_nobody_moved_are_those_of_the_library(
    pipeline: Voice2FacePipeline, female_speech: Path
) -> None:
    with serve(create_app(pipeline)) as port:
        usual = json.load(get(port, "/about"))["usual"]
        events = list(Visit(port, female_speech.read_bytes(), seed=7, **usual).events())
    expected = pipeline(female_speech, num_images=4, seed=7)
    assert expected[0].settings.sampler == "distilled"
    drawn = [content(portrait["png"]) for portrait in events[-1][1]["portraits"]]
    assert drawn == [portrait.png() for portrait in expected]


def test_unfinished_pictures_are_marked_as_synthetic_too(
    tiny_pipeline: Voice2FacePipeline, talk: bytes
) -> None:
    with serve(create_app(tiny_pipeline)) as port:
        events = list(Visit(port, talk, steps=20).events())
    shown = [step["pictures"] for name, step in events if "pictures" in step]
    assert len(shown) == 7, "every third of 20 steps"
    for picture in chain.from_iterable(shown):
        data = content(picture)
        assert len(data) < 20_000
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (192, 192)
            assert SYNTHETIC_SOURCE.encode() in image.info["xmp"]


def test_without_a_seed_one_is_drawn_and_told(
    tiny_pipeline: Voice2FacePipeline, talk: bytes
) -> None:
    with serve(create_app(tiny_pipeline)) as port:
        seeds = [list(Visit(port, talk, steps=1).events())[-1] for _ in range(2)]
        first = [int(drawn["portraits"][0]["seed"]) for _, drawn in seeds]
        large = list(Visit(port, talk, steps=1, seed=2**63 - 9).events())[-1][1]
    assert first[0] != first[1]
    assert large["portraits"][0]["seed"] == str(2**63 - 9), "not rounded as a number would be"


def test_no_file_is_written(tiny_pipeline: Voice2FacePipeline, talk: bytes, tmp_path: Path) -> None:
    written, watching = [], True

    def note(event: str, arguments: tuple) -> None:
        if watching and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(arguments[0])

    with serve(create_app(tiny_pipeline)) as port:
        list(Visit(port, talk, steps=2).events())  # Python writes what it compiles
        sys.addaudithook(note)  # sees temporary files too, and cannot be removed
        assert list(Visit(port, talk, steps=2).events())[-1][0] == "drawn"
        assert list(Visit(port, b"no audio", steps=2).events())[-1][0] == "error"
        assert written == []
        (tmp_path / "control").write_bytes(b"")
        watching = False
    assert written == [str(tmp_path / "control")], "writing is noticed"


@pytest.mark.parametrize(
    ("recording", "kind", "message"),
    [
        (b"not audio at all", AudioDecodeError, "voice2face reads WAV, FLAC, Ogg, MP3"),
        (encoded(np.zeros(32_000)), NoSpeechError, "the recording is silent"),
        (encoded(np.sin(np.arange(9e4) ** 1.5), kind="FLAC")[:50_000], AudioDecodeError, "cut off"),
    ],
)
def test_errors_are_the_librarys_own_words(
    tiny_pipeline: Voice2FacePipeline, recording: bytes, kind: type[Exception], message: str
) -> None:
    with serve(create_app(tiny_pipeline)) as port:
        ((name, said),) = Visit(port, recording).events()
    assert name == "error"
    assert message in said["message"]
    assert " object at 0x" not in said["message"]
    with pytest.raises(kind, match=re.escape(message)):
        tiny_pipeline.listen(recording)


def test_long_recordings_are_refused_before_they_are_decoded(
    tiny_pipeline: Voice2FacePipeline, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = encoded(np.zeros(3600 * 8_000, np.int16), 8_000, "FLAC")
    assert len(hour) < 1 << 20, "an hour fits in an upload"
    read = []
    monkeypatch.setattr("soundfile.SoundFile.read", lambda *_, **__: read.append(1))
    with serve(create_app(tiny_pipeline)) as port:
        ((name, said),) = Visit(port, hour).events()
        assert (name, read) == ("error", [])
        assert "3600 s" in said["message"]
        assert "up to 600 s" in said["message"]
    monkeypatch.undo()
    with serve(create_app(tiny_pipeline, Limits(recording_seconds=3.0))) as port:
        assert list(Visit(port, talk, steps=1).events())[-1][0] == "drawn", "3 s are no more"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 101}, "num_inference_steps is 1 to 100, not 101"),
        ({"steps": 0}, "num_inference_steps is 1 to 100, not 0"),
        ({"steps": "many"}, "seed and steps are whole numbers"),
        ({"guidance": "nan"}, "guidance_scale is 0 to 20, not nan"),
        ({"guidance": 21}, "guidance_scale is 0 to 20, not 21.0"),
        ({"variety": 2}, "variety is 0 to 1, not 2.0"),
        ({"variety": "much"}, "guidance and variety are numbers"),
        ({"seed": -1}, "seed is a whole number from 0 to 2**63 - 4"),
        ({"seed": 2**63}, "seed is a whole number from 0 to 2**63 - 4"),
    ],
)
def test_settings_out_of_range_are_refused(
    tiny_pipeline: Voice2FacePipeline, talk: bytes, settings: dict, message: str
) -> None:
    with serve(create_app(tiny_pipeline)) as port:
        answer = Visit(port, talk, **settings).answer
        assert answer.status == 400
        assert message in refusal(answer)


@pytest.mark.parametrize("most", [1, 10])
def test_no_more_steps_than_the_limit_are_taken_unasked(
    tiny_pipeline: Voice2FacePipeline, talk: bytes, most: int
) -> None:
    with serve(create_app(tiny_pipeline, Limits(steps=most))) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/about") as answer:
            assert json.loads(answer.read())["usual"]["steps"] == most
        for settings in ({}, {"guidance": 3}):
            events = list(Visit(port, talk, **settings).events())
            assert sum(name == "step" for name, _ in events) == most


def test_an_announced_large_recording_is_refused_unread(tiny_pipeline: Voice2FacePipeline) -> None:
    with serve(create_app(tiny_pipeline, Limits(recording_bytes=1_000_000))) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest("POST", "/portraits")
        connection.putheader("Content-Type", BYTES["Content-Type"])
        connection.putheader("Content-Length", "1000001")
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert "over 1 MB" in refusal(answer)


def begin_upload(port: int, *parts: bytes) -> http.client.HTTPConnection:
    """Send the beginning of a recording whose length is not announced."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", "/portraits?steps=1")
    connection.putheader("Content-Type", BYTES["Content-Type"])
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for part in parts:
        connection.send(b"%x\r\n%b\r\n" % (len(part), part))
    return connection


def test_an_endless_recording_is_refused_while_it_arrives(
    tiny_pipeline: Voice2FacePipeline,
) -> None:
    with serve(create_app(tiny_pipeline, Limits(recording_bytes=100_000))) as port:
        answer = begin_upload(port, *[bytes(40_000)] * 3).getresponse()
        assert answer.status == 413
        assert "cut out a part" in refusal(answer)


def test_a_recording_that_does_not_arrive_is_not_waited_for(
    tiny_pipeline: Voice2FacePipeline, talk: bytes
) -> None:
    with serve(create_app(tiny_pipeline, Limits(upload_seconds=0.5, jobs=1))) as port:
        answer = begin_upload(port, talk[:1000]).getresponse()
        assert answer.status == 408
        assert "did not arrive within 0.5 s" in refusal(answer)
        assert list(Visit(port, talk, steps=1).events())[-1][0] == "drawn", "the place is free"


def test_a_full_queue_says_so_and_empties(
    tiny_pipeline: Voice2FacePipeline, talk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(create_app(tiny_pipeline, Limits(jobs=2))) as port:
        others = [begin_upload(port, talk) for _ in range(2)]
        answer = eventually(port, talk, 503)
        assert "2 others are being served already; try again" in refusal(answer)
        assert int(answer.headers["Retry-After"]) > 0
        others[0].send(b"0\r\n\r\n")
        assert b"event: drawn" in others[0].getresponse().read()
        others[1].close()
        assert b"event: drawn" in eventually(port, talk, 200).read()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def eventually(port: int, recording: bytes, status: int) -> http.client.HTTPResponse:
    """Ask until the server has noticed what others did."""
    for _ in range(100):
        answer = Visit(port, recording, steps=1).answer
        if answer.status == status:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"no answer was {status}")


def test_visitors_wait_and_one_who_leaves_is_not_drawn_for(
    pipeline: Voice2FacePipeline, female_speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded = pipeline.decode, []
    monkeypatch.setattr(pipeline, "decode", lambda *a, **k: decoded.append(1) or decode(*a, **k))
    recording = female_speech.read_bytes()
    with serve(create_app(pipeline)) as port:
        first = Visit(port, recording, steps=100)
        started = first.events()
        assert [next(started)[0], next(started)[0]] == ["heard", "step"]
        second = Visit(port, recording, steps=2)
        waiting = second.events()
        assert next(waiting) == ("waiting", {"ahead": 1})
        third = Visit(port, recording, steps=2)
        behind = third.events()
        assert next(behind) == ("waiting", {"ahead": 2})
        first.leave()
        assert [name for name, _ in waiting] == ["heard", "step", "step", "drawn"]
        assert next(behind) == ("waiting", {"ahead": 1})
        assert [name for name, _ in behind] == ["heard", "step", "step", "drawn"]
    of_the_first = len(decoded) - 2 * 3
    assert of_the_first < 9, "all of the first visitor's previews and portraits"


def test_recordings_of_visitors_who_left_are_forgotten() -> None:
    async def leave_while_another_is_served() -> None:
        queue, served = JobQueue(Limits()), threading.Event()
        queue.start(queue.admit(), lambda *_: served.wait(20) and None)
        job, work = queue.admit(), partial(lambda *_: None, bytes(1000))
        recording = weakref.ref(work)
        queue.start(job, work)
        del work
        await asyncio.sleep(0.1)  # so that it waits for the worker
        queue.dismiss(job)
        await asyncio.sleep(0.1)
        gc.collect()
        forgotten = recording() is None
        served.set()
        assert forgotten

    asyncio.run(leave_while_another_is_served())


def test_work_that_takes_too_long_is_ended(tiny_pipeline: Voice2FacePipeline, talk: bytes) -> None:
    with serve(create_app(tiny_pipeline, Limits(drawing_seconds=0.0))) as port:
        ((name, said),) = Visit(port, talk).events()
    assert name == "error"
    assert "took more than 0 s; ask for fewer steps" in said["message"]


def test_portraits_that_are_drawn_again_are_ended_too(
    talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses_all = FaceCheck(4, 8, width=8, least_confidence=1e3)
    pipe = Voice2FacePipeline(**tiny_components(), face_check=refuses_all).to("cpu")
    attempts, draw = [], pipe.method.draw
    monkeypatch.setattr(pipe.method, "draw", lambda *given: attempts.append(1) or draw(*given))
    clock = SimpleNamespace(monotonic=lambda: 1000.0 if len(attempts) > 1 else 0.0)
    monkeypatch.setattr("voice2face.app.jobs.time", clock)
    with serve(create_app(pipe)) as port:
        events = list(Visit(port, talk, steps=2).events())
    assert [name for name, _ in events] == ["heard", "step", "step", "error"]
    assert "took more than 180 s" in events[-1][1]["message"]
    assert len(attempts) == 2, "the second one was not finished, nor a third begun"


def test_bugs_are_logged_and_not_shown(
    tiny_pipeline: Voice2FacePipeline,
    talk: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the machine")

    with serve(create_app(tiny_pipeline)) as port:
        with monkeypatch.context() as patch:
            patch.setattr(tiny_pipeline, "draw", fail)
            said = list(Visit(port, talk).events())[-1]
        assert said[0] == "error"
        assert "secret" not in said[1]["message"]
        assert "a secret of the machine" in caplog.text
        assert list(Visit(port, talk, steps=1).events())[-1][0] == "drawn", "the worker goes on"


def get(port: int, path: str, host: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection.getresponse()


def test_foreign_pages_can_neither_post_nor_use_another_name(
    tiny_pipeline: Voice2FacePipeline, talk: bytes
) -> None:
    private = create_app(tiny_pipeline, allowed_hosts=allowed_hosts("127.0.0.1"))
    with serve(private) as port:
        for name in ("localhost", "127.0.0.1", "[::1]"):
            assert get(port, "/about", f"{name}:{port}").status == 200
        for name in ("rebound.example", "localhost.example", ""):
            assert get(port, "/about", name or " ").status == 400
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/portraits", talk, {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        assert answer.status == 415
        assert "application/octet-stream" in refusal(answer)
        preflight = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        asked = {"Origin": "http://foreign.example", "Access-Control-Request-Method": "POST"}
        preflight.request("OPTIONS", "/portraits", headers=asked)
        headers = preflight.getresponse().headers
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_names_are_checked_where_the_page_is_private() -> None:
    assert "*" not in allowed_hosts("127.0.0.1") + allowed_hosts("::1") + allowed_hosts("localhost")
    assert allowed_hosts("0.0.0.0") == allowed_hosts("192.0.2.1") == ("*",)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(
    tiny_pipeline: Voice2FacePipeline,
) -> None:
    with serve(create_app(tiny_pipeline)) as port:
        page = get(port, "/")
        assert page.status == 200
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        text = page.read().decode()
        links = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert {"page.css", "page.js", "icon.svg"} <= set(links)
        files = [path.name for path in PAGE.iterdir()]
        assert set(links) <= set(files)
        for name in files:
            answer = get(port, f"/{name}")
            assert (answer.status, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
            body = answer.read().decode().replace("http://www.w3.org/2000/svg", "")
            assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", body), f"{name} names an address"
        for path in ("/../server.py", "/%2e%2e/server.py", "/nothing"):
            missing = get(port, path)
            assert missing.status == 404
            assert missing.headers["Content-Security-Policy"] == policy


def test_another_application_can_mount_the_page(
    tiny_pipeline: Voice2FacePipeline, talk: bytes
) -> None:
    outer = Starlette(routes=[Mount("/voice", create_app(tiny_pipeline))])
    with serve(outer) as port:
        assert b"<h1>" in get(port, "/voice/").read()
        assert get(port, "/voice/page.css").status == 200
        events = list(Visit(port, talk, "/voice/portraits", steps=1).events())
    assert events[-1][0] == "drawn"


def test_command_serves_until_interrupted(female_speech: Path) -> None:
    command = [sys.executable, "-m", "voice2face", "app", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)
        assert found, line
        port = int(found[1])
        assert get(port, "/").headers["Server"] is None
        with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
            assert idle.recv(1) == b"", "who asks for nothing is not waited for"
        with socket.create_connection(("127.0.0.1", port)) as slow:
            for byte in b"GET /about":
                slow.send(bytes([byte]))
                closed, _, _ = select.select([slow], [], [], 1.0)
                if closed:
                    break
        visits = [Visit(port, female_speech.read_bytes(), steps=100).events() for _ in range(2)]
        assert [next(visit)[0] for visit in visits] == ["heard", "waiting"]
        server.send_signal(signal.SIGINT)
        for visit in visits:
            name, said = list(visit)[-1]
            assert (name, "page was closed" in said["message"]) == ("error", True)
        assert "ended" in server.stdout.read()
        assert server.stderr.read() == ""
    assert server.returncode == 0
    assert closed, "nor is one waited for who asks a byte a second"


def test_command_says_what_stands_in_the_way(capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["app", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another --host or --port" in capsys.readouterr().err
    assert main(["app", "--port", "0", "--host", "é" * 80]) == 1
    assert "choose another --host or --port" in capsys.readouterr().err
    assert main(["app", "--port", "0", "--key", "no.pem"]) == 1
    assert "say which: --certificate" in capsys.readouterr().err
    assert main(["app", "--port", "0", "--certificate", "no.pem", "--key", "no.pem"]) == 1
    assert "--certificate no.pem and --key no.pem cannot be used" in capsys.readouterr().err
    assert main(["app", "--port", "0", "--certificate", "no.pem"]) == 1
    assert "--certificate no.pem cannot be used" in capsys.readouterr().err


def test_an_empty_address_serves_nobody(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["app", "--host", "", "--port", "70000"])
    assert ended.value.code == 2
    assert "argument --host: an empty address" in capsys.readouterr().err


def test_command_names_the_extra_that_is_missing() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; "
        "from voice2face.cli import main; sys.exit(main(['app', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "voice2face: the web page needs uvicorn: pip install 'voice2face[app]'\n"
    )


def test_command_teaches(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["app", "-h"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "127.0.0.1" in printed
    assert "no password" in " ".join(printed.split())
