// Shapes drawn on the picture, and the mean in each of them over the whole recording.

import { Backdrop, clock, curve, extent, themed } from "./drawing.js";

const COLOURS = ["#1f9e4d", "#d8572a", "#7a5cd6", "#c4338b", "#0f8b8d", "#a67c00", "#4b7bec", "#8e6c4a"];
const TALL = 70; // px of one trace
const REST = 0.2; // F0 is the 20th percentile of a trace

export class Cells {
  constructor({ server, canvas, list, progress, dff, save, file, redraw, said }) {
    Object.assign(this, { server, canvas, list, progress, dff, save, file, redraw, said });
    this.back = new Backdrop(canvas, (pen, width, height) => this.paint(pen, width, height));
    this.shapes = [];
    this.made = 0;
    dff.addEventListener("change", () => this.draw());
    save.addEventListener("click", () => this.download());
    file.addEventListener("click", () => this.write());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Begin with another recording. */
  show(which, about, name) {
    this.running?.abort();
    Object.assign(this, { which, about, name, row: 0 });
    this.shapes.splice(0);
    this.changed();
  }

  add(shape) {
    const number = this.made++;
    this.shapes.push({ name: `cell ${number + 1}`, colour: COLOURS[number % COLOURS.length], ...shape });
    this.changed();
    this.measure();
  }

  changed() {
    this.list.replaceChildren(...this.shapes.map((shape) => this.item(shape)));
    this.canvas.style.height = `${this.shapes.length * TALL + (this.shapes.length ? 16 : 0)}px`;
    this.redraw();
    this.draw();
  }

  item(shape) {
    const item = document.createElement("li");
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = shape.colour;
    item.append(swatch, shape.name);
    for (const key of "r" in shape ? ["x", "y", "r"] : ["x0", "y0", "x1", "y1"]) {
      const input = Object.assign(document.createElement("input"), { type: "number", value: shape[key], step: 1 });
      const label = document.createElement("label");
      label.append(key, input);
      input.setAttribute("aria-label", `${key} of ${shape.name}`);
      input.addEventListener("change", () => {
        shape[key] = Number(input.value);
        delete shape.values;
        this.redraw();
        this.measure();
      });
      item.append(label);
    }
    const gone = Object.assign(document.createElement("button"), { type: "button", textContent: "remove" });
    gone.setAttribute("aria-label", `remove ${shape.name}`);
    gone.addEventListener("click", () => {
      this.shapes.splice(this.shapes.indexOf(shape), 1);
      this.changed();
    });
    item.append(gone);
    return item;
  }

  /** Measure the shapes that have no trace yet, in one pass over the recording. */
  async measure() {
    this.running?.abort();
    const running = (this.running = new AbortController());
    const shapes = this.shapes.filter((shape) => !shape.whole);
    if (!shapes.length) return;
    for (const shape of shapes) Object.assign(shape, { coarse: [], values: [], whole: false });
    this.save.disabled = this.file.disabled = true;
    let drawn = 0;
    try {
      await this.server.stream("traces", { ...this.which, shapes: this.plain(shapes) }, (part) => {
        shapes.forEach((shape, k) => {
          if (part.coarse) part.rows.forEach((row, j) => shape.coarse.push([row, part.values[k][j]]));
          else shape.values.push(...part.values[k]);
        });
        const now = performance.now();
        if (now - drawn > 150) {
          drawn = now;
          this.progress.textContent = `${Math.round((100 * shapes[0].values.length) / this.about.frames)} %`;
          this.draw();
        }
      }, running.signal);
      for (const shape of shapes) shape.whole = true;
      this.progress.textContent = "";
      this.save.disabled = this.file.disabled = false;
      this.draw();
    } catch (error) {
      if (!running.signal.aborted) this.said(error.message);
    }
  }

  /** Rows and values of a shape as far as they are known, as F or as dF/F. */
  known(shape) {
    const through = shape.values?.length || 0;
    const later = (shape.coarse || []).filter(([row]) => row >= through);
    const rows = [...Array(through).keys(), ...later.map(([row]) => row)];
    const values = [...(shape.values || []), ...later.map(([, value]) => value)];
    return { rows, values: this.dff.checked ? change(values) : values };
  }

  at(row) {
    this.row = row;
    if (this.shapes.length && this.wide) this.back.mark(this.x(row), this.soft, 1);
  }

  x(row) {
    return this.about.frames > 1 ? (row / (this.about.frames - 1)) * (this.wide - 2) + 1 : 1;
  }

  draw() {
    if (!this.shapes.length || !this.about) return;
    this.wide = this.canvas.clientWidth;
    this.soft = themed(this.canvas, "--soft");
    this.back.draw(this.x(this.row), this.soft, 1);
  }

  paint(pen, width, height) {
    const x = (row) => this.x(row);
    this.shapes.forEach((shape, k) => {
      const { rows, values } = this.known(shape);
      const range = extent(values);
      const few = thinned(rows, values, width);
      pen.strokeStyle = shape.colour;
      pen.lineWidth = 1.2;
      curve(pen, few.rows.map(x), few.values, k * TALL + 16, (k + 1) * TALL - 4, range);
      pen.fillStyle = themed(this.canvas, "--ink");
      const unit = this.dff.checked ? "dF/F" : "grey value";
      const said = Number.isFinite(range[0]) ? `${range[0].toFixed(2)} to ${range[1].toFixed(2)} ${unit}` : "no values";
      pen.fillText(`${shape.name}: ${said}`, 4, k * TALL + 12);
    });
    pen.fillStyle = themed(this.canvas, "--soft");
    pen.fillText(clock(0), 2, height - 4);
  }

  /** The same as NetCDF, written where Python runs. */
  async write() {
    this.file.disabled = true;
    const names = this.shapes.map(({ name }) => name);
    try {
      await this.server.stream("cells", { ...this.which, shapes: this.plain(this.shapes), names, path: `${this.name}-cells.nc` }, ({ done, of, written }) => {
        this.progress.textContent = written ? `written: ${written}` : `${Math.round((100 * done) / of)} %`;
      });
    } catch (error) {
      this.said(error.message);
    }
    this.file.disabled = false;
  }

  plain(shapes) {
    return shapes.map(({ x, y, r, x0, y0, x1, y1 }) => ({ x, y, r, x0, y0, x1, y1 }));
  }

  download() {
    const columns = this.shapes.map((shape) => shape.values);
    const dffs = columns.map(change);
    const names = this.shapes.flatMap((shape) => [shape.name, `${shape.name} dF/F`]);
    const lines = [["frame", ...names].join(",")];
    for (let row = 0; row < this.about.frames; row++) {
      lines.push([row, ...columns.flatMap((column, k) => [column[row] ?? "", dffs[k][row] ?? ""])].join(","));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "traces.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

/** dF/F of a trace: its change from F0, the 20th percentile of what is known. */
export function change(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  const rest = sorted[Math.floor(REST * (sorted.length - 1))];
  return values.map((value) => (value === null || !rest ? null : (value - rest) / rest));
}

/** At most four points a pixel column: its first, smallest, largest and last, so that no peak is lost. */
function thinned(rows, values, width) {
  if (rows.length <= 4 * width) return { rows, values };
  const kept = [];
  const each = rows.length / width;
  for (let column = 0; column < width; column++) {
    const [start, stop] = [Math.floor(column * each), Math.floor((column + 1) * each)];
    let [low, high, gap] = [start, start, -1];
    for (let k = start; k < stop; k++) {
      if (values[k] === null) gap = k;
      else if (values[low] === null || values[k] < values[low]) low = k;
      if (values[k] !== null && (values[high] === null || values[k] > values[high])) high = k;
    }
    kept.push(...new Set([start, low, high, ...(gap < 0 ? [] : [gap]), stop - 1].sort((a, b) => a - b)));
  }
  return { rows: kept.map((k) => rows[k]), values: kept.map((k) => values[k]) };
}
