// What can be taken away. Everything is made here; the service keeps nothing.

import { greyPng, zip } from "./archive.js";
import { area, boundingBox, toRle } from "./masks.js";
import { painted } from "./stage.js";

const LATERALITY = "patient"; // of every word the viewer shows or writes

export async function maskPng(one) {
  return greyPng(one.mask().map((value) => value * 255), one.width, one.height);
}

/** The X-ray with its mask, contour and side markers, at its own size. */
export async function overlayPng(one) {
  const canvas = await painted(one);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export function json(one) {
  return asJson(described(one));
}

function described(one) {
  const { answer } = one.state;
  const { mask: _, probability_png: __, ...rest } = answer;
  const mask = one.mask();
  return {
    ...rest,
    name: one.name,
    reviewed: one.reviewed,
    corrected: one.corrected,
    model_report: one.original.answer.report,
    lesion_fraction: area(mask) / mask.length,
    mask: toRle(mask, one.width, one.height),
  };
}

/** Object detection's usual format, its masks as uncompressed run lengths. */
export function coco(cases) {
  const names = fileNames(cases);
  const images = cases.map((one, i) => ({
    id: i + 1,
    file_name: `${names[i]}.png`,
    width: one.width,
    height: one.height,
    report: one.state.answer.report,
    laterality: LATERALITY,
  }));
  const annotations = cases.map((one, i) => {
    const mask = one.mask();
    return {
      id: i + 1,
      image_id: i + 1,
      category_id: 1,
      segmentation: toRle(mask, one.width, one.height),
      area: area(mask),
      bbox: boundingBox(mask, one.width),
      iscrowd: 1, // in COCO the sign of run lengths
    };
  });
  return asJson({
    info: { description: "Annotated with SGSeg; research only" },
    images,
    annotations: annotations.filter(({ area }) => area),
    categories: [{ id: 1, name: "lesion" }],
  });
}

/** A folder that `sgseg train` reads: train.csv, images and masks, as hung on the screen. */
export async function trainingFolder(cases) {
  const names = fileNames(cases);
  const rows = cases.map((one, i) =>
    [`images/${names[i]}.png`, `masks/${names[i]}.png`, one.state.answer.report, LATERALITY].map(quoted).join(","),
  );
  const table = ["image,mask,report,laterality", ...rows, ""].join("\r\n");
  const files = [["train.csv", new Blob([table])]];
  for (const [i, one] of cases.entries()) {
    files.push([`images/${names[i]}.png`, one.picture]);
    files.push([`masks/${names[i]}.png`, await maskPng(one)]);
  }
  return zip(files);
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
