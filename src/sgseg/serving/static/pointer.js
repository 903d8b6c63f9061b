// Mouse, pen and fingers on the panes: move, zoom, window, brush.

const NEAREST = 40;

/**
 * @param panes of class Pane; the last one can be drawn on.
 * @param view that they share.
 * @param host { tool, brushSize, setWindow(dx, dy), stroked(discs), strokeEnds(), strokeCancelled(), redraw() }
 */
export function listen(panes, view, host) {
  for (const pane of panes) listenTo(pane, pane === panes.at(-1), view, host);
}

function listenTo(pane, drawable, view, host) {
  const { canvas } = pane;
  const fingers = new Map();
  let last = null; // where the brush was, while it draws
  let pinch = null; // { spread, centre } of two fingers

  canvas.addEventListener("pointerdown", (event) => {
    if (!pane.layers) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    pinch = pinched(fingers);
    if (last) {
      last = null; // a second finger: it was no stroke but the beginning of a pinch
      host.strokeCancelled();
    } else if (drawable && ["brush", "erase"].includes(host.tool) && event.button === 0 && fingers.size === 1) {
      brush(pane.locate(event));
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, event);
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (last) brush(pane.locate(event));
    else if (pinch) movePinched();
    else if (host.tool === "window" || before.buttons === 2) host.setWindow(dx, dy);
    else move(dx, dy);
  });

  for (const type of ["pointerup", "pointercancel"])
    canvas.addEventListener(type, (event) => {
      fingers.delete(event.pointerId);
      pinch = pinched(fingers);
      if (last) host.strokeEnds();
      last = null;
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

  function brush(to) {
    host.stroked(discs(last ?? to, to, host.brushSize / 2 / pane.scale));
    last = to;
  }

  function move(dx, dy) {
    moveBy(pane, view, dx, dy);
    host.redraw();
  }

  function movePinched() {
    const { spread, centre } = pinch;
    pinch = pinched(fingers);
    moveBy(pane, view, pinch.centre.clientX - centre.clientX, pinch.centre.clientY - centre.clientY);
    zoomAt(pane, view, pinch.spread / spread, pinch.centre);
    host.redraw();
  }
}

/** Moves the picture by CSS pixels. */
export function moveBy(pane, view, dx, dy) {
  const { width, height } = pane.layers.picture;
  view.x = clamp(view.x - dx / pane.scale / width, 0, 1);
  view.y = clamp(view.y - dy / pane.scale / height, 0, 1);
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

/** Discs from one place to another, close enough to make a line. */
function discs(from, to, radius) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(radius / 2, 0.5)));
  return Array.from({ length: steps }, (_, i) => {
    const share = (i + 1) / steps;
    return { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share, radius };
  });
}

/** How far two fingers are apart and where their middle is; null unless there are two. */
function pinched(fingers) {
  if (fingers.size !== 2) return null;
  const [a, b] = fingers.values();
  return {
    spread: Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY)),
    centre: { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 },
  };
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}
