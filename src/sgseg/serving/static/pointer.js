// Mouse, pen and fingers on the panes: move, zoom, window, brush.

import { ADDED, ERASED } from "./masks.js";

const NEAREST = 40;

/**
 * @param panes of class Pane; the last one can be drawn on.
 * @param view that they share.
 * @param host { tool, brushSize, setWindow(dx, dy), strokeStarts() -> touched array, stroked(), strokeEnds(), redraw() }
 */
export function listen(panes, view, host) {
  for (const pane of panes) listenTo(pane, pane === panes.at(-1), view, host);
}

function listenTo(pane, drawable, view, host) {
  const { canvas } = pane;
  const fingers = new Map();
  let stroke = null; // { touched, last }
  let spread = 0;

  canvas.addEventListener("pointerdown", (event) => {
    if (!pane.layers) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    spread = distance(fingers);
    const draws = drawable && ["brush", "erase"].includes(host.tool) && event.button === 0 && fingers.size === 1;
    if (draws) {
      const at = pane.locate(event);
      stroke = { touched: host.strokeStarts(), last: at };
      dab(stroke, at, pane, host);
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, event);
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (stroke) dab(stroke, pane.locate(event), pane, host);
    else if (fingers.size === 2) pinch();
    else if (host.tool === "window" || before.buttons === 2) host.setWindow(dx, dy);
    else move(dx, dy);
  });

  for (const type of ["pointerup", "pointercancel"])
    canvas.addEventListener(type, (event) => {
      fingers.delete(event.pointerId);
      spread = distance(fingers);
      if (stroke) host.strokeEnds();
      stroke = null;
    });

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!pane.layers) return;
      event.preventDefault();
      zoomAt(pane, view, Math.exp(-event.deltaY / 400), event);
      host.redraw();
    },
    { passive: false },
  );

  function move(dx, dy) {
    const { width, height } = pane.layers.picture;
    view.x = clamp(view.x - dx / pane.scale / width, 0, 1);
    view.y = clamp(view.y - dy / pane.scale / height, 0, 1);
    host.redraw();
  }

  function pinch() {
    const [a, b] = fingers.values();
    const now = distance(fingers);
    const centre = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
    if (spread) zoomAt(pane, view, now / spread, centre);
    spread = now;
    host.redraw();
  }
}

/** Zooms so that what is under the pointer stays there; without one, the pane's centre. */
export function zoomAt(pane, view, factor, point) {
  const before = point && pane.locate(point);
  view.zoom = clamp(view.zoom * factor, 0.5, NEAREST);
  if (!point) return;
  const after = pane.locate(point);
  const { width, height } = pane.layers.picture;
  view.x = clamp(view.x + (before.x - after.x) / width, 0, 1);
  view.y = clamp(view.y + (before.y - after.y) / height, 0, 1);
}

/** Discs from the last place to this one, close enough to make a line. */
function dab(stroke, to, pane, host) {
  const radius = host.brushSize / 2 / pane.scale;
  const { last, touched } = stroke;
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - last.x, to.y - last.y) / Math.max(radius / 2, 0.5)));
  const value = host.tool === "brush" ? ADDED : ERASED;
  for (let step = 1; step <= steps; step++) {
    const share = step / steps;
    const centre = { x: last.x + (to.x - last.x) * share, y: last.y + (to.y - last.y) * share };
    disc(touched, pane.layers.picture, centre, radius, value);
  }
  stroke.last = to;
  host.stroked();
}

/** Sets the pixels whose centres lie in a disc, at least the one that it is in. */
function disc(touched, { width, height }, { x, y }, radius, value) {
  const reach = Math.max(radius, 0.71);
  for (let row = Math.max(0, Math.floor(y - reach)); row < Math.min(height, y + reach); row++)
    for (let column = Math.max(0, Math.floor(x - reach)); column < Math.min(width, x + reach); column++)
      if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= reach) touched[row * width + column] = value;
}

function distance(fingers) {
  if (fingers.size !== 2) return 0;
  const [a, b] = fingers.values();
  return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}
