"""core.figures.plotting: colors that can be told apart, SVG that can stand in a page."""

import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from posttrain.core.figures.line_labels import _spread
from posttrain.core.figures.plotting import (
    INK,
    PALETTE,
    SvgFigure,
    band,
    figure,
    heatmap,
    label_lines,
    reference,
    sequential,
    show,
)

ALT = "Two curves fall from four nats to about one and a half."
BACKGROUNDS = ("#ffffff", "#14181e", "#121212")  # the theme: light, dark, dark page
TAG = "{http://www.w3.org/2000/svg}"

# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def keep_the_style_to_each_test():
    with matplotlib.rc_context():
        yield


def linear(color: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def oklab(rgb: np.ndarray) -> np.ndarray:
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    opponents = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return opponents @ np.cbrt(cones @ np.clip(rgb, 0, 1))


def curves(name: str = "loss") -> SvgFigure:
    fig, ax = figure()
    x = np.linspace(0, 10, 40)
    ax.plot(x, np.exp(-x), label="one")
    ax.plot(x, 2 * np.exp(-x), label="two")
    ax.set(xlabel="step", ylabel="loss", title=r"$\sqrt{d}$")
    ax.fill_between(x, 0, 1, hatch="//", facecolor="none")
    ax.legend()
    return show(fig, alt=ALT, name=name)


@pytest.mark.parametrize("color", PALETTE)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_color_stands_out_from_both_backgrounds(color: str, background: str) -> None:
    dark, light = sorted((luminance(color), luminance(background)))
    assert (light + 0.05) / (dark + 0.05) >= 3


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colors_stay_apart_with_each_color_vision_deficiency(deficiency: str) -> None:
    seen = [oklab(np.array(DEFICIENCIES[deficiency]) @ linear(color)) for color in PALETTE]
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert closest > 0.08  # about four just noticeable differences


def test_color_is_never_the_only_difference_between_lines() -> None:
    _, ax = figure()
    lines = [ax.plot([0, 1], [k, k])[0] for k in range(len(PALETTE))]
    assert [line.get_color() for line in lines] == list(PALETTE)
    looks = {(str(line.get_linestyle()), str(line.get_marker())) for line in lines}
    dashes = {str(line._dash_pattern) for line in lines}  # type: ignore[attr-defined]
    assert len(looks) == len(PALETTE) and len(dashes) == len(PALETTE) - 1


def test_svg_takes_the_color_and_font_of_the_page() -> None:
    svg = curves().svg
    assert INK not in svg and "#000000" not in svg and "DejaVu" not in svg
    assert "currentColor" in svg and PALETTE[0] in svg
    assert "font-family:var(--pst-font-family-base" in svg
    assert "background" not in svg and "#ffffff" not in svg


def test_svg_is_one_scalable_labelled_element() -> None:
    svg = curves().svg
    root = ET.fromstring(svg.replace("<svg ", f'<svg xmlns="{TAG[1:-1]}" ', 1))
    assert svg.startswith("<svg viewBox=") and svg.endswith("</svg>")
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == ALT
    assert "width" not in root.attrib and "height" not in root.attrib
    assert "width:100%" in root.attrib["style"] and "max-width:" in root.attrib["style"]
    # A style element inside a page would style the whole page.
    assert not list(root.iter(f"{TAG}style")) and not list(root.iter(f"{TAG}metadata"))
    words = {"".join(text.itertext()) for text in root.iter(f"{TAG}text")}
    assert {"step", "loss", "one", "two"} <= words


def names_and_references(svg: str) -> tuple[list[str], set[str]]:
    return re.findall(r' id="([^"]+)"', svg), set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))


def test_names_do_not_clash_and_references_resolve() -> None:
    one, two = curves("first"), curves("second")
    names_one, references = names_and_references(one.svg)
    names_two, _ = names_and_references(two.svg)
    assert names_one and len(set(names_one)) == len(names_one)
    assert not set(names_one) & set(names_two)
    assert references and references <= set(names_one)
    assert all(name.startswith("first-") for name in names_one)


