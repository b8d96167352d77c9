// Formulas in view are drawn at once. The others follow when the reader begins to move through the
// page, or after some seconds, a few at a time, so that the page answers while it is finished.
// Until a formula is drawn, custom.css keeps its place.
(() => {
  const FEW = 4;
  const LATER = 6000; // milliseconds
  const SIGNS = ["scroll", "wheel", "pointerdown", "keydown", "focusin"];
  const formulas = [...document.querySelectorAll(".math")];
  const idle = window.requestIdleCallback ?? ((then) => setTimeout(then, 20));
  const inView = (formula) => {
    const { top, bottom } = formula.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };
  const show = (some) => some.forEach((formula) => formula.classList.add("pt-drawn"));
  let waiting = [];

  // MathJax must see the size of the text around a formula: it decides how small an index may be.
  const size = (some) => some.forEach((formula) => formula.classList.add("pt-sized"));

  async function draw(some) {
    size(some);
    try {
      await MathJax.typesetPromise(some);
    } finally {
      show(some);
    }
  }

  // Those in view come first; the reader may be anywhere by now.
  async function drawMore() {
    if (!waiting.length) return;
    const next = waiting.filter(inView).slice(0, FEW);
    const some = next.length ? next : waiting.slice(0, FEW);
    waiting = waiting.filter((formula) => !some.includes(formula));
    await draw(some).catch(console.error);
    idle(drawMore, { timeout: 300 });
  }

  function begin() {
    SIGNS.forEach((sign) => removeEventListener(sign, begin));
    drawMore();
  }

  async function start() {
    await MathJax.startup.promise;
    const first = formulas.filter(inView);
    waiting = formulas.filter((formula) => !first.includes(formula));
    if (first.length) await draw(first);
    SIGNS.forEach((sign) => addEventListener(sign, begin, { passive: true }));
    setTimeout(begin, scrollY ? 0 : LATER);
  }

  // Where MathJax cannot be had, formulas are shown in TeX.
  start().catch(() => show(formulas));
  addEventListener("beforeprint", () => {
    const rest = waiting.splice(0);
    size(rest);
    try {
      window.MathJax?.typeset?.(rest);
    } catch {
      draw(rest).catch(console.error); // a font or a part of TeX must be loaded first
    }
    show(rest);
  });
})();
