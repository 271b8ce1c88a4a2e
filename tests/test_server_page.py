"""The page in a real browser: drawn on, given images, driven by keys, on a phone, in the dark.

FASTCONV_SCREENSHOTS=DIR keeps pictures of it.
"""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from server_tools import ServerProcess
from serving_tools import NAMES, small_network, two_inputs

from fastconv.serving import Session

pytest.importorskip("starlette", reason="the server needs starlette: pip install 'fastconv[serve]'")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def make_browser(*arguments):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium and chromedriver here (Debian: apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    given = os.environ.get("FASTCONV_PAGE_MODEL")  # a trained network, for pictures
    if given:
        shutil.copy(given, folder / "digits.onnx")
    else:
        small_network((28, 28)).export(
            folder / "digits.onnx", class_names=NAMES, input_range=(0, 255)
        )
    two_inputs().export(folder / "pair.onnx")
    with ServerProcess(folder, "--log-level", "warning") as running:
        yield running


@pytest.fixture(scope="module")
def chromium():
    browser = make_browser("--window-size=1100,1000")
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium, server):
    """The page, freshly opened; nothing may have gone wrong in it by the end."""
    chromium.get_log("browser")
    chromium.get(f"http://{server.address}/")
    wait(chromium, lambda: "ready on" in text(chromium, "status"))
    yield chromium
    faults = [e["message"] for e in chromium.get_log("browser") if e["level"] == "SEVERE"]
    assert [f for f in faults if "favicon" not in f and " 400 " not in f] == []


def wait(browser, condition, seconds=20):
    return WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def element(browser, name):
    return browser.find_element(By.ID, name)


def text(browser, name):
    return element(browser, name).text


def bars(browser):
    return [item.text for item in element(browser, "bars").find_elements(By.TAG_NAME, "li")]


def picture(browser, name):
    if folder := os.environ.get("FASTCONV_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        height = browser.execute_script("return document.documentElement.scrollHeight")
        size = browser.get_window_size()
        browser.set_window_size(size["width"], max(height + 150, size["height"]))
        browser.save_screenshot(str(Path(folder, f"{name}.png")))
        browser.set_window_size(size["width"], size["height"])


def draw(browser):
    """A one, by the pointer."""
    pad = element(browser, "pad")
    size = pad.size["height"]
    drag = ActionChains(browser, duration=20).move_to_element_with_offset(pad, 5, -size // 3)
    drag.click_and_hold().move_by_offset(-5, size // 3).move_by_offset(0, size // 4).release()
    drag.perform()


def test_a_drawing_is_answered(page):
    draw(page)
    found = wait(page, lambda: bars(page))
    assert len(found) >= 3
    assert sum(float(row.split()[-2]) for row in found) == pytest.approx(100, abs=1)
    assert "--data-binary 'drawing.png'" in text(page, "curl").replace("@", "")
    assert "model=digits" in text(page, "curl")
    assert element(page, "save").get_attribute("download") == "drawing.png"
    wait(page, lambda: "half of the answers" in text(page, "latency"))
    card = text(page, "card")
    assert "CPUExecutionProvider" in card
    assert "samples, " in card
    picture(page, "drawn")
    element(page, "clear").click()
    assert bars(page) == []


def test_an_image_is_opened(page, tmp_path):
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 12:16] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    element(page, "file").send_keys(str(tmp_path / "one.png"))
    first = wait(page, lambda: bars(page))
    assert "@one.png" in text(page, "curl")
    element(page, "invert").click()
    wait(page, lambda: "invert=1" in text(page, "curl") and bars(page) != first)


DROP = """
const [bytes, done] = arguments;
const data = new DataTransfer();
data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
for (const kind of ["dragover", "drop"])
  document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true}));
done();
"""


def test_an_image_is_dropped(page, tmp_path):
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "a.png")
    page.execute_async_script(DROP, list((tmp_path / "a.png").read_bytes()))
    wait(page, lambda: bars(page))
    assert "@dropped.png" in text(page, "curl")
    page.execute_async_script(DROP, list(b"no image"))
    wait(page, lambda: "not an image" in text(page, "problem"))


def test_by_keyboard_alone(page):
    for _ in range(10):
        ActionChains(page).send_keys(Keys.TAB).perform()
        if page.switch_to.active_element.get_attribute("id") == "pad":
            break
    assert page.switch_to.active_element.get_attribute("id") == "pad"
    keys = ActionChains(page).send_keys(Keys.UP * 5).send_keys(" ")
    keys.send_keys(Keys.DOWN * 10).send_keys(" ").perform()
    wait(page, lambda: bars(page))
    picture(page, "keyboard")
    ActionChains(page).send_keys(Keys.DELETE).perform()
    assert bars(page) == []


def test_numbers_for_what_takes_no_image(page):
    Select(element(page, "model")).select_by_value("pair 1")
    assert not element(page, "pad").is_displayed()
    field = element(page, "text")
    assert field.get_attribute("value") == '{"a":[[0,0,0,0]],"b":[[0,0,0,0,0,0]]}'
    field.submit()
    answer = wait(page, lambda: text(page, "answer"))
    assert '"u' in answer
    picture(page, "numbers")
    field.clear()
    field.send_keys('{"a": [1]}')
    field.submit()
    assert wait(page, lambda: "expected" in text(page, "problem"))


def luminance(browser, css):
    script = "return getComputedStyle(document.body)[arguments[0]].match(/\\d+/g).slice(0, 3)"
    return sum(map(int, browser.execute_script(script, css))) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page, scheme):
    value = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", value)
    try:
        ink, paper = luminance(page, "color"), luminance(page, "backgroundColor")
        assert (ink > paper) == (scheme == "dark")
        assert abs(ink - paper) > 150
        draw(page)
        wait(page, lambda: bars(page))
        picture(page, scheme)
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_a_phone(page):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page.refresh()
        wait(page, lambda: "ready on" in text(page, "status"))
        box = element(page, "pad").rect
        for kind, y in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8)):
            point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * y}
            page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        wait(page, lambda: bars(page))
        width = page.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360  # nothing to scroll sideways
        for name in ("clear", "copy"):
            assert element(page, name).size["height"] >= 44  # a finger's width
        if folder := os.environ.get("FASTCONV_SCREENSHOTS"):
            shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            import base64

            Path(folder, "phone.png").write_bytes(base64.b64decode(shot["data"]))
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def every_colour(folder):
    """A file of another tool that takes bytes and gives each of them a score."""
    node = onnx.helper.make_node
    kinds = onnx.TensorProto
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node("Cast", ["x"], ["f"], to=kinds.FLOAT), node("Flatten", ["f"], ["y"])],
        "bytes",
        [value("x", kinds.UINT8, ["n", 3, 2, 2])],
        [value("y", kinds.FLOAT, ["n", 12])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "rgb.onnx")


