"""The web page in headless Chromium, with the released weights and real speech."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.app_server import serve
from tests.conftest import SPEECH
from voice2face import Voice2FacePipeline
from voice2face.app import create_app
from voice2face.replay import read_portrait
from voice2face.settings import DEFAULT_VARIETY
from voice2face.watermark import detect

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1200",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 3, "mobile": True}
SMALLEST_TARGET = 44  # pixels, of what is touched

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver is installed"
)


class Page:
    """The page as a person has it before them."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser
        self.do = browser.execute_script

    def __getitem__(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def wait(self, until: Callable[[], object], seconds: float = 60.0) -> None:
        WebDriverWait(self.browser, seconds, 0.02).until(lambda _: until())

    def choose_file(self, path: Path) -> None:
        self["file"].send_keys(str(path))
        self.wait(self["draw"].is_enabled)

    def set(self, name: str, value: object) -> None:
        move = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.do(move, self[name], str(value))

    def draw(self) -> None:
        self["draw"].click()
        self.wait(lambda: not self.is_drawing())
        self.settle()

    def is_drawing(self) -> bool:
        return self.do("return document.body.classList.contains('is-drawing')")

    def settle(self) -> None:
        """Wait until pictures are decoded and nothing moves any more."""
        done = "for (const i of document.images) if (i.src) await i.decode().catch(() => null);"
        self.browser.execute_async_script(f"(async () => {{ {done} }})().then(arguments[0])")
        self.wait(lambda: self.do("return document.getAnimations().length") == 0)

    def sources(self) -> list[str]:
        """Where each frame's picture comes from."""
        return self.do("return [...document.querySelectorAll('.frame img')].map(i => i.src)")

    def pictures(self) -> list[np.ndarray]:
        """What is seen in the frames."""
        frames = self.browser.find_elements(By.CLASS_NAME, "frame")
        return [self.seen(frame) for frame in frames]

    def seeds(self) -> list[int]:
        """What is written under the frames."""
        captions = self.browser.find_elements(By.CLASS_NAME, "caption")
        return [int(caption.text.removeprefix("seed ")) for caption in captions]

    def seen(self, element: WebElement) -> np.ndarray:
        shot = base64.b64decode(element.screenshot_as_base64)
        with Image.open(io.BytesIO(shot)) as image:
            return coarse(image)


def coarse(image: Image.Image) -> np.ndarray:
    """``(16, 16, 3)``: a pixel's shift on the screen makes no difference."""
    return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX)).astype(float)


@pytest.fixture(scope="module")
def address(pipeline: Voice2FacePipeline) -> Iterator[str]:
    with serve(create_app(pipeline)) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    microphone = tmp_path_factory.mktemp("microphone") / "female.wav"
    sf.write(microphone, *sf.read(SPEECH / "female.flac"))
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--use-file-for-fake-audio-capture={microphone}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    with webdriver.Chrome(options=options, service=service) as chrome:
        yield chrome


@pytest.fixture
def page(browser: webdriver.Chrome, address: str, tmp_path: Path) -> Iterator[Page]:
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    browser.get(address)
    opened = Page(browser)
    opened.wait(lambda: opened["about"].text)
    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert complaints == [], "the browser complains of nothing, the content policy included"


