// Preparing cards: pick the reader, read what is on the card and what will be written, type its id, wait, the next one.
// What is being written belongs to the server: a page that is loaded again shows the same progress.

const make = (name, given = {}, ...children) => {
  const node = Object.assign(document.createElement(name), given);
  node.append(...children);
  return node;
};
/** What can be typed, in brackets; a time is typed as people say it. */
function limits(choices, low, high, units) {
  if (choices) return "";
  if (high > 1e6) return units === "s" ? " (s, or 30min, 1h30m)" : "";
  return ` (${`${low} to ${high} ${units}`.trim()})`;
}
const EVERY = 3000; // ms between two looks at the readers
const WHILE_WRITING = 300;

export class Wizard {
  constructor(root, server) {
    Object.assign(this, { root, server });
    for (const name of ["pick", "card", "choose", "confirm", "state"]) this[name] = root.querySelector(`.${name}`);
    this.presets = {};
    this.again = null; // settings for the next card
    root.addEventListener("toggle", () => root.open && this.readers());
    this.pick.addEventListener("submit", (event) => this.on(event, () => this.look(this.pick.path.value, true)));
    this.choose.addEventListener("submit", (event) => this.on(event, () => this.plan()));
    this.choose.addEventListener("input", () => (this.confirm.hidden = true));
    this.choose.preset.addEventListener("change", () => this.fill(this.presets[this.choose.preset.value]?.words));
    this.choose.keep.addEventListener("click", (event) => this.on(event, () => this.keep()));
    this.choose.forget.addEventListener("click", (event) => this.on(event, () => this.forget()));
    this.confirm.addEventListener("submit", (event) => this.on(event, () => this.begin()));
    this.part("stop").addEventListener("click", (event) => this.on(event, () => this.server.post("stop")));
    this.part("next").addEventListener("click", (event) => this.on(event, () => this.next()));
    this.watch();
  }

  part(name) {
    return this.root.querySelector(`.${name}`);
  }

  tell(text) {
    this.part("told").textContent = text;
  }

  /** One thing at a time: a second click changes nothing while the first one is answered. */
  async on(event, act) {
    event.preventDefault();
    if (this.busy) return;
    this.busy = true;
    this.tell("");
    try {
      await act();
    } catch (error) {
      this.tell(error.message);
    }
    this.busy = false;
  }

