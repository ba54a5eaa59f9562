// Writing a file: a video, an export, the report. It goes on while one looks, and can be ended.

export class Files {
  constructor({ server, form, said }) {
    Object.assign(this, { server, form, said, kinds: [], progress: form.querySelector("progress") });
    form.kind.addEventListener("change", () => this.named());
    form.path.addEventListener("input", () => (this.typed = true));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.write();
    });
    form.cancel.addEventListener("click", () => this.running?.abort());
  }

  /** Begin with another recording: all of it, under a name that says which. */
  show(which, about, card) {
    Object.assign(this, { which, about, card, typed: false });
    this.form.start.max = this.form.stop.max = about.frames - 1;
    this.form.start.value = 0;
    this.form.stop.value = about.frames - 1;
    this.named();
  }

  /** Ask once which kinds of files can be written. */
  async offer() {
    if (this.kinds.length) return;
    ({ kinds: this.kinds } = await this.server.ask("kinds", this.which));
    const options = this.kinds.map(({ name, text, missing }) => {
      const option = new Option(`${name}: ${text}${missing ? ` (first: ${missing})` : ""}`, name);
      option.disabled = Boolean(missing);
      return option;
    });
    this.form.kind.replaceChildren(...options);
    this.form.kind.value = this.kinds.find(({ missing }) => !missing)?.name;
    this.named();
  }

  named() {
    const chosen = this.kinds.find((kind) => kind.name === this.form.kind.value);
    if (!chosen) return; // not known yet
    const { suffix, animal, name } = chosen;
    this.form.animal.closest("label").hidden = !animal;
    for (const field of [this.form.start, this.form.stop]) field.disabled = name === "report";
    if (this.typed) return;
    const number = this.card.recordings.length > 1 ? `-${this.about.number}` : "";
    this.form.path.value = `${this.card.name.replace(/\.img$/i, "")}${number}${suffix}`;
  }

  async write() {
    if (this.running) return;
    const { kind, path, start, stop, animal } = this.form;
    const given = { ...this.which, kind: kind.value, path: path.value, start: Number(start.value), stop: Number(stop.value) + 1 };
    if (!animal.closest("label").hidden && animal.value) given.animal = animal.value;
    const running = (this.running = new AbortController());
    this.busy(true);
    try {
      await this.server.stream("write", given, ({ what, done, of, written }) => {
        Object.assign(this.progress, { max: of || 1, value: done });
        this.tell(written ? `written: ${written}` : `${what} ${done} of ${of}`);
      }, running.signal);
    } catch (error) {
      this.tell(running.signal.aborted ? "ended; nothing of it is left" : error.message);
    }
    this.running = null;
    this.busy(false);
  }

  busy(is) {
    this.progress.hidden = this.form.cancel.hidden = !is;
    this.form.go.disabled = is;
  }

  tell(text) {
    this.said.textContent = text;
  }
}
