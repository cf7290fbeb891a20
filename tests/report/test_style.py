"""The colours of all pages: contrast, colour vision, light, dark and print."""

import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from defectgen.report.page_templates import POLICY, asset, plain_page

TEXTS = ("text", "soft", "accent", "good", "bad", "goal", "homo", "lumo", "c1", "c2", "c3", "c4", "c5", "c6")
SERIES = ("c1", "c2", "c3")
LEAST_TEXT_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3."""

VISION = {
    "usual": np.eye(3),
    "protan": np.reshape(
        (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998), (3, 3)
    ),
    "deutan": np.reshape(
        (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881), (3, 3)
    ),
    "tritan": np.reshape(
        (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900), (3, 3)
    ),
}
"""What is seen of linear RGB with a kind of cone missing: Machado et al. (2009), doi 10.1109/TVCG.2009.113."""

LEAST_DIFFERENCE = 15.0
"""CIE 1976 colour difference of two series; 2.3 is just noticeable."""


def themes() -> dict[str, dict[str, str]]:
    css = str(asset())
    light = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6})", css.split("@media")[0]))
    dark_part = css.split("@media screen and (prefers-color-scheme: dark)")[1].split("* {")[0]
    print_part = css.split("@media print")[1]
    return {
        "light": light,
        "dark": {**light, **dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6})", dark_part))},
        "print": {**light, **dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6})", print_part))},
    }


def linear(colour: str) -> np.ndarray:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    value = np.array([int(digits[k : k + 2], 16) for k in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    weights = np.array([0.2126, 0.7152, 0.0722])
    high, low = sorted((float(weights @ linear(colour)) for colour in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_reference_values_of_contrast() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_texts_stand_out(theme: str) -> None:
    colours = themes()[theme]
    for text, ground in product(TEXTS, ("bg", "card")):
        assert contrast(colours[text], colours[ground]) >= LEAST_TEXT_CONTRAST, (text, ground)
    for text, ground in (("text", "chip"), ("text", "warn-bg"), ("card", "good"), ("on-accent", "accent")):
        assert contrast(colours[text], colours[ground]) >= LEAST_TEXT_CONTRAST, (text, ground)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_series_can_be_told_apart(theme: str, vision: str) -> None:
    colours = themes()[theme]
    for pair in (*combinations(SERIES, 2), ("homo", "lumo")):
        a, b = (lab(VISION[vision] @ linear(colours[name])) for name in pair)
        assert np.linalg.norm(a - b) > LEAST_DIFFERENCE, (pair, theme, vision)


def test_dark_colours_are_not_printed() -> None:
    css = str(asset())
    assert css.count("prefers-color-scheme: dark") == css.count("@media screen and (prefers-color-scheme: dark)") == 1
    assert themes()["print"]["bg"] == "#fff"


def test_a_plain_page_loads_nothing_and_escapes_its_heading() -> None:
    html = plain_page("a<b>&c", ("first", "second"), "<p>body</p>", ".own { top: 0; }")
    assert f'content="{POLICY}"' in html
    assert "<h1>a&lt;b&gt;&amp;c</h1><p>first</p><p class=soft>second</p>" in html
    assert str(asset()) in html
    assert "script" not in html


def test_an_asset_cannot_end_its_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "bad.js").write_text('x = "</ScRipt>";', encoding="utf-8")
    monkeypatch.setattr("defectgen.report.page_templates.resources.files", lambda _: tmp_path)
    with pytest.raises(ValueError, match=r"bad\.js would end its own tag"):
        asset("bad.js")
