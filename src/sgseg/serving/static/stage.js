// What is seen: the X-ray, its layers, and the letters for the patient's sides.

import { outline } from "./masks.js";

const ORANGE = [230, 159, 0]; // the lesion; with the next two from the palette of Okabe and Ito
const BLUE = [86, 180, 233]; // added by correction
const PURPLE = [204, 121, 167]; // taken away by correction
const RAMP = [[91, 42, 134], [226, 87, 76], [253, 231, 37]]; // probability 0, ½, 1
const UNCERTAIN = [120, 200, 255];
const DIFFERENCE_OPACITY = 0.6;

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
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Layers: { picture, sides, opacity }, and if they are to be seen { heat, tint, difference, contour } */
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
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    if (!layers || !canvas.width) return;
    const context = canvas.getContext("2d");
    const { width, height } = layers.picture;
    const { scale } = this;
    const left = canvas.clientWidth / 2 - view.x * width * scale;
    const top = canvas.clientHeight / 2 - view.y * height * scale;
    context.setTransform(scale * ratio, 0, 0, scale * ratio, left * ratio, top * ratio);
    paintLayers(context, layers, 2 / scale);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (layers.sides) {
      const right = Math.min(left + width * scale, canvas.clientWidth);
      paintSides(context, Math.max(left, 0), right, Math.max(top, 0), 26);
    }
  }
}

function paintLayers(context, { picture, heat, tint, difference, contour, opacity }, lineWidth) {
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0);
  if (heat) context.drawImage(heat, 0, 0);
  context.imageSmoothingEnabled = false; // a mask ends where a pixel ends
  context.globalAlpha = opacity;
  if (tint) context.drawImage(tint, 0, 0);
  context.globalAlpha = DIFFERENCE_OPACITY;
  if (difference) context.drawImage(difference, 0, 0);
  context.globalAlpha = 1;
  if (contour) paintContour(context, contour, lineWidth);
}

/** Orange on a dark line, so that it is seen on bone as well as on a heat. */
function paintContour(context, contour, lineWidth) {
  context.lineCap = "round";
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
  const mask = one.mask();
  const picture = windowed(await greysOf(one.picture), width, height, 50, 100);
  const layers = { picture, tint: tinted(mask, width, height), contour: outline(mask, width, height), opacity: 0.3 };
  paintLayers(context, layers, Math.max(1, Math.min(width, height) / 240));
  if (hasSides(one)) paintSides(context, 0, width, 0, Math.max(12, Math.min(width, height) * 0.065));
  return canvas;
}

/** Whether left and right lie beside each other; not in a lateral view. */
export function hasSides(one) {
  return one.original.answer.laterality_source !== "none";
}

/** The bytes of a grey PNG, (width × height). */
export async function greysOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const context = blank(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const greys = new Uint8Array(bitmap.width * bitmap.height);
  for (let i = 0; i < greys.length; i++) greys[i] = data[4 * i];
  return greys;
}

/** The X-ray through a window; `level` and `width` in percent of the range of greys. */
export function windowed(greys, width, height, level, windowWidth) {
  const low = 2.55 * (level - windowWidth / 2);
  const shades = Uint32Array.from({ length: 256 }, (_, grey) => {
    const shade = Math.max(0, Math.min(255, Math.round(((grey - low) * 100) / windowWidth)));
    return 0xff000000 | (shade << 16) | (shade << 8) | shade;
  });
  return filled(width, height, (i) => shades[greys[i]]);
}

export function tinted(mask, width, height) {
  const ink = packed(ORANGE, 255);
  return filled(width, height, (i) => (mask[i] ? ink : 0));
}

/** What the correction added, in blue, and took away, in purple. */
export function changes(before, after, width, height) {
  const [added, taken] = [packed(BLUE, 255), packed(PURPLE, 255)];
  return filled(width, height, (i) => (before[i] === after[i] ? 0 : after[i] ? added : taken));
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
