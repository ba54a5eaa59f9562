// One card on the page: its film, the line under it, its cells, and what the check found.

import { Cells } from "./cells.js";
import { MAPS } from "./colours.js";
import { clock } from "./drawing.js";
import { Files } from "./files.js";
import { lines } from "./findings.js";
import { Film } from "./film.js";
import { Line } from "./line.js";
import { change, Picture, reals } from "./picture.js";
import { drags, middle } from "./shapes.js";

const RESTS = 200; // ms without another frame asked for

export class Panel {
  /** `server` is asked for everything; `template` is the panel of index.html. */
  constructor(card, { server, template }) {
    this.card = card;
    this.server = server;
    this.root = template.content.cloneNode(true).firstElementChild;
    this.part = (name) => this.root.querySelector(`.${name}`);
    this.row = 0;
    this.playing = false;
    this.picture = new Picture(this.part("picture"), this.part("marks"));
    this.line = new Line(this.part("line"), (row) => this.go(row));
    this.cells = new Cells({
      server, canvas: this.part("traces"), list: this.part("shapes"), progress: this.part("progress"), dff: this.part("dff"),
      save: this.part("save"), file: this.part("keep"), said: (text) => this.say(text),
      redraw: () => {
        this.picture.shapes = this.cells?.shapes || [];
        this.picture.drawMarks();
      },
    });
    this.files = new Files({ server, form: this.part("write"), said: this.part("written") });
    this.describe();
    this.listen();
  }

  redraw() {
    this.line.draw();
    this.cells.draw();
  }

  /** Nobody looks any more: nothing goes on. */
  end() {
    this.playing = false;
    clearTimeout(this.lingering);
    for (const { running } of [this, this.cells, this.files]) running?.abort();
  }

  describe() {
    this.part("name").textContent = this.card.name;
    this.part("name").title = this.card.path;
    this.root.setAttribute("aria-label", this.card.path);
    const which = this.part("recording");
    for (const { number, frames } of this.card.recordings) which.add(new Option(`${number} (${frames} frames)`, number));
    this.part("which").hidden = this.card.recordings.length === 1;
    for (const name of Object.keys(MAPS)) this.part("colours").add(new Option(name, name));
    for (const [name, value] of Object.entries({ layout: this.card.layout, ...this.card.settings })) {
      const pair = ["dt", "dd"].map((tag) => document.createElement(tag));
      pair[0].textContent = name;
      pair[1].textContent = value;
      this.part("settings").append(...pair);
    }
  }

  listen() {
    const on = (name, event, does) => this.part(name).addEventListener(event, does);
    on("recording", "change", (event) => this.choose(Number(event.target.value)));
    on("play", "click", () => this.toggle());
    on("back", "click", () => this.step(-1));
    on("on", "click", () => this.step(1));
    on("row", "change", (event) => this.go(Number(event.target.value)));
    on("colours", "change", (event) => {
      this.picture.colours = event.target.value;
      this.picture.draw();
    });
    on("auto", "change", (event) => {
      this.picture.auto = event.target.checked;
      if (this.picture.values) this.present(this.picture.values, this.range);
    });
    for (const [name, k] of [["low", 0], ["high", 1]]) {
      on(name, "input", (event) => {
        if (!Number.isFinite(event.target.valueAsNumber)) return;
        this.part("auto").checked = this.picture.auto = false;
        this.picture.range[k] = event.target.valueAsNumber;
        this.picture.draw();
      });
    }
    on("larger", "click", () => this.picture.scale(this.picture.zoom * 1.4));
    on("smaller", "click", () => this.picture.scale(this.picture.zoom / 1.4));
    on("fit", "click", () => this.picture.fit());
    new ResizeObserver(() => this.picture.fitted && this.picture.fit()).observe(this.part("seen"));
    on("grid", "change", (event) => {
      this.picture.grid = event.target.checked;
      this.picture.drawMarks();
    });
    on("change", "change", () => this.changes());
    for (const name of ["kind", "from", "to"]) on(name, "change", () => this.project());
    const tool = () => this.part("tool").value;
    on("add", "click", () => this.cells.add(middle(tool(), this.about.width, this.about.height)));
    drags(this.part("picture"), {
      at: (event) => this.picture.at(event), tool, over: (at) => this.tell(at), made: (shape) => this.cells.add(shape),
      grows: (shape) => {
        this.picture.shapes = [...this.cells.shapes, { ...shape, colour: "#ffffff" }];
        this.picture.drawMarks();
      },
      ended: () => this.cells.redraw(),
    });
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  tell(at) {
    this.pixel = at;
    const value = at && this.picture.values?.[at[1] * this.about.width + at[0]];
    this.part("pixel").textContent = at ? `x ${at[0]}, y ${at[1]}: ${value === undefined ? "" : +value.toFixed(2)}` : "";
  }

  key(event) {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.altKey || event.metaKey) return;
    const second = Math.round(this.about.fps);
    const does = {
      " ": () => this.toggle(), ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
      PageUp: () => this.step(-10 * second), PageDown: () => this.step(10 * second), Home: () => this.go(0),
      End: () => this.go(this.about.frames - 1), "+": () => this.picture.scale(this.picture.zoom * 1.4),
      "-": () => this.picture.scale(this.picture.zoom / 1.4), 0: () => this.picture.fit(), d: () => this.part("change").click(),
    }[event.key];
    if (!does || (event.key === " " && event.target.matches("button, summary"))) return;
    event.preventDefault();
    does();
  }

