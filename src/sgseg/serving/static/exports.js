// What can be taken away. Everything is made here; the service keeps nothing.

import { crc32, greyPng, zip } from "./archive.js";
import { area, boundingBox, bytes, stored, toRle } from "./masks.js";
import { painted } from "./stage.js";

const LATERALITY = "patient"; // of every word the viewer shows or writes
const VALID_SHARE = 1 / 5;

/** The mask in the file's own rows and columns, so that it lies on the file's pixels in other programs. */
export function maskPng(one) {
  return asPng(...storedMask(one));
}

/** [mask, width, height] */
function storedMask(one) {
  return stored(one.mask(), one.width, one.height, one.original.answer.hanging);
}

function asPng(mask, width, height) {
  return greyPng(bytes(mask, width, height), width, height);
}

/** The X-ray with its mask, contour and side markers, as it hangs on the screen, at its own size. */
export async function overlayPng(one) {
  const canvas = await painted(one);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export function json(one) {
  return asJson(described(one));
}

function described(one) {
  const { mask: _, orientation: __, probability_png: ___, attention: ____, ...rest } = one.state.answer;
  const [mask, width, height] = storedMask(one);
  return {
    ...rest,
    name: one.name,
    reviewed: one.reviewed,
    corrected: one.corrected,
    model_report: one.original.answer.report,
    lesion_fraction: area(mask) / (width * height),
    orientation: "file",
    mask: toRle(mask, width, height),
  };
}

/** Object detection's usual format; its masks as uncompressed run lengths, in the files' own rows and columns. */
export function coco(cases) {
  const masks = cases.map(storedMask);
  const images = cases.map((one, i) => ({
    id: i + 1,
    file_name: one.name,
    sha256: one.imageId,
    width: masks[i][1],
    height: masks[i][2],
    report: one.state.answer.report,
    laterality: LATERALITY,
  }));
  const annotations = masks.map(([mask, width, height], i) => ({
    id: i + 1,
    image_id: i + 1,
    category_id: 1,
    segmentation: toRle(mask, width, height),
    area: area(mask),
    bbox: boundingBox(mask, height),
    iscrowd: 1, // in COCO the sign of run lengths
  }));
  return asJson({
    info: { description: "Annotated with SGSeg; research only" },
    images,
    annotations: annotations.filter(({ area }) => area),
    categories: [{ id: 1, name: "lesion" }],
  });
}

/** A folder that `sgseg train` reads: train.csv, valid.csv, images and masks, as hung on the screen. */
export async function trainingFolder(cases) {
  const names = fileNames(cases);
  const rows = cases.map((one, i) =>
    [`images/${names[i]}.png`, `masks/${names[i]}.png`, one.state.answer.report, LATERALITY].map(quoted).join(","),
  );
  const validates = await inValid(cases);
  const table = (lines) => new Blob([["image,mask,report,laterality", ...lines, ""].join("\r\n")]);
  const files = [["train.csv", table(rows.filter((_, i) => !validates[i]))]];
  if (validates.includes(true)) files.push(["valid.csv", table(rows.filter((_, i) => validates[i]))]);
  for (const [i, one] of cases.entries()) {
    files.push([`images/${names[i]}.png`, one.picture]);
    files.push([`masks/${names[i]}.png`, await asPng(one.mask(), one.width, one.height)]);
  }
  return zip(files);
}

/**
 * Which cases validate: about a fifth of the patients, at least one but not all. A patient's number decides, not
 * chance, so that exports agree and can be put together.
 */
async function inValid(cases) {
  const numbers = await Promise.all(cases.map(async (one) => crc32(new TextEncoder().encode(await one.patient()))));
  const ordered = [...new Set(numbers)].sort((a, b) => a - b);
  const below = ordered.filter((number) => number < VALID_SHARE * 2 ** 32).length;
  const valid = ordered.slice(0, Math.min(Math.max(below, 1), ordered.length - 1));
  return numbers.map((number) => valid.includes(number));
}

export function stem(one) {
  const plain = one.name.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9_-]+/g, "_").slice(0, 80);
  return plain.replace(/^_+$/, "") || "xray";
}

/** Plain names, each only once whatever its case. */
function fileNames(cases) {
  const taken = new Set();
  return cases.map((one) => {
    const base = stem(one);
    let name = base;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `${base}_${n}`;
    taken.add(name.toLowerCase());
    return name;
  });
}

function quoted(text) {
  return `"${text.replaceAll('"', '""')}"`;
}

function asJson(value) {
  return new Blob([JSON.stringify(value, null, 2), "\n"], { type: "application/json" });
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
