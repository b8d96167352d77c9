// How the search ranks what it finds; Sphinx puts this into its own scripts. Chapters explain, so
// they come before the glossary and the API pages, which repeat their words. Among chapters, one
// with headings that hold what was asked for comes first. A symbol comes first where its whole name
// was asked for, unless that is also a word of headings.
var Scorer = {
  score: ([docname, title, , description, score]) => {
    const asked = new URLSearchParams(location.search).get("q")?.trim() ?? "";
    const kind = description ?? "";
    // Modules are named for topics: who asks for "packing" wants the chapter.
    if (kind.startsWith("Python module")) return score - 10;
    if (kind.startsWith("Python")) return score;
    const begins = new RegExp(`(?<![\\w-])${asked.replace(/[^\w\s]/g, "\\$&")}`, "i");
    const page = score + (asked ? 3 * Scorer.headings(docname, begins) : 0);
    if (docname.startsWith("book/api/")) return page / 4;
    const repeats = docname === "book/glossary" || docname === "book/bibliography";
    return repeats && !begins.test(title) ? score / 30 : page;
  },
  // How many of a page's headings hold a pattern; more than five say no more.
  headings: (docname, pattern) => {
    const { alltitles, docnames } = Search._index;
    const found = Object.entries(alltitles).filter(
      ([heading, places]) =>
        pattern.test(heading) && places.some(([file]) => docnames[file] === docname),
    );
    return Math.min(found.length, 5);
  },
  objNameMatch: 11,
  objPartialMatch: 0,
  objPrio: { 0: 0, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