  /** Show the cards in the readers for as long as one is to be picked. */
  async readers() {
    if (!this.root.open || this.pick.hidden || this.looking) return;
    this.looking = true;
    try {
      const { cards, presets, layouts } = await this.server.ask("cards");
      this.kept(presets);
      const known = [...this.pick.layout.options].map((option) => option.value);
      this.pick.layout.append(...layouts.filter((id) => !known.includes(id)).map((id) => new Option(id, id)));
      const said = JSON.stringify(cards);
      if (said !== this.listed) this.part("cards").replaceChildren(...this.lines(cards));
      this.listed = said;
    } catch (error) {
      this.tell(error.message);
    }
    this.looking = false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.readers(), EVERY);
  }

  lines(cards) {
    if (!cards.length) return [make("li", { textContent: "no card in a reader; put one in" })];
    return cards.map(({ path, said, no }) => {
      const link = make("button", { type: "button", className: "link", textContent: path, disabled: Boolean(no) });
      link.addEventListener("click", (event) => this.on(event, () => this.look(path, false)));
      return make("li", {}, link, ` ${said}${no ? `: ${no}` : ""}`);
    });
  }

  async look(path, image) {
    this.card.hidden = this.confirm.hidden = this.state.hidden = true;
    let seen = null;
    await this.server.stream("look", { path, image, layout: this.pick.layout.value }, (part) => {
      if (part.look) seen = part;
      else this.tell(part.of ? `looking at all of the card: ${Math.floor((100 * part.done) / part.of)} %` : "looking ...");
    });
    this.tell("");
    this.seen = seen;
    this.part("on-it").replaceChildren(...seen.said.map((line) => make("li", { textContent: line })));
    const unsure = !seen.told && !this.pick.layout.value;
    this.part("unsure").textContent = unsure
      ? `Nothing on this card tells which Miniscope it is for; ${seen.layout} is assumed. Choose above where it is another.`
      : "";
    this.part("fields").replaceChildren(...seen.settings.filter(({ used }) => used).map((each) => this.field(each)));
    this.card.hidden = false;
    this.fill(this.again);
    this.choose.querySelector("select, input").focus();
  }

  field({ name, raw, shown, text, units, choices, low, high }) {
    const input = choices
      ? make("select", {}, ...choices.map(([code, meaning]) => new Option(meaning === String(code) ? meaning : `${meaning} (code ${code})`, code)))
      : make("input", { autocomplete: "off", spellcheck: false, title: `${low} to ${high}${units ? ` ${units}` : ""}` });
    if (choices && !choices.some(([code]) => code === raw)) input.append(new Option(shown, raw));
    Object.assign(input, { name: `set-${name}`, value: String(raw) });
    input.dataset.was = input.value;
    return make("label", { title: text }, make("span", { textContent: name + limits(choices, low, high, units) }), input);
  }

  inputs() {
    return [...this.choose.querySelectorAll("[name^='set-']")];
  }

  /** NAME=VALUE of what was changed; `all` of them for a preset. */
  words(all = false) {
    return this.inputs()
      .filter((input) => all || input.value !== input.dataset.was)
      .map((input) => `${input.name.slice(4)}=${input.value}`);
  }

  fill(words) {
    for (const word of words || []) {
      const input = this.inputs().find(({ name }) => name === `set-${word.split("=", 1)[0]}`);
      if (input) input.value = word.slice(word.indexOf("=") + 1);
    }
    this.confirm.hidden = true;
  }

  async plan() {
    const plan = await this.server.post("plan", { look: this.seen.look, words: this.words() });
    this.part("rows").replaceChildren(...plan.settings.map(({ name, now, new: then }) => make(
      "tr", { className: now === then ? "" : "changed" },
      make("th", { scope: "row", textContent: name }), make("td", { textContent: now }), make("td", { textContent: then }),
    )));
    const lines = [...plan.notes.map((note) => `note: ${note}`), plan.plan, ...plan.changes, `takes up to about ${plan.seconds} s`];
    this.part("changes").replaceChildren(...lines.map((line) => make("li", { textContent: line })));
    const { lost, recording, id } = this.seen;
    this.part("lost").textContent = lost ? `Will be lost: ${lost}` : "";
    this.part("give-up").hidden = !lost;
    this.part("give-up-id").textContent = recording;
    this.part("id").textContent = id;
    this.confirm.typed.value = this.confirm.given_up.value = "";
    this.confirm.given_up.required = Boolean(lost);
    this.confirm.hidden = false;
    this.confirm.scrollIntoView({ block: "nearest" });
    (lost ? this.confirm.given_up : this.confirm.typed).focus();
  }

  async begin() {
    const all = this.words(true);
    const given = { look: this.seen.look, typed: this.confirm.typed.value, given_up: this.confirm.given_up.value };
    await this.server.post("begin", given);
    this.again = all;
    this.watch();
  }

  /** Follow what is being written, by this page or another one. */
  async watch() {
    let now;
    try {
      now = await this.server.ask("preparing");
    } catch {
      return; // the page says already that the server has ended
    }
    if (now.phase === "idle" || this.dismissed === JSON.stringify(now)) return;
    const running = now.phase === "running";
    this.root.open = true;
    this.pick.hidden = this.card.hidden = true;
    this.state.hidden = false;
    this.part("whom").textContent = `${now.card}, card ${now.id}`;
    const bar = this.part("bar-of-it");
    bar.hidden = this.part("stop").hidden = !running;
    Object.assign(bar, { max: now.of || 1, value: now.done });
    this.part("next").hidden = running;
    this.part("next").textContent = now.phase === "done" && this.again ? "the next card, same settings" : "another card";
    this.part("saying").textContent = running ? `${now.what || "begins"} - leave the card in` : now.said;
    this.state.dataset.phase = now.phase;
    this.shown = JSON.stringify(now);
    if (running) setTimeout(() => this.watch(), WHILE_WRITING);
    else this.part("next").focus();
  }

  async next() {
    this.dismissed = this.shown;
    this.state.hidden = true;
    this.pick.hidden = false;
    this.listed = null;
    this.readers();
  }

  // -- presets

  kept(presets) {
    this.presets = presets;
    const chosen = this.choose.preset.value;
    this.choose.preset.replaceChildren(new Option("none", ""), ...Object.keys(presets).map((name) => new Option(name, name)));
    if (chosen in presets) this.choose.preset.value = chosen;
  }

  async keep() {
    const name = this.choose.called.value.trim();
    if (!name) throw new Error("give the preset a name");
    this.kept((await this.server.post("preset", { name, layout: this.seen.layout, words: this.words(true) })).presets);
    this.choose.preset.value = name;
  }

  async forget() {
    const name = this.choose.preset.value;
    if (name) this.kept((await this.server.post("preset", { name, words: [] })).presets);
  }
}
