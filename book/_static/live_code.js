// "Live code": nothing here asks for anything until the reader presses the button. Then thebe is
// loaded from the network, in one known version, and a session is started at mybinder.org.
(() => {
  const THEBE = "https://unpkg.com/thebe@0.9.3/lib/";
  const HASHES = {
    "index.js": "sha384-jD7u+icBMbuPUkzq2VCHol9Rd0VnPVjvTI8ZHQsQEZdbmH9gWMdD732B8Dli6Gej",
    "thebe.css": "sha384-/vmFaeKYqpCY10Pw3YHyNKd5UHb+SJbi1QVnaw8LLfVuYiT2noJEJ1uWmvwwRSRf",
  };

  const load = (name, tag, address, more) =>
    new Promise((done, fail) => {
      const options = { integrity: HASHES[name], crossOrigin: "anonymous", ...more };
      const element = Object.assign(document.createElement(tag), options);
      element.onload = done;
      element.onerror = () => fail(new Error(`${THEBE}${name} could not be loaded`));
      element[address] = THEBE + name;
      document.head.append(element);
    });

  // A cell is a <pre> with its code and a box for its output; those that the page hides are shown.
  function prepare(cells) {
    const inputs = [...document.querySelectorAll("article .cell .cell_input pre")];
    if (inputs.length !== cells.filter((code) => code === null).length)
      throw new Error("the page and its cells do not match");
    let at = 0;
    for (const code of cells) {
      let input = inputs[at];
      if (code === null) at += 1;
      else {
        const cell = Object.assign(document.createElement("div"), { className: "cell" });
        input = Object.assign(document.createElement("pre"), { textContent: code });
        cell.append(input);
        const next = inputs[at]?.closest(".cell");
        if (next) next.before(cell);
        else inputs.at(-1).closest(".cell").after(cell);
      }
      const cell = input.closest(".cell");
      cell.querySelector(".copybtn")?.remove();
      let output = cell.querySelector(".cell_output");
      if (!output) cell.append((output = document.createElement("div")));
      input.dataset.executable = "true";
      output.dataset.output = "";
    }
  }

  window.startLiveCode = async () => {
    const page = JSON.parse(document.getElementById("pt-live-code").textContent);
    if (document.querySelector(".pt-live-status")) return;
    const status = Object.assign(document.createElement("p"), { className: "pt-live-status" });
    status.role = "status";
    document.querySelector("article h1").after(status);
    const say = (text) => (status.textContent = `Live code: ${text}`);
    say("loading thebe and starting a session at mybinder.org. This needs the network and may "
      + "take some minutes.");
    try {
      await load("thebe.css", "link", "href", { rel: "stylesheet" });
      await load("index.js", "script", "src");
      prepare(page.cells);
      window.thebe.on("status", (_, { status, message }) => say(`${status}. ${message ?? ""}`));
      const { session } = await window.thebe.bootstrap({
        binderOptions: { repo: page.repository, ref: page.branch },
        kernelOptions: { kernelName: "python3", path: page.folder },
        mountRestartAllButton: false,
      });
      if (!session) throw new Error("mybinder.org started no session");
      say("ready. Run the cells from the first one on: each needs those before it.");
    } catch (error) {
      say(`this did not work: ${error.message}. The page is complete without it.`);
    }
  };
})();