def test_a_voice_becomes_a_portrait_that_can_be_kept(
    page: Page, pipeline: Voice2FacePipeline, female_speech: Path, tmp_path: Path
) -> None:
    page.choose_file(female_speech)
    assert "female.flac" in page["take"].text
    page["seed"].send_keys("7")
    page.set("steps", 30)
    page.set("guidance", 2.5)
    assert float(page["variety-value"].text) == DEFAULT_VARIETY
    page.set("variety", 0.3)
    shown = [page[f"{name}-value"].text for name in ("steps", "guidance", "variety")]
    assert shown == ["30", "2.5", "0.3"]
    assert page["download"].get_attribute("href") is None

    page["draw"].click()
    page.wait(lambda: all("image/webp" in source for source in page.sources()))
    beginning = page.pictures()
    assert page["draw"].text == "Stop"
    page.wait(lambda: 0.3 < page.do("return progress.value / progress.max") < 1)
    assert "sounds female" in page["told"].text, "before the portraits are there"
    page.wait(lambda: not page.is_drawing())
    assert page["status"].text == "Done."
    page.settle()
    drawn = page.pictures()

    asked = {"num_inference_steps": 30, "guidance_scale": 2.5, "variety": 0.3}
    expected = pipeline(female_speech, num_images=4, seed=7, **asked)
    finished = [coarse(image) for image in expected.images]
    for begun, seen, made in zip(beginning, drawn, finished, strict=True):
        middle = np.s_[2:-2, 2:-2]  # frames are rounded
        away = np.abs(seen - made)[middle].mean()
        assert away < 8, "the portrait is what is seen"
        assert np.abs(begun - made)[middle].mean() > 3 * away, "and was not from the beginning"
    assert page.seeds() == [7, 8, 9, 10]

    faces = page.browser.find_elements(By.CLASS_NAME, "face")
    faces[1].click()
    assert page["chosen-text"].text == "You chose seed 8."
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page["chosen-text"].text == "You chose seed 9.", "the keyboard chooses too"
    page["download"].click()
    kept = tmp_path / "portrait-9.png"
    page.wait(lambda: kept.exists() and kept.stat().st_size > 0)
    assert kept.read_bytes() == expected[2].png()
    with Image.open(kept) as image:
        assert image.size == (256, 256)
        assert detect(image).answer == "yes"
    saved = read_portrait(kept)
    assert (saved.seed, saved.settings.num_inference_steps) == (9, 30)


CHANCE_THAT_REPEATS = "let drawn = 0; Math.random = () => (0.37 + 0.61 * drawn++) % 1"


def test_seeds_move_and_make_other_faces(page: Page, male_speech: Path, tmp_path: Path) -> None:
    page.do(CHANCE_THAT_REPEATS)
    page["seed-any"].click()
    page.choose_file(male_speech)
    page.set("steps", 2)
    page.draw()
    first = int(page["seed"].get_attribute("value"))
    page.browser.find_elements(By.CLASS_NAME, "face")[0].click()
    page["download"].click()
    kept = tmp_path / f"portrait-{first}.png"
    page.wait(lambda: kept.exists() and kept.stat().st_size > 0)
    drawn_with = read_portrait(kept).settings
    shown = int(page["steps-value"].text), float(page["guidance-value"].text)
    assert (drawn_with.num_inference_steps, drawn_with.guidance_scale) == shown == (2, 1.5)
    before = page.pictures()
    page["seed-on"].click()
    assert int(page["seed"].get_attribute("value")) == first + 4
    page["seed-back"].click()
    page.draw()
    for one, again in zip(before, page.pictures(), strict=True):
        assert np.abs(one - again).mean() < 1, "the same seed draws the same faces"
    page["seed-any"].click()
    assert int(page["seed"].get_attribute("value")) not in range(first, first + 4)
    page.draw()
    assert "sounds male" in page["told"].text
    for one, other in zip(before, page.pictures(), strict=True):
        assert np.abs(one - other).mean() > 10, "other seeds draw other faces"


def test_a_seed_is_the_visitors_to_choose(
    page: Page, male_speech: Path, female_speech: Path
) -> None:
    page.choose_file(male_speech)
    page.set("steps", 2)
    page.draw()
    drawn = page.seeds()
    assert page["seed"].get_attribute("value") == "", "so that the next voice has other faces"
    page.choose_file(female_speech)
    page.draw()
    assert not set(drawn) & set(page.seeds())
    last = page.seeds()[-1]
    page["seed-on"].click()
    assert page["seed"].get_attribute("value") == str(last + 1)
    page.set("steps", 100)
    page["draw"].click()
    page.wait(lambda: all("image/webp" in source for source in page.sources()))
    page["seed"].clear()
    page["seed"].send_keys("99999", Keys.ENTER)
    page.wait(lambda: not page.is_drawing())
    assert page["status"].text == "Done.", "Enter stops nothing"
    assert page["seed"].get_attribute("value") == "99999"
    assert page.seeds()[0] == last + 1


