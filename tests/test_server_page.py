"""The page in a real browser: type, speak, hear, clone, and errors where they happen."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_server import FRAMES, TEXT, Running, models, running
from test_server import clip

for _needed in ("fastapi", "uvicorn", "python_multipart", "websockets"):
    pytest.importorskip(_needed)
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
LISTEN = """
window.heard = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  window.heard.push([when, Array.from(this.buffer.getChannelData(0), v => Math.round(v * 32768))]);
  return start.call(this, when);
};
"""


@pytest.fixture(scope="module")
def server(synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(models(synthetic), places=2, queue=2, voices=tmp_path_factory.mktemp("voices")) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as p:
        one = p.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield one
        one.close()


@pytest.fixture(scope="module")
def tab(browser: Any, server: Running) -> Iterator[Any]:
    """One for all: a tab of its own for each test would take most of their time."""
    context = browser.new_context(accept_downloads=True)
    one = context.new_page()
    one.add_init_script(LISTEN)
    one.set_default_timeout(20_000)
    yield one
    context.close()


@pytest.fixture
def page(tab: Any, server: Running) -> Iterator[Any]:
    """Loaded anew."""
    asked: list[str] = []
    mistakes: list[str] = []
    listeners = {
        "request": lambda request: asked.append(request.url),
        "pageerror": lambda error: mistakes.append(str(error)),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.set_viewport_size({"width": 1200, "height": 900})
    tab.emulate_media(color_scheme="light")
    tab.goto(server.url)
    tab.wait_for_selector("#speakers tr")
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked), asked
    assert mistakes == []


def until(page: Any, condition: str) -> None:
    """Wait for a condition. Trap: Playwright's own wait needs eval, which the page's policy forbids."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, (condition, page.inner_text("body"))
        page.wait_for_timeout(20)


