// The picture: grey values through contrast and colours onto a canvas; zoom, grid, shapes on top.

import { table } from "./colours.js";

/** float32 numbers of an answer, in base64. */
export function reals(text) {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

/** dF/F of a frame: its change from the resting picture, as a share of that, or of `dark` where less light rests. */
export function change(values, { image, dark }) {
  const out = new Float32Array(values.length);
  for (let k = 0; k < out.length; k++) out[k] = (values[k] - image[k]) / Math.max(image[k], dark);
  return out;
}

/** Values below which a share `low` and `high` of all lie. */
export function percentiles(values, low, high) {
  if (values instanceof Uint8Array) return counted(values, low, high);
  const some = values.length > 20000 ? values.filter((_, k) => k % Math.ceil(values.length / 20000) === 0) : values;
  const sorted = Float32Array.from(some).filter(Number.isFinite).sort();
  if (!sorted.length) return [0, 1];
  const at = (share) => sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)];
  return [at(low), at(high)];
}

/** The same of whole numbers, by counting them. */
function counted(values, low, high) {
  const counts = new Uint32Array(256);
  for (let k = 0; k < values.length; k++) counts[values[k]]++;
  const at = (share) => {
    const rank = Math.min(Math.floor(share * values.length), values.length - 1);
    let value = 0;
    for (let below = counts[0]; below <= rank; below += counts[value]) value++;
    return value;
  };
  return [at(low), at(high)];
}

export class Picture {
  constructor(canvas, marks) {
    this.canvas = canvas;
    this.marks = marks;
    this.zoom = 1;
    this.colours = "grey";
    this.auto = true;
    this.range = [0, 255];
    this.grid = false;
    this.shapes = [];
  }

  resize(width, height) {
    Object.assign(this, { width, height });
    this.canvas.width = width;
    this.canvas.height = height;
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.values = null;
    this.fit();
  }

  fit() {
    if (!this.width) return;
    const room = this.canvas.parentElement.parentElement.clientWidth || this.width; // the screen is as wide as the picture
    const tall = 0.7 * window.innerHeight; // the line under it stays in sight
    this.scale(Math.max(Math.min(room / this.width, tall / this.height, 3), 0.25));
    this.fitted = true;
  }

  scale(zoom) {
    this.fitted = false;
    this.zoom = Math.min(Math.max(zoom, 0.25), 16);
    for (const canvas of [this.canvas, this.marks]) {
      canvas.style.width = `${Math.round(this.width * this.zoom)}px`;
      canvas.style.height = `${Math.round(this.height * this.zoom)}px`;
    }
    this.marks.width = Math.round(this.width * this.zoom);
    this.marks.height = Math.round(this.height * this.zoom);
    this.drawMarks();
  }

  /** Show grey values: a Uint8Array of a frame, or a Float32Array of a projection; `range` is theirs, where they have one. */
  show(values, range) {
    this.values = values;
    if (this.auto) this.range = range || percentiles(values, 0.005, 0.998);
    this.draw();
  }

  draw() {
    if (!this.values) return;
    const [low, high] = this.range;
    if (this.values instanceof Uint8Array) {
      const colour = table(this.colours, low, high);
      for (let k = 0; k < this.pixels.length; k++) this.pixels[k] = colour[this.values[k]];
    } else {
      const colour = table(this.colours, 0, 255);
      const scale = 255 / Math.max(high - low, 1e-9);
      for (let k = 0; k < this.pixels.length; k++) {
        this.pixels[k] = colour[Math.min(Math.max(Math.round((this.values[k] - low) * scale), 0), 255)];
      }
    }
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
  }

  drawMarks() {
    const pen = this.marks.getContext("2d");
    pen.clearRect(0, 0, this.marks.width, this.marks.height);
    pen.save();
    pen.scale(this.zoom, this.zoom);
    if (this.grid) {
      pen.strokeStyle = "rgba(255, 255, 255, 0.35)";
      pen.lineWidth = 1 / this.zoom;
      for (let at = 50; at < Math.max(this.width, this.height); at += 50) {
        pen.strokeRect(at, -1, 0, this.height + 2);
        pen.strokeRect(-1, at, this.width + 2, 0);
      }
    }
    pen.lineWidth = 2 / this.zoom;
    for (const shape of this.shapes) {
      pen.strokeStyle = shape.colour;
      pen.beginPath();
      // a pixel's number is its centre, half a pixel from its edge
      if ("r" in shape) pen.arc(shape.x + 0.5, shape.y + 0.5, Math.max(shape.r, 0.5), 0, 2 * Math.PI);
      else pen.rect(shape.x0, shape.y0, shape.x1 - shape.x0 + 1, shape.y1 - shape.y0 + 1);
      pen.stroke();
    }
    pen.restore();
  }

  /** Pixel under a pointer: [x, y], or null outside. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    return x >= 0 && y >= 0 && x < this.width && y < this.height ? [x, y] : null;
  }
}