def test_the_same_figure_gives_the_same_text() -> None:
    assert curves().svg == curves().svg


def test_formulas_are_outlines() -> None:
    fig, ax = figure()
    ax.set_title(r"$\sqrt{d}$")
    svg = show(fig, alt=ALT, name="formula").svg
    assert "√" not in svg and "\\sqrt" not in svg


def test_notebooks_get_html_and_words() -> None:
    shown = curves()
    bundle = shown._repr_mimebundle_()
    assert bundle["text/html"] == (
        f'<div class="pt-figure" style="overflow-x:auto">{shown.svg}</div>'
    )
    assert bundle["text/plain"] == f"Figure: {ALT}"
    assert repr(shown) == f"SvgFigure(name='loss', {len(shown.svg)} characters)"


def test_the_label_is_escaped() -> None:
    fig, _ = figure()
    svg = show(fig, alt='Accuracy < 50 % for "base" & tuned models', name="x").svg
    assert 'aria-label="Accuracy &lt; 50 % for &quot;base&quot; &amp; tuned models"' in svg


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alt": ""}, "has 0 characters: say in at least 20"),
        ({"alt": "  A   plot \n of it. "}, "'A plot of it.' has 13 characters"),
        ({"name": ""}, "the figure name '' is malformed"),
        ({"name": "Loss curve"}, "use lower-case letters"),
        ({"name": "2-curves"}, "start with a letter"),
    ],
)
def test_show_refuses(options: dict[str, str], says: str) -> None:
    fig, _ = figure()
    with pytest.raises(ValueError, match=says):
        show(fig, **({"alt": ALT, "name": "loss"} | options))


def test_show_closes_pyplots_figure() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    with matplotlib.rc_context({"backend": "agg"}):
        fig = pyplot.figure()
        show(fig, alt=ALT, name="pyplot")
        assert fig.number not in pyplot.get_fignums()


@pytest.mark.parametrize(
    ("width", "scrolls"), [("half", False), ("full", False), ("wide", True)]
)
def test_only_wide_figures_scroll_on_a_phone(width: str, scrolls: bool) -> None:
    fig, _ = figure(width)
    found = re.search(r"min-width:(\d+)px", show(fig, alt=ALT, name="loss").svg)
    assert found and (int(found[1]) > 358) == scrolls  # 390 pixels less the page's margins
    smallest_text = 9.5 * int(found[1]) / (fig.get_figwidth() * 72)
    assert smallest_text >= 8


def test_figure_makes_panels() -> None:
    assert isinstance(figure()[1], Axes)
    assert figure(ncols=3)[1].shape == (3,)
    assert figure(ncols=2, nrows=2, sharey=True)[1].shape == (2, 2)


def test_figure_refuses() -> None:
    with pytest.raises(
        ValueError, match="unknown width 'huge': choose one of half, full, wide"
    ):
        figure("huge")
    for options in ({"height": 0}, {"ncols": 0}, {"nrows": -1}):
        with pytest.raises(ValueError, match="cannot be drawn"):
            figure(**options)  # type: ignore[call-overload]


def test_band_is_a_line_and_a_shade_of_its_color() -> None:
    _, ax = figure()
    line = band(ax, [0, 1], [2, 1], [1, 0], [3, 2], "loss", linewidth=3)
    (shade,) = ax.collections
    assert line.get_label() == "loss" and line.get_linewidth() == 3
    assert to_rgb(shade.get_facecolor()[0][:3]) == to_rgb(line.get_color())  # type: ignore[index]
    with pytest.raises(ValueError, match="give four sequences of one length"):
        band(ax, [0, 1], [2, 1], [1, 0], [3], "loss")


