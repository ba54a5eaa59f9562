// The line under the film: where one is, frames lost and frames that lack buffers, battery, focus and drops.

import { Backdrop, curve, extent, themed } from "./drawing.js";

const CURVES = { battery: ["blue", "--accent"], focus: ["grey", "--soft"], drops: ["red", "--lost"] };
const BAND = { lost: 14, partial: 28 };

const several = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

export class Line {
  /** `moved(row)` is called when a person chooses another row. */
  constructor(canvas, moved) {
    this.canvas = canvas;
    this.back = new Backdrop(canvas, (pen, width, height) => this.paint(pen, width, height));
    this.count = 1;
    this.row = 0;
    this.about = null;
    const choose = (event) => {
      const share = (event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth;
      moved(Math.round(Math.min(Math.max(share, 0), 1) * (this.count - 1)));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      choose(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && choose(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(count, about) {
    Object.assign(this, { count, about });
    this.canvas.setAttribute("aria-valuemax", count - 1);
    this.draw();
  }

  at(row, said) {
    this.row = row;
    this.canvas.setAttribute("aria-valuenow", row);
    this.canvas.setAttribute("aria-valuetext", said);
    if (this.wide) this.back.mark(this.x(row), this.ink, 2);
  }

  x(row) {
    return this.count > 1 ? (row / (this.count - 1)) * (this.wide - 2) + 1 : 1;
  }

  draw() {
    this.wide = this.canvas.clientWidth;
    this.ink = themed(this.canvas, "--ink");
    this.back.draw(this.x(this.row), this.ink, 2);
  }

  paint(pen, width, height) {
    const x = (row) => this.x(row);
    pen.fillStyle = themed(this.canvas, "--raised");
    pen.fillRect(0, 0, width, BAND.partial + 2);
    if (this.about) {
      pen.fillStyle = themed(this.canvas, "--lost");
      for (const [row] of this.about.lost) pen.fillRect(x(row) - 1, 1, 2, BAND.lost - 2);
      pen.fillStyle = themed(this.canvas, "--partial");
      for (const row of this.about.partial) pen.fillRect(x(row) - 1, BAND.lost + 1, 2, BAND.partial - BAND.lost - 2);
      const xs = this.about.rows.map(x);
      for (const [name, { values }] of Object.entries(this.about.curves)) {
        pen.strokeStyle = themed(this.canvas, CURVES[name][1]);
        pen.lineWidth = 1.3;
        curve(pen, xs, values, BAND.partial + 8, height - 6, extent(values));
      }
    }
  }

  /** What is drawn, in words. */
  legend() {
    const { lost, partial, curves } = this.about;
    const frames = lost.reduce((sum, [, n]) => sum + n, 0);
    const said = [
      frames ? `red: ${several(frames, "frame")} lost in ${several(lost.length, "place")}` : "no frames lost",
      partial.length ? `orange: ${several(partial.length, "frame")} ${partial.length === 1 ? "lacks" : "lack"} buffers` : "",
    ];
    for (const [name, { values, units }] of Object.entries(curves)) {
      const [low, high] = extent(values);
      if (Number.isFinite(low)) said.push(`${CURVES[name][0]} line: ${name} ${+low.toFixed(2)} to ${+high.toFixed(2)} ${units}`.trim());
    }
    return said.filter(Boolean).join(" · ");
  }
}
