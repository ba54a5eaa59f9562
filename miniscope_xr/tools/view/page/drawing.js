// What the line and the traces share: a canvas as sharp as the screen, and colours of the theme.

export function sharp(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return { pen, width, height };
}

/** What `paint(pen, width, height)` draws on a canvas, kept, with a mark of now over it: playing paints nothing anew. */
export class Backdrop {
  constructor(canvas, paint) {
    Object.assign(this, { canvas, paint, kept: document.createElement("canvas") });
  }

  draw(x, colour, wide) {
    const { pen, width, height } = sharp(this.canvas);
    this.paint(pen, width, height);
    Object.assign(this.kept, { width: this.canvas.width, height: this.canvas.height });
    if (this.canvas.width && this.canvas.height) this.kept.getContext("2d").drawImage(this.canvas, 0, 0);
    this.mark(x, colour, wide);
  }

  /** Move the mark. */
  mark(x, colour, wide) {
    const { width, height } = this.canvas;
    if (!width || !height) return;
    const pen = this.canvas.getContext("2d");
    pen.save();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.drawImage(this.kept, 0, 0);
    const ratio = width / (this.canvas.clientWidth || width);
    pen.fillStyle = colour;
    pen.fillRect((x - wide / 2) * ratio, 0, wide * ratio, height);
    pen.restore();
  }
}

/** A colour of the theme around an element. */
export function themed(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

/** A length of time in s, as 1:02:03.4. */
export function clock(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const tenths = Math.round(Math.abs(seconds) * 10);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const two = (n) => String(n).padStart(2, "0");
  const end = rest.toFixed(1).padStart(4, "0");
  return (seconds < 0 ? "-" : "") + (hours ? `${hours}:${two(minutes)}:${end}` : `${minutes}:${end}`);
}

/** Lines through points (null is a gap) of `values` at `xs`, scaled into a band from `top` to `bottom`. */
export function curve(pen, xs, values, top, bottom, [low, high]) {
  pen.beginPath();
  let pen_down = false;
  values.forEach((value, k) => {
    if (value === null || !Number.isFinite(value)) {
      pen_down = false;
      return;
    }
    const y = high > low ? bottom - ((value - low) / (high - low)) * (bottom - top) : (top + bottom) / 2;
    if (pen_down) pen.lineTo(xs[k], y);
    else pen.moveTo(xs[k], y);
    pen_down = true;
  });
  pen.stroke();
}

/** Smallest and largest of the numbers in `values`. */
export function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}
