// Masks as arrays of 0 and 1, row after row, and as run lengths.

/** A mask from COCO's run lengths (down the columns, background first). */
export function fromRle({ size: [height, width], counts }) {
  const mask = new Uint8Array(height * width);
  let at = 0;
  counts.forEach((count, run) => {
    if (run % 2)
      for (let i = at; i < at + count; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    at += count;
  });
  return mask;
}

/** COCO's run lengths of a mask. */
export function toRle(mask, width, height) {
  const counts = [];
  let value = 0;
  let length = 0;
  for (let x = 0; x < width; x++)
    for (let i = x; i < mask.length; i += width) {
      if (mask[i] !== value) {
        counts.push(length);
        value = mask[i];
        length = 0;
      }
      length++;
    }
  return { size: [height, width], counts: [...counts, length] };
}

/** Any array of small numbers as pairs of value and length; for the history, where most is the same. */
export function pack(array) {
  const runs = [];
  for (let start = 0, end; start < array.length; start = end) {
    for (end = start + 1; array[end] === array[start]; ) end++;
    runs.push(array[start], end - start);
  }
  return Uint32Array.from(runs);
}

export function unpack(runs, length) {
  const array = new Uint8Array(length);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) array.fill(runs[i], at, (at += runs[i + 1]));
  return array;
}

export const UNTOUCHED = 0;
export const ADDED = 1;
export const ERASED = 2;

/** The model's mask with what was drawn by hand. */
export function combined(model, touched) {
  return model.map((value, i) => (touched[i] === UNTOUCHED ? value : touched[i] === ADDED ? 1 : 0));
}

export function area(mask) {
  let sum = 0;
  for (const value of mask) sum += value;
  return sum;
}

/** [left, top, width, height] of what a mask covers; all 0 if nothing. */
export function boundingBox(mask, width) {
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
  mask.forEach((value, i) => {
    if (!value) return;
    const x = i % width;
    const y = Math.floor(i / width);
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  });
  return right < 0 ? [0, 0, 0, 0] : [left, top, right - left + 1, bottom - top + 1];
}

/** The border between mask and background along the pixels' edges, in the picture's coordinates. */
export function outline(mask, width, height) {
  const path = new Path2D();
  for (let y = 0; y < height; y++)
    for (let x = 0, i = y * width; x < width; x++, i++) {
      const value = mask[i];
      if (value !== (x ? mask[i - 1] : 0)) edge(path, x, y, x, y + 1);
      if (value !== (y ? mask[i - width] : 0)) edge(path, x, y, x + 1, y);
      if (value && x === width - 1) edge(path, width, y, width, y + 1);
      if (value && y === height - 1) edge(path, x, height, x + 1, height);
    }
  return path;
}

function edge(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}
