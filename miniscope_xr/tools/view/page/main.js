// The page: which cards are open, and the theme.

import { Panel } from "./panel.js";
import { Wizard } from "./prepare.js";
import { Server } from "./server.js";

const by = (id) => document.getElementById(id);
const server = new Server();
const panels = new Map();
const { open, folder } = await server.ask("start");

async function show(path) {
  by("start-said").textContent = "opening ...";
  try {
    const card = await server.post("open", { path });
    if (!panels.has(card.card)) {
      const panel = new Panel(card, { server, template: by("panel") });
      panels.set(card.card, panel);
      by("panels").append(panel.root);
      panel.choose(0).then(() => panel.look());
    }
    panels.get(card.card).part("name").focus();
    by("start-said").textContent = "";
    by("start").open = false;
  } catch (error) {
    by("start-said").textContent = error.message;
  }
}

by("open-form").addEventListener("submit", (event) => {
  event.preventDefault();
  show(by("path").value);
});

// a path dragged from a file manager or a terminal; browsers do not tell where a file itself lies
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const text = event.dataTransfer.getData("text/uri-list") || event.dataTransfer.getData("text/plain");
  const first = text.split("\n")[0].trim();
  if (first) show(first.startsWith("file://") ? decodeURIComponent(new URL(first).pathname) : first);
  else by("start-said").textContent = "a browser does not tell where a file lies: type or drag its path";
});

function theme(name) {
  document.documentElement.dataset.theme = name;
  window.dispatchEvent(new Event("resize"));
  for (const panel of panels.values()) panel.redraw();
}
const dark = window.matchMedia("(prefers-color-scheme: dark)");
theme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
by("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

new Wizard(by("prepare"), server);

server.stay((ended) => (by("start-said").textContent = ended));

async function offer() {
  const lines = [];
  try {
    for (const { path, shown, said } of (await server.ask("found")).found) {
      const link = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: shown });
      link.addEventListener("click", () => show(path));
      lines.push([link, ` ${said}`]);
    }
    if (!lines.length) lines.push([`no card in a reader, no .img file in ${folder}`]);
  } catch (error) {
    lines.push([error.message]);
  }
  by("found").replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.append(...line);
    return item;
  }));
}

for (const path of open) await show(path);
offer();