def shoot(page: Any, name: str) -> None:
    """Keep what the page looks like, where a person asked for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def speak(page: Any, frames: int = FRAMES) -> Any:
    """Speak, and the samples that reached the audio graph."""
    page.locator("#sampling").evaluate("fold => fold.open = true")
    page.fill("#seed", "7")
    page.fill("#max_new_tokens", str(frames + 1))
    page.click("#speak")
    until(page, "document.querySelector('#status').textContent.includes('real-time factor')")
    heard = page.evaluate("window.heard.splice(0)")
    times = [when for when, _ in heard]
    assert times == sorted(times)
    return np.concatenate([np.array(samples) for _, samples in heard])


def test_type_speak_hear_and_download(page, server):
    page.fill("#input", TEXT)
    page.check("[name=speaker][value=ryan]")
    heard = speak(page)
    alone = server.alone(voice="ryan", language="auto")
    np.testing.assert_array_equal(heard, alone)
    assert page.locator(".result").count() == 1
    assert "ryan" in page.inner_text(".result .hint")
    assert page.eval_on_selector("#progress", "bar => bar.value") == 1
    painted = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v)"
    assert page.eval_on_selector("#wave", painted)
    with page.expect_download() as waited:
        page.click("[aria-label='Download as pcm']")
    assert Path(waited.value.path()).read_bytes() == alone.tobytes()
    shoot(page, "spoken")


def test_the_last_dozen_is_kept(page):
    page.fill("#input", "So.")
    speak(page, 1)
    page.evaluate("for (let i = 0; i < 12; i++) keep({input: `${i}`, seed: i}, [new Int16Array(9)], 24000, 1)")
    assert "So." not in page.inner_text("#results")
    assert page.locator(".result").count() == 12
    page.click(".result >> nth=0 >> text=Remove")
    assert page.locator(".result").count() == 11


def test_errors_are_shown_where_they_happen(page):
    page.click("#speak")
    until(page, "document.querySelector('#input-error').textContent.includes('there is nothing to say')")
    page.fill("#input", "a" * 20_001)
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelector('#input-error').textContent.includes('20001 characters')")
    assert page.get_attribute("#input", "aria-invalid") == "true"
    page.fill("#input", TEXT)
    page.locator("#sampling").evaluate("fold => fold.open = true")
    page.fill("#top_k", "1.5")
    page.click("#speak")
    until(page, "document.querySelector('#sampling-error').textContent.includes('top_k=1.5')")
    assert page.inner_text("#input-error") == ""
    shoot(page, "error")


def test_clone_with_a_file_a_registered_voice_and_the_microphone(page, server, tmp_path):
    (tmp_path / "ada.wav").write_bytes(clip())
    page.select_option("#model", "base")
    page.fill("#input", TEXT)
    page.click("#speak")
    until(page, "document.querySelector('#ref_audio-error').textContent.includes('choose or record a clip')")
    page.set_input_files("#clip", tmp_path / "ada.wav")
    page.fill("#ref_text", "What Ada says.")
    heard = speak(page)
    wave = soundfile.read(io.BytesIO(clip()), dtype="float32")
    alone = server.alone(model="base", ref_audio=wave, ref_text="What Ada says.", language="auto")
    np.testing.assert_array_equal(heard, alone)
    page.evaluate("document.querySelector('#status').textContent = ''")

    page.fill("#name", "Ada")
    page.click("#register")
    page.wait_for_selector("[name=registered][value=Ada]:checked")
    assert not page.is_visible("#clip")
    np.testing.assert_array_equal(speak(page), alone)
    shoot(page, "cloned")
    with page.expect_download() as waited:
        page.click("[aria-label='Save the voice Ada as a file']")
    saved = tmp_path / "Ada.safetensors"
    shutil.copy(waited.value.path(), saved)
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("[aria-label='Delete the voice Ada']")
    page.wait_for_selector("[name=registered][value=Ada]", state="detached")
    page.fill("#name", "Ada again")
    page.set_input_files("#voice_file", saved)
    page.wait_for_selector("[name=registered][value='Ada again']:checked")
    assert server.house.voices.names() == ["Ada again"]

    page.check("[name=registered][value='']")
    page.click("#record")
    until(page, "document.querySelector('#record').textContent === 'Stop recording'")
    page.wait_for_timeout(1200)
    page.click("#record")
    until(page, "document.querySelector('#clip-player').src.startsWith('blob:')")
    page.evaluate("document.querySelector('#status').textContent = ''")
    page.fill("#ref_text", "")
    assert len(speak(page))


def test_stop_and_the_keyboard(page, server):
    page.fill("#input", f"{TEXT} " * 30)
    page.keyboard.press("Control+Enter")
    until(page, "window.heard.length > 0")
    page.click("#stop")
    until(page, "document.querySelector('#status').textContent === 'Stopped.'")
    assert page.is_enabled("#speak")
    controls = "input, select, textarea, button, audio, canvas, progress"
    unlabelled = f"""[...document.querySelectorAll('{controls}')].filter(e =>
        !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.getAttribute('aria-label') || e.ariaHidden)
    ).map(e => e.outerHTML)"""
    assert page.evaluate(unlabelled) == []


def test_nothing_is_wider_than_the_screen(page):
    page.fill("#input", TEXT)
    speak(page)
    for name, width in (("phone", 390), ("desk", 1280)):
        page.set_viewport_size({"width": width, "height": 850})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for kind in ("custom_voice", "base"):
                page.select_option("#model", kind)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, scheme, kind)
                shoot(page, f"{name}-{scheme}-{kind}")


def test_the_key_is_asked_for_and_plain_http_has_no_microphone(browser, server):
    served = {"base": server.house.models["base"].model}
    with running(served, places=1, api_key="secret") as guarded:
        context = browser.new_context()
        page = context.new_page()
        page.add_init_script("Object.defineProperty(Navigator.prototype, 'mediaDevices', {get: () => undefined})")
        page.goto(guarded.url)
        page.wait_for_selector("#key")
        page.fill("#key", "wrong")
        page.click("#key-use")
        until(page, "document.querySelector('#key-error').textContent.includes('API key')")
        page.fill("#key", "secret")
        page.click("#key-use")
        page.wait_for_selector("#registered tr")
        assert page.is_hidden("#key")
        assert page.is_disabled("#record")
        assert "https and localhost only" in page.inner_text("#record-hint")
        shoot(page, "http")
        context.close()
