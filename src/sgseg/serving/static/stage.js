// What is seen: the X-ray, its layers, and the letters for the patient's sides.

import { outline } from "./masks.js";

const ORANGE = [230, 159, 0]; // the lesion; with the next two from the palette of Okabe and Ito
const BLUE = [86, 180, 233]; // added by correction
const PURPLE = [204, 121, 167]; // taken away by correction
const RAMP = [[91, 42, 134], [226, 87, 76], [253, 231, 37]]; // probability 0, ½, 1
const UNCERTAIN = [120, 200, 255];
const DIFFERENCE_OPACITY = 0.6;
const FINE = 16; // pixels for each cell of a grid of attention, which is interpolated before it is coloured

/** What both panes look at: `x`, `y` is the pane's centre as a share of the picture; zoom 1 fits. */
export class View {
  constructor() {
    this.reset();
  }

  reset() {
    Object.assign(this, { zoom: 1, x: 0.5, y: 0.5 });
  }
}

export class Pane {
  constructor(canvas, view) {
    this.canvas = canvas;
    this.view = view;
    this.layers = null;
    this.placed = { canvas: blank(0, 0) }; // the picture as it was drawn last, see `picture`
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /**
   * Layers: { picture, level, windowWidth, sides, opacity }, and if they are to be seen
   * { heat, attention, mask, difference, contour }
   */
  show(layers) {
    this.layers = layers;
    this.draw();
  }

  /** CSS pixels for one of the picture's. */
  get scale() {
    const { width, height } = this.layers.picture;
    const fit = Math.min(this.canvas.clientWidth / width, this.canvas.clientHeight / height);
    return fit * this.view.zoom;
  }

  /** Where an event is in the picture. */
  locate(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.layers.picture;
    return {
      x: this.view.x * width + (event.clientX - box.left - box.width / 2) / this.scale,
      y: this.view.y * height + (event.clientY - box.top - box.height / 2) / this.scale,
    };
  }

  draw() {
    const { canvas, view, layers } = this;
    const ratio = window.devicePixelRatio || 1;
    resize(canvas, Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio));
    if (!layers || !canvas.width) return;
    const context = canvas.getContext("2d");
    const { width, height } = layers.picture;
    const { scale } = this;
    const left = canvas.clientWidth / 2 - view.x * width * scale;
    const top = canvas.clientHeight / 2 - view.y * height * scale;
    const place = [scale * ratio, 0, 0, scale * ratio, left * ratio, top * ratio];
    context.drawImage(this.picture(place), 0, 0);
    context.setTransform(...place);
    paintLayers(context, layers, 2 / scale);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (layers.sides) {
      const right = Math.min(left + width * scale, canvas.clientWidth);
      paintSides(context, Math.max(left, 0), right, Math.max(top, 0), 26);
    }
  }

  /** The picture in its place and through its window; kept, for shrinking a large film takes longer than the rest. */
  picture(place) {
    const { placed } = this;
    const { picture, level, windowWidth } = this.layers;
    const { width, height } = this.canvas;
    const how = [level, windowWidth, width, height, ...place].join();
    if (placed.picture === picture && placed.how === how) return placed.canvas;
    Object.assign(placed, { picture, how });
    resize(placed.canvas, width, height);
    const context = placed.canvas.getContext("2d", { willReadFrequently: true });
    context.setTransform(...place);
    paintPicture(context, picture);
    applyWindow(context, level, windowWidth);
    return placed.canvas;
  }
}

/** Empties a canvas; a new size costs more than wiping. */
function resize(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, { width, height });
  } else {
    const context = canvas.getContext("2d");
    context.resetTransform();
    context.clearRect(0, 0, width, height);
  }
}

function paintPicture(context, picture) {
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0);
}

function paintLayers(context, { heat, attention, mask, difference, contour, opacity }, lineWidth) {
  if (heat) context.drawImage(heat, 0, 0);
  context.globalAlpha = opacity;
  if (attention) context.drawImage(attention.picture, ...attention.place);
  if (mask) fill(context, mask, ORANGE);
  context.globalAlpha = DIFFERENCE_OPACITY;
  if (difference) {
    fill(context, difference.added, BLUE);
    fill(context, difference.taken, PURPLE);
  }
  context.globalAlpha = 1;
  if (contour) paintContour(context, contour, lineWidth);
}

function fill(context, path, colour) {
  context.fillStyle = rgb(colour);
  context.fill(path);
}

