// Boxes that scroll sideways can be reached with the Tab key and have a name; others cannot.
(() => {
  const KINDS = {
    pre: "Code",
    ".pst-scrollable-table-container, .pt-goals": "Table",
    ".math": "Formula",
    ".pt-figure": "Figure",
  };
  const NAMES = ["tabindex", "role", "aria-label", "data-scrolls"];

  // What to change about a box: [the element that scrolls, what it is called or null], or nothing.
  function change(box) {
    const scroller = box.matches("div.math") ? box.querySelector("mjx-container") : box;
    if (!scroller) return [];
    const wide = scroller.scrollWidth > scroller.clientWidth + 1;
    const may = box.matches("span.math") || /auto|scroll/.test(getComputedStyle(scroller).overflowX);
    const scrolls = wide && may;
    if (scrolls === "scrolls" in scroller.dataset) return [];
    const kind = Object.keys(KINDS).find((selector) => box.matches(selector));
    return [[scroller, scrolls ? `${KINDS[kind]}, scrolls sideways` : null]];
  }

  // The sizes change with the window, with what is unfolded and with each formula that is drawn.
  // All are read before anything is changed, so that the page is laid out once.
  const observer = new ResizeObserver((entries) => {
    for (const [scroller, name] of entries.flatMap(({ target }) => change(target))) {
      const values = name ? ["0", "group", name, "sideways"] : [];
      NAMES.forEach((attribute, i) =>
        name ? scroller.setAttribute(attribute, values[i]) : scroller.removeAttribute(attribute),
      );
    }
  });
  const selector = Object.keys(KINDS).map((kind) => `article :is(${kind})`).join(", ");
  document.querySelectorAll(selector).forEach((box) => observer.observe(box));
})();