@pytest.mark.parametrize("side", ["left", "right"])
def test_reference_takes_no_color_from_the_data(side: str) -> None:
    _, ax = figure()
    line = reference(ax, 1.75, "goal", side=side)
    (drawn,) = ax.plot([0, 1], [1, 2])
    assert line.get_color() == INK and drawn.get_color() == PALETTE[0]
    assert [text.get_text() for text in ax.texts] == ["goal"]


def test_heatmap_names_its_cells_and_leaves_nan_empty() -> None:
    fig, ax = figure("half")
    image = heatmap(ax, [[0, 1], [2, np.nan]], rows=["a", "b"], columns=["c", "d"], high=4)
    assert image.get_clim() == (0, 4)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    cells = image.cmap(image.norm(image.get_array()))
    assert cells[1, 1, 3] == 0 and cells[0, 1, 3] == pytest.approx(
        0.04 + 0.96 * 64 / 255, abs=0.01
    )
    fig.colorbar(image, ax=ax)
    assert "data:image/png" in show(fig, alt=ALT, name="heat").svg


@pytest.mark.parametrize(
    ("values", "names", "says"),
    [
        ([1, 2], {}, r"needs a matrix, shape \(m, n\), not shape \(2,\)"),
        ([[1, 2]], {"rows": ["a", "b"]}, "2 row names for 1 rows"),
        ([[1, 2]], {"columns": ["a"]}, "1 column names for 2 columns"),
    ],
)
def test_heatmap_refuses(values: list[float], names: dict[str, list[str]], says: str) -> None:
    _, ax = figure()
    with pytest.raises(ValueError, match=says):
        heatmap(ax, values, **names)


def test_sequential_rises_from_nearly_nothing() -> None:
    colors = sequential(PALETTE[1])(np.linspace(0, 1, 5))
    assert np.all(np.diff(colors[:, 3]) > 0) and colors[0, 3] < 0.05 and colors[-1, 3] == 1


def draw(*ends: float, length: tuple[int, ...] = ()) -> tuple[Figure, Axes, bool]:
    fig, ax = figure()
    for k, end in enumerate(ends):
        last = length[k] if length else 10
        ax.plot([0, last], [100, end], label=f"line {k}")
    return fig, ax, label_lines(ax)


def test_labels_stand_at_the_ends_of_their_lines() -> None:
    fig, ax, direct = draw(0, 40, 80)
    assert direct and ax.get_legend() is None
    assert [text.get_text() for text in ax.texts] == ["line 0", "line 1", "line 2"]
    assert [text.xy for text in ax.texts] == [(10, 0), (10, 40), (10, 80)]  # type: ignore[attr-defined]
    assert ax.get_xlim()[1] == 10
    show(fig, alt=ALT, name="labels")


def test_labels_of_close_lines_do_not_overlap() -> None:
    fig, ax, direct = draw(50, 51, 0)
    assert direct
    fig.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert boxes[0].y0 < boxes[1].y0  # in the order of the lines


def test_a_legend_where_labels_would_mislead() -> None:
    for fig_ax in (draw(*[50 + k / 10 for k in range(8)]), draw(0, 50, length=(10, 5))):
        _, ax, direct = fig_ax
        assert not direct and ax.get_legend() is not None and not ax.texts


def test_labels_need_lines() -> None:
    _, ax = figure()
    ax.plot([0, 1], [0, 1])
    with pytest.raises(ValueError, match="no line has a label"):
        label_lines(ax)


def test_spread_moves_no_more_than_it_must() -> None:
    assert _spread([0, 100], 12) == [0, 100]
    assert _spread([10, 10], 12) == [4, 16]
    assert _spread([20, 0, 18], 12) == [25, 0, 13]
    placed = _spread([5, 3, 4, 40, 41], 10)
    assert np.all(np.diff(sorted(placed)) >= 10 - 1e-9)
    assert np.mean(placed) == pytest.approx(np.mean([5, 3, 4, 40, 41]))