/** Orange on a dark line, so that it is seen on bone as well as on a heat. */
function paintContour(context, contour, lineWidth) {
  context.lineJoin = "round";
  for (const [colour, width] of [["#000a", 2 * lineWidth], [rgb(ORANGE), lineWidth]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(contour);
  }
}

/** "R" at the patient's right, which is the left of a picture hung the standard way, and "L" at the other. */
function paintSides(context, left, right, top, size) {
  context.font = `700 ${size}px system-ui, sans-serif`;
  context.textBaseline = "top";
  context.lineWidth = size / 6;
  context.lineJoin = "round";
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  for (const [letter, x, align] of [["R", left + size / 2, "left"], ["L", right - size / 2, "right"]]) {
    context.textAlign = align;
    context.strokeText(letter, x, top + size / 2);
    context.fillText(letter, x, top + size / 2);
  }
}

/** One case as a picture of its own size, for export. */
export async function painted(one) {
  const { width, height } = one;
  const canvas = blank(width, height);
  const context = canvas.getContext("2d");
  const contour = outline(one.mask(), height);
  paintPicture(context, await bitmapOf(one.picture));
  paintLayers(context, { mask: contour, contour, opacity: 0.3 }, Math.max(1, Math.min(width, height) / 240));
  if (hasSides(one)) paintSides(context, 0, width, 0, Math.max(12, Math.min(width, height) * 0.065));
  return canvas;
}

/** Whether left and right lie beside each other; not in a lateral view. */
export function hasSides(one) {
  return one.original.answer.laterality_source !== "none";
}

/** A PNG, ready to be drawn, its greys as they are in the file. */
export function bitmapOf(blob) {
  return createImageBitmap(blob, { colorSpaceConversion: "none" });
}

/** The bytes of a grey PNG, (width × height). */
export async function greysOf(blob) {
  const bitmap = await bitmapOf(blob);
  const context = blank(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const greys = new Uint8Array(bitmap.width * bitmap.height);
  for (let i = 0; i < greys.length; i++) greys[i] = data[4 * i];
  return greys;
}

/** Puts all that is on a canvas through a window; `level` and `width` in percent of the range of greys. */
function applyWindow(context, level, width) {
  if (level === 50 && width === 100) return; // as the picture is
  const low = 2.55 * (level - width / 2);
  const shades = Uint32Array.from({ length: 256 }, (_, grey) => {
    const shade = Math.max(0, Math.min(255, Math.round(((grey - low) * 100) / width)));
    return (shade << 16) | (shade << 8) | shade;
  });
  const image = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = (pixels[i] & 0xff000000) | shades[pixels[i] & 255];
  context.putImageData(image, 0, 0);
}

export function probabilityHeat(greys, width, height) {
  const shades = Uint32Array.from({ length: 256 }, (_, p) => packed(ramp(p / 255), Math.min(165, 1.4 * p)));
  return filled(width, height, (i) => shades[greys[i]]);
}

/** How near the probability is to one half. */
export function uncertaintyHeat(greys, width, height) {
  const shades = Uint32Array.from({ length: 256 }, (_, p) => packed(UNCERTAIN, 200 * (1 - Math.abs(p / 127.5 - 1))));
  return filled(width, height, (i) => shades[greys[i]]);
}

/** Where the model looked, as a share of the most; `map` holds the rows of a grid that fills `box`. */
export function attentionHeat(map, [top, left, bottom, right]) {
  const [rows, columns] = [map.length, map[0].length];
  const most = Math.max(...map.flat());
  const shades = Uint32Array.from({ length: 256 }, (_, share) => packed(ramp(share / 255), Math.min(255, 2 * share)));
  const picture = filled(columns * FINE, rows * FINE, (i) => {
    const [y, x] = [Math.floor(i / (columns * FINE)), i % (columns * FINE)].map((at) => (at + 0.5) / FINE - 0.5);
    return shades[Math.round((255 * between(map, y, (cells) => between(cells, x, (value) => value))) / most)];
  });
  return { picture, place: [left, top, right - left, bottom - top] };
}

/** Linear interpolation of `value` between the two items that `at` lies between; the ends go on. */
function between(items, at, value) {
  const floor = Math.floor(at);
  const [low, high] = [floor, floor + 1].map((i) => value(items[Math.max(0, Math.min(items.length - 1, i))]));
  return low + (at - floor) * (high - low);
}

function ramp(share) {
  const [low, high] = share < 0.5 ? [RAMP[0], RAMP[1]] : [RAMP[1], RAMP[2]];
  const part = 2 * share - (share < 0.5 ? 0 : 1);
  return low.map((channel, i) => channel + (high[i] - channel) * part);
}

/** A canvas of `colour(i)` for each pixel, as the 32 bits that `packed` gives. */
function filled(width, height, colour) {
  const canvas = blank(width, height);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** RGBA in the byte order of ImageData on little-endian machines, which all that browsers run on are. */
function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function rgb(colour) {
  return `rgb(${colour.join(" ")})`;
}

function blank(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}
