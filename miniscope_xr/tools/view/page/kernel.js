// The page in a notebook: one recording as a widget, which asks Python by the notebook's own messages.
// anywidget gives `model` (the messages) and `el` (where the widget stands); `page` is the text of index.html and
// style.css. Everything stands in a shadow root: several widgets, and the notebook, keep their own names and looks.

import { Panel } from "./panel.js";

const SILENT = 10_000; // ms
const HINT = "no word from Python yet: its kernel is busy, or has ended (then run this cell again)";

/** Asks as `Server` does. Each question has a number, and its answer has the same one. */
class Kernel {
  constructor(model, silent) {
    Object.assign(this, { model, silent, waiting: new Map(), asked: 0 });
    this.me = crypto.getRandomValues(new Uint32Array(2)).join("-"); // of several views of one widget
    this.heard = (answer, buffers) => this.answered(answer, buffers);
    model.on("msg:custom", this.heard);
  }

  answered({ id, error, ...answer }, buffers) {
    const asked = this.waiting.get(id);
    if (!asked) return;
    this.waiting.delete(id);
    clearTimeout(asked.timer);
    this.silent("");
    if (error) asked.fail(new Error(error));
    else asked.done({ ...answer, buffers });
  }

  send(ask, given) {
    const id = `${this.me}:${this.asked++}`;
    return new Promise((done, fail) => {
      const timer = setTimeout(() => this.silent(HINT), SILENT);
      this.waiting.set(id, { done, fail, timer });
      this.model.send({ id, ask, given });
    });
  }

  async ask(name, given = {}) {
    return (await this.send(name, given)).answer;
  }

  post(name, given) {
    return this.ask(name, given);
  }

  async frames(given) {
    const { answer, buffers } = await this.send("frames", given);
    const view = buffers[0]; // a DataView, or an ArrayBuffer in some notebooks
    return { ...answer, pixels: new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength) };
  }

  /** Part by part: the next one is asked for when the last has come, so that cells run in between. */
  async stream(name, given, each, signal) {
    let { answer, work } = await this.send(name, given);
    while (work !== undefined) {
      if (signal?.aborted) {
        this.model.send({ ask: "end", given: { work } });
        throw new Error("ended");
      }
      each(answer);
      ({ answer, work } = await this.send("next", { work }));
    }
  }

  end() {
    this.model.off("msg:custom", this.heard);
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
  }
}

/** Whether the notebook around is dark: JupyterLab and VS Code say so, of others the system does. */
function isDark() {
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return /dark|high-contrast$/.test(vscodeThemeKind);
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Show the widget; returns what ends it. */
export async function render({ model, el }, page) {
  const host = document.createElement("div");
  el.append(host);
  const root = host.attachShadow({ mode: "open" });
  const said = Object.assign(document.createElement("p"), { className: "said" });
  said.setAttribute("role", "status");
  root.append(Object.assign(document.createElement("style"), { textContent: page.style }), said);
  // keys pressed here are the film's: the notebook takes none of them for its own
  host.dataset.lmSuppressShortcuts = "true";
  for (const kind of ["keydown", "keypress", "keyup"]) host.addEventListener(kind, (event) => event.stopPropagation());

  const kernel = new Kernel(model, (text) => (said.textContent = text));
  let panel = null;
  const themed = () => {
    host.dataset.theme = isDark() ? "dark" : "light";
    panel?.redraw();
  };
  const watch = new MutationObserver(themed);
  watch.observe(document.body, { attributes: true });
  themed();
  const template = new DOMParser().parseFromString(page.html, "text/html").querySelector("#panel");
  kernel.ask("start").then(
    ({ card }) => {
      panel = new Panel(card, { server: kernel, template });
      root.append(panel.root);
      panel.choose(0).then(() => panel.look());
    },
    (error) => (said.textContent = error.message),
  );
  return () => {
    watch.disconnect();
    panel?.end();
    kernel.end();
    host.remove();
  };
}
