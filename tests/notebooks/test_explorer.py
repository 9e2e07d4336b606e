"""The explorer in a browser: it shows what `Cascade` computes, quietly, at every size."""

import base64
import importlib.util
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BROWSER
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from paperlib import Cascade, cli, initialise, load_dataset, load_result, mlp
from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.notebooks.explorer import contents, page

SIZES = {"desktop": (1300, 900), "phone": (390, 844)}
CLICKED = ((0.6, 6), (1.7, 12), (3.0, 4))  # an ordered, a critical and a chaotic network
needs_bokeh = pytest.mark.skipif(
    importlib.util.find_spec("bokeh") is None, reason="the extra `explorer` is not installed"
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
COLUMN = "const canvas = document.getElementById(id), data = canvas.getContext('2d').getImageData"
PIXELS = f"(id) => {{ {COLUMN}(0, 0, 28, 28).data; return [...data].filter((_, i) => i % 4 == 0) }}"


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.write_page(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def zoo() -> dict[str, Any]:
    return contents.zoo()


@pytest.fixture(params=SIZES)
def opened(explorer: Path, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, ready; in the end its console must be empty, and nothing been asked for."""
    width, height = SIZES[request.param]
    phone = request.param == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height}, offline=True, has_touch=phone
    )
    tab, wrong = context.new_page(), []
    tab.on("console", lambda said: said.type in ("info", "log") or wrong.append(said.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on(
        "request",
        lambda asked: asked.url.startswith((explorer.as_uri(), "data:")) or wrong.append(asked.url),
    )
    tab.goto(explorer.as_uri())
    tab.locator("body[data-ready=all]").wait_for(state="attached")
    yield tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert wrong == []
    context.close()


def digit(tab: Any, name: str) -> np.ndarray:
    return np.array(tab.evaluate(PIXELS, name)).reshape(28, 28)


def place(tab: Any, sigma_w2: float, depth: int) -> tuple[float, float]:
    """Where on the screen a point of the map is, by the figure's own scales."""
    tab.locator("#map").scroll_into_view_if_needed()
    return tuple(
        tab.evaluate(
            """([x, y]) => {
                const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].roots()[0].id);
                const { x_scale, y_scale } = view.frame;
                const box = view.canvas_view.el.getBoundingClientRect();
                return [box.x + x_scale.compute(x), box.y + y_scale.compute(y)];
            }""",
            [sigma_w2, depth],
        )
    )


@pytest.fixture(scope="module")
def computed() -> dict[tuple[float, int], np.ndarray]:
    """The three digits by the package's plainest way, where MNIST is."""
    if not (paths.data_root() / "mnist.npz").exists():
        return {}
    config = provenance(load_result("mnist_mlp.nc"))["config"]
    data = load_dataset("mnist")
    train, first = data.floats("train")[: config["train_images"]], data.floats("test")[:1]
    found = {}
    for sigma_w2, depth in CLICKED:
        network = mlp(data.image_shape, depth=depth)
        initialise(network, sigma_w2=sigma_w2, sigma_b2=config["sigma_b2"], seed=0)
        cascade = Cascade.for_network(network, train[:1])
        cascade.fit(train, resolution=config["resolution"])
        picture = cascade.reconstruct(first)[-1, 0, 0].clamp(0, 1) * 255
        found[sigma_w2, depth] = picture.round().numpy()
    return found


@needs_bokeh
@in_a_browser
def test_a_click_on_the_map_shows_the_digit_that_the_cascade_computes_there(
    opened: Any, computed: dict[tuple[float, int], np.ndarray]
) -> None:
    shipped = contents.digits_of("mlp")
    for sigma_w2, depth in CLICKED:
        opened.mouse.click(*place(opened, sigma_w2, depth))
        words = f"from depth {depth}, σ_w² = {sigma_w2:g}"
        opened.get_by_text(words, exact=True).wait_for()
        shown = digit(opened, "digit")
        assert_array_equal(
            shown, shipped["example"].sel(sigma_w2=sigma_w2, shown_depth=depth).values[0]
        )
        if computed:
            assert_allclose(shown, computed[sigma_w2, depth], atol=1)
    assert_array_equal(digit(opened, "original"), shipped["original"].values[0])


@needs_bokeh
@in_a_browser
def test_keys_networks_outputs_and_dots_do_what_they_say(opened: Any, zoo: dict[str, Any]) -> None:
    opened.locator("#map").focus()
    for key in ("ArrowRight", "ArrowUp"):
        opened.keyboard.press(key)
    assert opened.url.endswith("#mlp/1.8/35")
    opened.get_by_text("ResNet", exact=True).click()
    shown = contents.digits_of("resnet")["example"]
    assert_array_equal(digit(opened, "digit"), shown.sel(sigma_w2=1.6, shown_depth=35).values[0])
    matrix = load_result("explorer_outputs.nc")
    opened.locator("#output-7").fill("0.5")
    outputs = np.full(10, -1.0)
    outputs[[3, 7]] = 1, 0.5
    ideal = matrix["bias"] + (matrix["weight"] * outputs[:, None, None, None]).sum("class")
    assert_allclose(digit(opened, "ideal"), 255 * ideal.values[0].clip(0, 1), atol=0.51)
    opened.locator("#network").select_option("5")
    report = opened.locator("#report").inner_text()
    assert zoo["told"][5] in report
    assert f"{100 * zoo['best'][5]:.1f}%" in report


@needs_bokeh
def test_the_page_is_one_file_below_15_megabytes_that_names_nothing_to_be_loaded(
    explorer: Path,
) -> None:
    html = explorer.read_text()
    assert explorer.stat().st_size < 15e6
    assert re.findall(r"<(?:script|img|iframe)[^>]+\bsrc=|<link[^>]+stylesheet", html) == []
    assert not re.search(r"<!-- \w+ -->", html)


def test_the_command_writes_the_page_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "page", lambda: "<p>all of it</p>")
    assert cli.main(["explorer", "--output", str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "explorer.html").read_text() == "<p>all of it</p>"
    assert "explorer.html: open it in a browser" in capsys.readouterr().out


def test_without_bokeh_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["explorer", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"paperlib: {page.MISSING}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_atlas_holds_every_digit_at_its_place() -> None:
    digits = contents.digits_of("resnet")
    _, _, code = contents.atlas(digits).partition(",")
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(code))))
    rows, columns = digits.sizes["sigma_w2"], digits.sizes["shown_depth"]
    assert sheet.shape == (28 * (rows + 1), 28 * columns)
    assert_array_equal(sheet[28:56, 84:112], digits["example"][1, 3, 0].values)
    assert_array_equal(sheet[28 * rows :, :28], digits["original"][0].values)


def test_what_the_page_says_of_the_zoo_is_in_the_files(zoo: dict[str, Any]) -> None:
    result = load_result("zoo.nc")
    assert len(zoo["number"]) == int((result["finished"] == 1).sum())
    assert {len(zoo[name]) for name in ("family", "told", "best", "accuracy", "scores")} == {
        len(zoo["number"])
    }
    best = result["accuracy"].sel(number=zoo["number"][7]).max()
    assert zoo["best"][7] == pytest.approx(float(best), abs=1e-3)
    assert json.loads(json.dumps(zoo, allow_nan=False)) == zoo
