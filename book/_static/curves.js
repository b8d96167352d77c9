// Point at a figure's curves: the nearest one stands out, and its value is written beside it.
// The figures are complete without this script. What it reads (data-panels on the svg element,
// data-curve and data-axes on its groups) is written by posttrain.core.figures.svg_curves.
(() => {
  const REACH = 40; // how far from a curve the pointer may be, in the drawing's points
  const SVG = "http://www.w3.org/2000/svg";

  const valueAt = ([, scale, start, step], place) => {
    const value = (place - start) / step;
    return scale === "log" ? 10 ** value : value;
  };

  // The step between two CSS pixels says which digits a reader can tell apart.
  const written = (axis, place) => {
    const value = valueAt(axis, place);
    if (axis[1] === "log") return String(Number(value.toPrecision(2)));
    const digits = Math.abs(valueAt(axis, place + 1) - value);
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6))
      return value.toExponential(1);
    const places = Math.min(6, Math.max(0, Math.round(-Math.log10(digits || 1))));
    return value.toLocaleString("en-US", {
      minimumFractionDigits: places,
      maximumFractionDigits: places,
    });
  };

  function pointsOf(group) {
    const points = [];
    const path = group.querySelector(":scope > path");
    for (const [, x, y] of (path?.getAttribute("d") ?? "").matchAll(/[ML] ?(-?[\d.]+) (-?[\d.]+)/g))
      points.push([Number(x), Number(y)]);
    return points;
  }

  // Distance from a place to the nearest part of a curve, and the curve's point nearest to it.
  function nearest(points, x, y) {
    let far = Infinity;
    let best = points[0];
    points.forEach(([x1, y1], i) => {
      const [x0, y0] = points[Math.max(0, i - 1)];
      const square = (x1 - x0) ** 2 + (y1 - y0) ** 2;
      const along = square ? ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / square : 0;
      const part = Math.min(1, Math.max(0, along));
      const distance = Math.hypot(x - x0 - part * (x1 - x0), y - y0 - part * (y1 - y0));
      if (distance < far) {
        far = distance;
        best = part > 0.5 ? [x1, y1] : [x0, y0];
      }
    });
    return { far, best };
  }

  function follow(svg) {
    const box = svg.closest(".pt-figure");
    const panels = JSON.parse(svg.dataset.panels);
    const curves = [...svg.querySelectorAll("[data-curve]")]
      .map((group) => ({ group, points: pointsOf(group) }))
      .filter(({ points }) => points.length);
    if (!box || !curves.length) return;
    const readout = document.createElement("div");
    readout.className = "pt-readout";
    readout.ariaHidden = "true"; // the figure's label says what is to be seen
    readout.hidden = true;
    box.append(readout);
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("class", "pt-dot");
    dot.setAttribute("r", "3.5");

    const leave = () => {
      box.classList.remove("pt-pointing");
      readout.hidden = true;
      dot.remove();
    };
    const move = (event) => {
      const toScreen = svg.getScreenCTM();
      if (!toScreen) return;
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(toScreen.inverse());
      const found = curves
        .map((curve) => ({ ...curve, ...nearest(curve.points, x, y) }))
        .reduce((a, b) => (b.far < a.far ? b : a));
      if (found.far > REACH) return leave();
      const [px, py] = found.best;
      const panel = panels[Number(found.group.dataset.axes)];
      for (const { group } of curves) group.classList.toggle("pt-nearest", group === found.group);
      box.classList.add("pt-pointing");
      dot.setAttribute("cx", px);
      dot.setAttribute("cy", py);
      svg.append(dot);
      const axes = [written(panel.x, px), written(panel.y, py)];
      readout.textContent =
        `${found.group.dataset.curve}: ${panel.x[0]} ${axes[0]}, ${panel.y[0]} ${axes[1]}`;
      readout.hidden = false;
      const at = new DOMPoint(px, py).matrixTransform(toScreen);
      const frame = box.getBoundingClientRect();
      const left = at.x - frame.left + 12;
      const room = frame.width - readout.offsetWidth - 4;
      readout.style.left = `${box.scrollLeft + Math.max(4, Math.min(left, room))}px`;
      const top = at.y - frame.top - readout.offsetHeight - 12;
      readout.style.top = `${top > 0 ? top : at.y - frame.top + 14}px`;
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
  }

  document.querySelectorAll("svg[data-panels]").forEach(follow);
})();
