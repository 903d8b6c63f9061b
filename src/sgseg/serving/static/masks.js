// Masks as the places where they begin and end, ascending: [from, to, from, to, …], counted down the columns as in
// COCO's run lengths. So a film of nine megapixels costs no more than the outline of its lesion.

/** A mask from COCO's run lengths (background first). */
export function fromRle({ counts }) {
  let place = 0;
  const places = counts.map((count) => (place += count));
  return places.slice(0, places.length - (places.length % 2)); // what follows the last run is background
}

/** COCO's run lengths of a mask. */
export function toRle(mask, width, height) {
  const total = width * height;
  const places = mask.at(-1) === total ? mask : [...mask, total];
  return { size: [height, width], counts: places.map((place, i) => place - (places[i - 1] ?? 0)) };
}

export function union(one, other) {
  return combined(one, other, (inOne, inOther) => inOne || inOther);
}

export function without(one, other) {
  return combined(one, other, (inOne, inOther) => inOne && !inOther);
}

/** The places of which `holds` is true, by whether they are in the one and in the other mask. */
function combined(one, other, holds) {
  const places = [];
  let [i, j, was] = [0, 0, false];
  while (i < one.length || j < other.length) {
    const at = Math.min(one[i] ?? Infinity, other[j] ?? Infinity);
    if (one[i] === at) i++;
    if (other[j] === at) j++;
    const is = holds(i % 2 === 1, j % 2 === 1);
    if (is !== was) places.push(at);
    was = is;
  }
  return places;
}

export function area(mask) {
  let sum = 0;
  for (let i = 0; i < mask.length; i += 2) sum += mask[i + 1] - mask[i];
  return sum;
}

/** What discs { x, y, radius } cover: the pixels whose centres lie in one, at least the one that it is in. */
export function covered(discs, width, height) {
  const runs = [];
  for (const { x, y, radius } of discs) {
    const reach = Math.max(radius, 0.71);
    for (let column = Math.max(0, Math.floor(x - reach)); column < Math.min(width, x + reach); column++) {
      const half = Math.sqrt(reach ** 2 - (column + 0.5 - x) ** 2); // NaN beside the disc, where no run begins
      const from = Math.max(0, Math.ceil(y - half - 0.5));
      const to = Math.min(height, Math.floor(y + half - 0.5) + 1);
      if (from < to) runs.push([column * height + from, column * height + to]);
    }
  }
  const mask = [];
  for (const [from, to] of runs.sort((a, b) => a[0] - b[0]))
    if (from <= mask.at(-1)) mask[mask.length - 1] = Math.max(mask.at(-1), to);
    else mask.push(from, to);
  return mask;
}

/** [column, from, to] of each run, cut at the ends of the columns. */
function* runs(mask, height) {
  for (let i = 0; i < mask.length; i += 2)
    for (let from = mask[i], to; from < mask[i + 1]; from = to) {
      const column = Math.floor(from / height);
      const top = column * height;
      to = Math.min(mask[i + 1], top + height);
      yield [column, from - top, to - top];
    }
}

/** [left, top, width, height] of what a mask covers; all 0 if nothing. */
export function boundingBox(mask, height) {
  let [left, top, right, bottom] = [Infinity, Infinity, 0, 0];
  for (const [column, from, to] of runs(mask, height)) {
    left = Math.min(left, column);
    right = column + 1;
    top = Math.min(top, from);
    bottom = Math.max(bottom, to);
  }
  return right ? [left, top, right - left, bottom - top] : [0, 0, 0, 0];
}

/** A byte for each pixel, row after row, 255 in the mask. */
export function bytes(mask, width, height) {
  const pixels = new Uint8Array(width * height);
  for (const [column, from, to] of runs(mask, height))
    for (let row = from; row < to; row++) pixels[row * width + column] = 255;
  return pixels;
}

/**
 * A mask of the X-ray as it hangs in the file's own rows and columns: [mask, width, height].
 * As `Hanging.stored` of sgseg.imaging does it.
 */
export function stored(mask, width, height, { transpose, upside_down: upsideDown, mirror }) {
  const [storedWidth, storedHeight] = transpose ? [height, width] : [width, height];
  const pixels = new Uint8Array(width * height); // down the columns
  for (const [column, from, to] of runs(mask, height))
    for (let row = from; row < to; row++) {
      const x = mirror ? width - 1 - column : column;
      const y = upsideDown ? height - 1 - row : row;
      pixels[transpose ? y * storedHeight + x : x * storedHeight + y] = 1;
    }
  const places = [];
  for (let i = 0; i <= pixels.length; i++) if ((pixels[i] ?? 0) !== (pixels[i - 1] ?? 0)) places.push(i);
  return [places, storedWidth, storedHeight];
}

/** The border between mask and background along the pixels' edges, as closed lines in the picture's coordinates. */
export function outline(mask, height) {
  const ways = new Map(); // from a corner to the next ones, the mask on the right
  const corner = (x, y) => x * (height + 1) + y;
  const lead = (from, to) => (ways.has(from) ? ways.get(from).push(to) : ways.set(from, [to]));
  for (const [x, from, to] of runs(mask, height)) {
    lead(corner(x, from), corner(x + 1, from));
    lead(corner(x + 1, to), corner(x, to));
  }
  const nextColumn = mask.map((place) => place + height);
  for (const [x, from, to] of runs(without(mask, nextColumn), height)) lead(corner(x, to), corner(x, from));
  for (const [x, from, to] of runs(without(nextColumn, mask), height)) lead(corner(x, from), corner(x, to));

  const path = new Path2D();
  for (const [start, ends] of ways)
    while (ends.length) {
      let at = start;
      do {
        const x = Math.floor(at / (height + 1));
        const y = at - x * (height + 1);
        if (at === start) path.moveTo(x, y);
        else path.lineTo(x, y);
        at = ways.get(at).pop();
      } while (at !== start);
      path.closePath();
    }
  return path;
}
