"""posttrain.core.figures.svg_curves: what a page reads in a figure is what was plotted."""

import json
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib
import pytest

from posttrain.core.figures.plotting import band, figure, heatmap, label_lines, reference, show

ALT = "Two curves fall from four nats to about one and a half."
TAG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def keep_the_style_to_each_test():
    with matplotlib.rc_context():
        yield


def drawn(fig: Any) -> ET.Element:
    svg = show(fig, alt=ALT, name="curves").svg
    return ET.fromstring(svg.replace("<svg ", f'<svg xmlns="{TAG[1:-1]}" ', 1))


def groups(root: ET.Element) -> list[ET.Element]:
    return [group for group in root.iter(f"{TAG}g") if "data-curve" in group.attrib]


def read(root: ET.Element, group: ET.Element) -> list[tuple[float, float]]:
    """Read a curve's points the way the page's script does."""
    panel = json.loads(root.attrib["data-panels"])[int(group.attrib["data-axes"])]
    path = group.find(f"{TAG}path")
    assert path is not None
    places = re.findall(r"[ML] ?(-?[\d.]+) (-?[\d.]+)", path.attrib["d"])
    values = []
    for place in places:
        pair = []
        for (_, scale, start, step), at in zip((panel["x"], panel["y"]), place, strict=True):
            value = (float(at) - start) / step
            pair.append(10**value if scale == "log" else value)
        values.append((pair[0], pair[1]))
    return values


def test_linear_values_can_be_read_back() -> None:
    fig, ax = figure()
    ax.plot([0, 10, 20], [4.0, 2.0, 2.5], label="first")
    band(ax, [0, 10, 20], [3.0, 1.0, 1.5], [2.5, 0.5, 1], [3.5, 1.5, 2], "second")
    reference(ax, 1.75, "goal")
    ax.set(xlabel="step", ylabel="loss (nats)")
    label_lines(ax)
    root = drawn(fig)
    first, second = groups(root)
    assert [g.attrib["data-curve"] for g in (first, second)] == ["first", "second"]
    assert "id" not in first.attrib
    for group, values in ((first, (4.0, 2.0, 2.5)), (second, (3.0, 1.0, 1.5))):
        x, y = zip(*read(root, group), strict=True)
        assert x == pytest.approx((0, 10, 20), abs=0.02)
        assert y == pytest.approx(values, abs=0.01)
    (panel,) = json.loads(root.attrib["data-panels"])
    assert panel["x"][:2] == ["step", "linear"] and panel["y"][:2] == ["loss (nats)", "linear"]


def test_logarithmic_values_of_two_panels_can_be_read_back() -> None:
    fig, (left, right) = figure(ncols=2)
    left.semilogx([1e-4, 1e-2], [1, 2], label="a")
    right.loglog([1, 1000], [1e-6, 1e3], label="b")
    right.invert_yaxis()
    root = drawn(fig)
    a, b = groups(root)
    assert [g.attrib["data-axes"] for g in (a, b)] == ["0", "1"]
    for (x, y), (wanted_x, wanted_y) in zip(read(root, a), [(1e-4, 1), (1e-2, 2)], strict=True):
        assert math.log10(x) == pytest.approx(math.log10(wanted_x), abs=0.005)
        assert y == pytest.approx(wanted_y, abs=0.01)
    ends = [(math.log10(x), math.log10(y)) for x, y in read(root, b)]
    assert ends == [pytest.approx((0, -6), abs=0.05), pytest.approx((3, 3), abs=0.05)]


@pytest.mark.parametrize("labels", [[], ["only one"], ["_hidden", "only one"]])
def test_a_figure_with_fewer_than_two_named_curves_is_left_alone(labels: list[str]) -> None:
    fig, ax = figure()
    ax.plot([0, 1], [0, 1])
    for label in labels:
        ax.plot([0, 1], [1, 0], label=label)
    root = drawn(fig)
    assert not groups(root) and "data-panels" not in root.attrib


def test_pictures_and_other_scales_are_left_alone() -> None:
    fig, (left, right) = figure(ncols=2)
    heatmap(left, [[0, 1], [1, 0]])
    right.set_yscale("symlog")
    right.plot([0, 1], [0, 1], label="a")
    right.plot([0, 1], [1, 0], label="b")
    assert "data-panels" not in drawn(fig).attrib


def test_labels_are_plain_text() -> None:
    fig, ax = figure()
    ax.plot([0, 1], [0, 1], label="with $\\sqrt{d}$")
    ax.plot([0, 1], [1, 0], label="1 < 2 & more")
    svg = show(fig, alt=ALT, name="labels").svg
    assert 'data-curve="1 &lt; 2 &amp; more"' in svg and 'data-curve="with \\sqrt{d}"' in svg
