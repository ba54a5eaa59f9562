// Shapes dragged on the picture: a circle from its centre, a box from corner to corner, a click a small circle.

const SMALL = 5; // px

/** Shape of a tool between two pixels. */
function between(tool, [x, y], [x1, y1]) {
  if (tool === "circle") return { x, y, r: Math.round(Math.hypot(x1 - x, y1 - y)) };
  return { x0: Math.min(x, x1), y0: Math.min(y, y1), x1: Math.max(x, x1), y1: Math.max(y, y1) };
}

/** One in the middle of a picture. */
export function middle(tool, width, height) {
  const [x, y] = [width >> 1, height >> 1];
  return between(tool, tool === "circle" ? [x, y] : [x - SMALL, y - SMALL], [x + SMALL, tool === "circle" ? y : y + SMALL]);
}

/** Listen on a canvas. `at(event)` is the pixel under the pointer, or null; `over(pixel)`, `grows(shape)`, `made(shape)`, `ended()` are called. */
export function drags(canvas, { at, tool, over, grows, made, ended }) {
  let from = null;
  canvas.addEventListener("pointerdown", (event) => {
    from = at(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const to = at(event);
    over(to);
    if (from && to) grows(between(tool(), from, to));
  });
  canvas.addEventListener("pointerup", (event) => {
    const to = at(event);
    if (from && to) made(from[0] === to[0] && from[1] === to[1] ? { x: to[0], y: to[1], r: SMALL } : between(tool(), from, to));
    from = null;
  });
  canvas.addEventListener("pointercancel", () => {
    from = null;
    ended();
  });
  canvas.addEventListener("pointerleave", () => over(null));
}