  // -- what is looked at ----------------------------------------------------------------------------

  /** Show a recording; the picture first, what takes longer behind it. */
  async choose(number) {
    this.playing = false;
    this.running?.abort();
    this.about = this.card.recordings[number];
    const { frames, width, height, status, warnings } = this.about;
    this.film = new Film(this.server, this.card.card, this.about);
    const facts = `${status}, ${frames} frames of ${width}x${height} px`;
    this.part("facts").textContent = facts;
    this.part("warnings").replaceChildren(...warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    this.part("row").max = this.part("from").max = this.part("to").max = frames - 1;
    this.part("from").value = 0;
    this.part("to").value = frames - 1;
    this.part("kind").value = "film";
    this.part("change").checked = false;
    this.rest = null;
    this.picture.resize(width, height);
    const several = this.card.recordings.length > 1 ? `-${number}` : "";
    this.cells.show(this.film.which(), this.about, this.card.name.replace(/\.img$/i, "") + several);
    this.files.show(this.film.which(), this.about, this.card);
    this.line.show(frames, null);
    await this.go(0);
    try {
      const { fps } = await this.server.ask("rate", this.film.which());
      if (this.about.number !== number) return;
      this.about.fps = fps ?? this.about.fps;
      this.part("facts").textContent = `${facts} at ${this.about.fps.toFixed(2)} frames/s`;
      const about = await this.server.ask("line", this.film.which());
      if (this.about.number !== number) return;
      this.line.show(frames, about);
      this.part("legend").textContent = this.line.legend();
      await this.files.offer();
    } catch (error) {
      this.say(error.message);
    }
  }

  say(text) {
    this.part("said").textContent = text;
  }

  /** Show values; `range` is theirs, where they have one. */
  present(values, range) {
    this.range = range;
    this.picture.show(values, range);
    if (this.picture.auto) {
      this.part("low").value = +this.picture.range[0].toFixed(2);
      this.part("high").value = +this.picture.range[1].toFixed(2);
    }
    if (this.pixel) this.tell(this.pixel);
  }

  shown(frame) {
    this.row = frame.row;
    this.present(this.rest ? change(frame.pixels, this.rest) : frame.pixels, this.rest?.range);
    const notes = `${frame.whole ? "" : ", lacks buffers"}${this.rest ? ", dF/F" : ""}`;
    const said = `${clock(frame.ms / 1000)}, frame ${frame.row} of ${this.about.frames} (number ${frame.number})${notes}`;
    this.part("where").textContent = said;
    this.part("picture").setAttribute("aria-label", said);
    if (this.root.getRootNode().activeElement !== this.part("row")) this.part("row").value = frame.row;
    this.line.at(frame.row, said);
    this.cells.at(frame.row);
  }

  step(by) {
    this.playing = false;
    this.buttons();
    this.go(this.row + by);
  }

  /** Show a row; of several asked for while one is on its way, the last. */
  async go(row) {
    if (!Number.isFinite(row)) return;
    this.row = this.wanted = Math.min(Math.max(Math.round(row), 0), this.about.frames - 1);
    this.part("kind").value = "film";
    this.running?.abort();
    if (this.going) return;
    this.going = true;
    for (let done = false; !done; ) {
      const [film, wanted] = [this.film, this.wanted];
      try {
        const frame = await film.one(wanted);
        done = film === this.film && wanted === this.wanted;
        if (film === this.film) this.shown(frame);
        if (done) {
          this.say("");
          this.linger();
        }
      } catch (error) {
        done = true;
        this.say(error.message);
      }
    }
    this.going = false;
  }

  /** Fetch what is around once one stays: the next frame of one who scrubs does not wait for what is not looked at. */
  linger() {
    clearTimeout(this.lingering);
    const film = this.film;
    this.lingering = setTimeout(() => film === this.film && film.ahead(this.row).catch(() => {}), RESTS);
  }

  toggle() {
    this.playing = !this.playing;
    this.buttons();
    if (!this.playing) return;
    if (this.row >= this.about.frames - 1) this.row = 0;
    this.part("kind").value = "film";
    const film = this.film;
    let last = null;
    let at = this.row;
    const tick = (now) => {
      if (!this.playing || film !== this.film) return;
      last ??= now;
      // a film that waits for the card does not jump when it comes
      const frame = film.now(Math.floor(at));
      film.ahead(Math.floor(at)).catch((error) => {
        this.playing = false;
        this.buttons();
        this.say(error.message);
      });
      if (frame) {
        if (frame.row !== this.row || !this.picture.values) this.shown(frame);
        at += ((now - last) / 1000) * this.about.fps * Number(this.part("speed").value);
        if (at >= this.about.frames) {
          this.playing = false;
          this.buttons();
          this.go(this.about.frames - 1);
          return;
        }
      }
      last = now;
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  buttons() {
    this.part("play").textContent = this.playing ? "❚❚" : "▶";
    this.part("play").setAttribute("aria-label", this.playing ? "pause" : "play");
  }

  /** Show a projection of the frames from one to another, growing while it is computed. */
  async project() {
    const kind = this.part("kind").value;
    this.running?.abort();
    if (kind === "film") {
      this.go(this.row);
      return;
    }
    this.playing = false;
    this.buttons();
    const running = (this.running = new AbortController());
    const [start, stop] = [Number(this.part("from").value), Number(this.part("to").value) + 1];
    try {
      await this.server.stream("projection", { ...this.film.which(), kind, start, stop }, ({ frames, of, image, last }) => {
        if (running.signal.aborted) return;
        this.present(reals(image));
        const said = `${this.part("kind").selectedOptions[0].text} of ${frames} frames${last ? "" : ` of ${of} so far`}`;
        this.part("where").textContent = said;
        this.part("picture").setAttribute("aria-label", said);
        this.say("");
      }, running.signal);
    } catch (error) {
      if (!running.signal.aborted) this.say(error.message);
    }
  }

  /** Show the film as its change from the resting picture, or as it is again. */
  async changes() {
    const { film } = this;
    this.rest = null;
    this.part("auto").checked = this.picture.auto = true; // a contrast of grey values says nothing about a change
    if (this.part("change").checked) {
      try {
        const { image, dark, low, high } = await this.server.ask("resting", film.which());
        if (film !== this.film || !this.part("change").checked) return;
        this.rest = { image: reals(image), dark, range: [low, high] };
      } catch (error) {
        this.part("change").checked = false;
        this.say(error.message);
        return;
      }
    }
    if (this.playing) return; // the next frame shows it
    this.go(this.row);
  }

  async look() {
    const list = this.part("findings");
    const go = (recording, row) => {
      if (this.about.number !== recording) {
        this.part("recording").value = recording;
        this.choose(recording);
      }
      this.step(row - this.row);
    };
    try {
      const { findings } = await this.server.ask("findings", this.film.which());
      list.replaceChildren(...lines(findings, this.card.recordings.length > 1, go));
    } catch (error) {
      list.replaceChildren(Object.assign(document.createElement("li"), { textContent: error.message }));
    }
  }
}
