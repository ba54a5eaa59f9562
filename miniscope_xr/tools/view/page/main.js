// The page: which cards are open, and the theme.

import { Panel } from "./panel.js";
import { Wizard } from "./prepare.js";
import { Server } from "./server.js";

const by = (id) => document.getElementById(id);
const server = new Server();
const panels = new Map();
const { open, found, folder, kinds } = await server.ask("start");

async function show(path) {
  by("start-said").textContent = "opening ...";
  try {
    const card = await server.post("open", { path });
    if (!panels.has(card.card)) {
      const panel = new Panel(card, { server, kinds, template: by("panel") });
      panels.set(card.card, panel);
      by("panels").append(panel.root);
      panel.choose(0);
      panel.look();
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

for (const { path, said } of found) {
  const item = document.createElement("li");
  const link = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: path });
  link.addEventListener("click", () => show(path));
  item.append(link, ` ${said}`);
  by("found").append(item);
}
if (!found.length) by("found").append(Object.assign(document.createElement("li"), { textContent: `no card in a reader, no .img file in ${folder}` }));
for (const path of open) await show(path);