def test_portraits_stay_where_no_others_are_drawn(
    page: Page, female_speech: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "mine.flac"
    recording.write_bytes(female_speech.read_bytes())
    page.choose_file(recording)
    page["seed"].send_keys("5")
    page.draw()
    assert page.seeds() == [5, 6, 7, 8]
    page["seed"].clear()
    page["seed"].send_keys(str(2**63 - 1))
    page.do("document.getElementById('controls').noValidate = true")
    page.draw()
    assert "2**63" in page["problem"].text
    [complaint] = page.browser.get_log("browser")
    assert "400 (Bad Request)" in complaint["message"]
    assert page.seeds() == [5, 6, 7, 8]
    assert all(source.startswith("blob:") for source in page.sources())
    page["seed"].clear()
    recording.unlink()
    page.draw()
    assert "cannot be read" in page["problem"].text
    assert page.seeds() == [5, 6, 7, 8]
    assert page["told"].is_displayed(), "and so does what is known of their voice"


def test_what_is_no_recording_is_complained_of(page: Page, tmp_path: Path) -> None:
    letter = tmp_path / "letter.wav"
    letter.write_text("no recording")
    page.choose_file(letter)
    page.draw()
    assert "voice2face reads WAV" in page["problem"].text
    assert page["problem"].get_attribute("role") == "alert"
    assert page.sources() == [""] * 4
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as file:
        file.truncate((20 << 20) + 1)
    page["file"].send_keys(str(huge))
    page.wait(lambda: "huge.wav is over 21 MB" in page["problem"].text)
    long = tmp_path / "long.wav"
    sf.write(long, np.zeros(601 * 8_000, np.float32), 8_000, subtype="PCM_U8")
    page["file"].send_keys(str(long))
    page.wait(lambda: "long.wav is over 10 minutes" in page["problem"].text)
    assert page["draw"].is_enabled(), "the recording before is still there"


def test_drawing_can_be_stopped(page: Page, female_speech: Path) -> None:
    page.choose_file(female_speech)
    page.set("steps", 100)
    page["draw"].click()
    page.wait(lambda: all(page.sources()))
    page["draw"].click()
    page.wait(lambda: page["status"].text == "Stopped.")
    assert page.sources() == [""] * 4
    page.set("steps", 1)
    page.draw()
    assert page["status"].text == "Done."


def recorded_seconds(page: Page) -> int:
    """As the button counts them while it records; 0 before."""
    counted = re.fullmatch(r"Stop, (\d+) s", page["record"].text)
    return int(counted[1]) if counted else 0


def test_the_microphone_is_heard(page: Page) -> None:
    page["record"].click()
    page.wait(lambda: recorded_seconds(page) >= 3)  # a busy machine may not look in each second
    page["record"].click()
    page.wait(page["draw"].is_enabled)
    page.wait(lambda: page["record"].text == "Record")
    assert "Your recording" in page["take"].text
    page.set("steps", 1)
    page.draw()
    assert "sounds female" in page["told"].text
    assert float(page["speech-text"].text.split()[0]) > 2


def test_the_keyboard_alone_starts_and_stops_a_recording(page: Page) -> None:
    page.do("arguments[0].focus()", page["record"])
    page["record"].send_keys(Keys.SPACE)
    page.wait(lambda: recorded_seconds(page) >= 1)
    assert page.browser.switch_to.active_element == page["record"]
    ActionChains(page.browser).send_keys(Keys.SPACE).perform()
    page.wait(page["draw"].is_enabled, 20)
    assert page["record"].text == "Record"
    assert page.browser.switch_to.active_element == page["record"]


def test_a_microphone_that_is_still_asked_for_is_asked_for_once(page: Page) -> None:
    page.do("""
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        globalThis.asked = 0;
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          asked += 1;
          await new Promise((resolve) => { globalThis.allow = resolve; });
          return ask(wanted);
        };
    """)
    page["record"].click()
    page["record"].click()
    page.do("allow()")
    page.wait(lambda: recorded_seconds(page) >= 1)
    assert page.do("return asked") == 1
    page["record"].click()
    page.wait(page["draw"].is_enabled)


def test_sound_that_comes_in_late_does_not_go_on_counting(page: Page) -> None:
    page.do("AudioContext.prototype.close = async () => {}")
    page.do("MediaStreamTrack.prototype.stop = () => {}")
    page["record"].click()
    page.wait(lambda: recorded_seconds(page) >= 1)
    page["record"].click()
    page.wait(page["draw"].is_enabled)
    time.sleep(0.5)  # five more blocks
    assert page["record"].text == "Record"


KEEP_STREAM = """
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => (globalThis.stream = await ask(wanted));
"""


@pytest.mark.parametrize(
    "fault",
    [
        "globalThis.AudioContext = function () { throw new Error('none is left') }",
        "AudioContext.prototype.createMediaStreamSource = () => { throw new Error('other rate') }",
        "AudioContext.prototype.resume = async () => { throw new Error('closed') }",
    ],
)
def test_a_microphone_that_cannot_be_heard_is_let_go(page: Page, fault: str) -> None:
    page.do(KEEP_STREAM + fault)
    page["record"].click()
    page.wait(lambda: "The microphone cannot be used" in page["problem"].text)
    page.wait(page["record"].is_enabled)
    states = page.do("return stream.getTracks().map((track) => track.readyState)")
    assert states == ["ended"]


def test_a_page_whose_server_is_busy_says_so(
    browser: webdriver.Chrome, tiny_pipeline: Voice2FacePipeline
) -> None:
    async def refuse(_: Request) -> Response:
        return PlainTextResponse("Service Unavailable", 503)

    app = create_app(tiny_pipeline)
    app.router.routes.insert(0, Route("/about", refuse))
    with serve(app) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        page = Page(browser)
        page.wait(lambda: "Reload the page in a minute" in page["problem"].text)
    browser.get_log("browser")  # it complains of the answer


def test_a_connection_that_breaks_off_is_named(page: Page, female_speech: Path) -> None:
    page.do("""
        globalThis.fetch = async () => {
          const body = new ReadableStream({
            async pull(controller) {
              await new Promise((resolve) => { globalThis.breakOff = resolve; });
              controller.error(new TypeError("network error"));
            },
          });
          await new Promise((resolve) => { globalThis.arrive = resolve; });
          return new Response(body);
        };
    """)
    page.choose_file(female_speech)
    page["draw"].click()
    page.wait(lambda: page["status"].text == "Sending the recording")
    page.do("arrive()")
    page.wait(lambda: page["status"].text == "Listening")
    page.do("breakOff()")
    page.wait(lambda: "The connection was lost" in page["problem"].text)
    assert not page.is_drawing()


def test_a_file_chosen_before_the_script_is_there_is_used(
    browser: webdriver.Chrome, tiny_pipeline: Voice2FacePipeline, female_speech: Path
) -> None:
    chosen = threading.Event()
    app = create_app(tiny_pipeline)
    about = next(route for route in app.routes if getattr(route, "path", "") == "/about")

    async def slow(request: Request) -> Response:
        await asyncio.to_thread(chosen.wait, 30)
        return await about.endpoint(request)

    app.router.routes.insert(0, Route("/about", slow))
    with serve(app) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        page = Page(browser)
        page["file"].send_keys(str(female_speech))
        chosen.set()
        page.wait(page["draw"].is_enabled)
        assert "female.flac" in page["take"].text


CONVERT_AND_DROP = """
const [speech, done] = arguments;
const context = new AudioContext();
const bytes = Uint8Array.from(atob(speech), (character) => character.charCodeAt(0));
const source = new AudioBufferSourceNode(context, {
  buffer: await context.decodeAudioData(bytes.buffer),
});
const destination = context.createMediaStreamDestination();
const recorder = new MediaRecorder(destination.stream, { mimeType: "audio/webm" });
recorder.ondataavailable = ({ data }) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([data], "memo.webm", { type: "audio/webm" }));
  dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
  done(data.size);
};
source.connect(destination);
source.start();
recorder.start();
setTimeout(() => recorder.stop(), 3000);
"""


def test_a_format_that_only_the_browser_reads_can_be_dropped(page: Page, male_speech: Path) -> None:
    page["voice-title"].click()  # browsers let a page sound only after a touch
    speech = base64.b64encode(male_speech.read_bytes()).decode()
    script = f"(async () => {{ {CONVERT_AND_DROP} }})()".replace("arguments", "parameters")
    size = page.browser.execute_async_script(f"const parameters = arguments; {script}", speech)
    assert size > 5_000
    page.wait(page["draw"].is_enabled)
    assert "memo.webm" in page["take"].text
    page.set("steps", 1)
    page.draw()
    assert page["problem"].text == ""
    assert "sounds male" in page["told"].text


def test_channels_that_cancel_out_are_heard_in_a_format_that_only_the_browser_reads(
    page: Page, male_speech: Path, tmp_path: Path
) -> None:
    samples, rate = sf.read(male_speech)
    opposite = tmp_path / "memo.m4a"  # by its name a format that the page decodes
    sf.write(opposite, np.stack([samples, -samples], axis=1), rate, format="WAV")
    page.choose_file(opposite)
    page.set("steps", 1)
    page.draw()
    assert page["problem"].text == ""
    assert "sounds male" in page["told"].text


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_all_is_within_reach(page: Page, male_speech: Path, width: int) -> None:
    phone = PHONE | {"width": width}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.choose_file(male_speech)
    page.set("steps", 2)
    page.do("arguments[0].click()", page["draw"])
    page.wait(lambda: page["status"].text == "Done.")
    assert page.do("return document.documentElement.scrollWidth") == width
    beyond = """return [...document.querySelectorAll('main *:not(.unseen), footer *')].filter(
        (element) => element.getBoundingClientRect().right > innerWidth + 1
    ).map((element) => element.outerHTML)"""
    assert page.do(beyond) == []
    touched = page.browser.find_elements(By.CSS_SELECTOR, "button, .drop, .button, .frame")
    for element in touched:
        assert min(element.size.values()) >= SMALLEST_TARGET, element.get_attribute("outerHTML")
    lefts = {element.location["x"] for element in (page["controls"], page["result"], page["told"])}
    assert len(lefts) == 1, "one column"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, female_speech: Path, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.choose_file(female_speech)
    page.set("steps", 1)
    page.draw()
    pairs = page.do("""
        const opaque = (colour) => !/, 0\\)$/.test(colour);
        return [...document.querySelectorAll("main *, header *, footer *")]
          .filter((element) => [...element.childNodes].some(
            (node) => node.nodeType === Node.TEXT_NODE && node.data.trim()))
          .filter((element) => element.checkVisibility() && !element.closest("[aria-disabled]"))
          .map((element) => {
            let ground = element;
            while (!opaque(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
            const { color } = getComputedStyle(element);
            return [color, getComputedStyle(ground).backgroundColor, element.textContent];
          });
    """)
    assert len(pairs) > 30
    for ink, ground, text in pairs:
        light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ink, ground)


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, as the WCAG defines it."""
    levels = np.array([int(level) for level in colour.strip("rgb()").split(",")]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def said(page: Page, role: str) -> list[tuple[str, str]]:
    """Name and description of each element of a role, as a screen reader is told them."""
    nodes = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in nodes if not node["ignored"] and node["role"]["value"] == role]
    texts = ("name", "description")
    return [tuple(node.get(text, {}).get("value", "") for text in texts) for node in shown]


def test_a_screen_reader_is_told_of_portraits_that_are_drawn(
    page: Page, female_speech: Path
) -> None:
    assert said(page, "radio") == []
    page.choose_file(female_speech)
    page["seed"].send_keys("7")
    page.set("steps", 1)
    page.draw()
    names = [f"Synthetic portrait {k + 1} of 4, seed {7 + k}" for k in range(4)]
    assert [name for name, _ in said(page, "radio")] == names


def test_a_screen_reader_is_told_which_recording_is_chosen(page: Page, female_speech: Path) -> None:
    page.choose_file(female_speech)
    [told] = [told for name, told in said(page, "button") if name.startswith("Choose")]
    assert "female.flac" in told


def test_a_name_written_from_right_to_left_leaves_the_length_as_it_is(
    page: Page, female_speech: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "\u0645\u0642\u0627\u0628\u0644\u0629"
    recording.write_bytes(female_speech.read_bytes())
    page.choose_file(recording)
    name, length = page["take-name"], page["take-length"]
    assert name.rect["x"] + name.rect["width"] <= length.rect["x"], "12.0 s, after the name"


def test_files_with_sound_can_be_chosen(page: Page) -> None:
    kinds = page["file"].get_attribute("accept").split(",")
    assert {"audio/*", "video/*"} <= set(kinds)


def test_every_control_has_a_name(page: Page) -> None:
    unnamed = page.do("""
        return [...document.querySelectorAll("button, input, audio[controls], a, progress")]
          .filter((element) => !element.labels?.length && !element.textContent.trim()
            && !element.getAttribute("aria-label"))
          .map((element) => element.outerHTML);
    """)
    assert unnamed == []
    page.do("arguments[0].focus()", page["file"])
    reached = []
    for _ in range(8):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.append(page.browser.switch_to.active_element.get_attribute("id"))
    expected = ["record", "seed-back", "seed", "seed-on", "seed-any"]
    expected += ["steps", "guidance", "variety"]
    assert reached == expected, "the keyboard reaches all, in order"