def test_a_server_without_pillow_is_sent_numbers(chromium, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    small_network((28, 28)).export(models / "digits.onnx", class_names=NAMES, input_range=(0, 255))
    every_colour(models)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['PIL'] = None\n")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.new("RGB", (2, 2), (200, 30, 7)).save(tmp_path / "red.png")
    places = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    with ServerProcess(models, PYTHONPATH=places) as running:
        running.read_until("pillow is missing")
        image = (tmp_path / "grey.png").read_bytes()
        status, answer = running.post("/predict?model=digits", image)
        assert (status, "pillow is needed" in answer["error"]) == (415, True)
        chromium.get(f"http://{running.address}/")
        wait(chromium, lambda: "ready on" in text(chromium, "status"))
        draw(chromium)
        wait(chromium, lambda: bars(chromium))
        assert element(chromium, "save").get_attribute("download") == "drawing.json"
        element(chromium, "file").send_keys(str(tmp_path / "grey.png"))
        wait(chromium, lambda: "@grey.json" in text(chromium, "curl") and bars(chromium))
        with Session(models / "digits.onnx", "cpu") as session:
            scores = session.predict(pixels[None, None])[0]
        found = {row.split()[0]: float(row.split()[1]) for row in bars(chromium)}
        assert [found[name] for name in NAMES] == pytest.approx(100 * scores, abs=0.1)
        Select(element(chromium, "model")).select_by_value("rgb 1")
        element(chromium, "file").send_keys(str(tmp_path / "red.png"))
        found = wait(chromium, lambda: bars(chromium))
        assert not element(chromium, "problem").is_displayed()
        # of 0…255 where black and white are 0 and 1 unless the file says more
        assert {row.split()[1] for row in found} == {"1.000", "0.000"}


def test_the_page_asks_for_the_token(chromium, tmp_path):
    small_network((28, 28)).export(tmp_path / "digits.onnx", input_range=(0, 255))
    with ServerProcess(tmp_path / "digits.onnx", FASTCONV_TOKEN="s3cret") as running:
        chromium.get(f"http://{running.address}/")
        wait(chromium, lambda: element(chromium, "access").is_displayed())
        element(chromium, "token").send_keys("s3cret", Keys.ENTER)
        wait(chromium, lambda: "ready on" in text(chromium, "status"))
        draw(chromium)
        wait(chromium, lambda: bars(chromium))
        assert "Bearer $FASTCONV_TOKEN" in text(chromium, "curl")
