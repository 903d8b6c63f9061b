// The page: opens X-rays, shows one, lets it be corrected, and hands the results out.

import * as api from "./api.js";
import { Case, zonesOf } from "./cases.js";
import * as exports from "./exports.js";
import { area, combined, fromRle, outline } from "./masks.js";
import { listen, zoomAt } from "./pointer.js";
import { View, Pane, changes, greysOf, hasSides, probabilityHeat, tinted, uncertaintyHeat, windowed } from "./stage.js";

const $ = (id) => document.getElementById(id);
const SIDES = {
  assumed: "Sides assumed: hung the standard way",
  tagged: "Sides as the file’s tags say",
  none: "A lateral view has no sides",
};
const KEYS_OF_ZONES = ["7", "4", "1", "9", "6", "3"]; // as they lie on a number pad

const cases = [];
const view = new View();
const panes = { original: new Pane($("original"), view), corrected: new Pane($("corrected"), view) };
const zoneButtons = KEYS_OF_ZONES.map(makeZoneButton);
let current = null;
let shown = null; // of the current case: { greys, probability, picture, mask, originalMask, contour, … }
let tool = "move";
let question = null; // AbortController of the correction under way
let stroke = null; // what is being drawn: { touched }

// --- opening and choosing

async function open(files) {
  const first = cases.length;
  cases.push(...[...files].map((file) => new Case(file)));
  drawList();
  if (cases.length > first) await choose(cases[first]);
}

async function choose(one) {
  question?.abort();
  current = one;
  drawList();
  if (!one.state && !one.error) say(`Looking at ${one.name}`);
  await one.prepare();
  if (current !== one) return;
  view.reset();
  shown = one.state ? await loaded(one) : null;
  if (current !== one) return;
  drawAll();
  const next = cases[cases.indexOf(one) + 1];
  await next?.prepare();
  drawList();
}

async function loaded(one) {
  const greys = await greysOf(one.picture);
  const originalMask = fromRle(one.original.answer.mask);
  return { greys, picture: null, originalMask, original: look(one, originalMask), ...(await corrected(one)) };
}

/** What the current state of a case looks like. */
async function corrected(one) {
  const mask = one.mask();
  return { answer: one.state.answer, probability: null, mask, corrected: look(one, mask) };
}

function look(one, mask) {
  return { tint: tinted(mask, one.width, one.height), contour: outline(mask, one.width, one.height) };
}

// --- correcting

/** Asks with zones or words; what is asked last counts. */
async function correct(guide, began = performance.now()) {
  if (!current?.state) return;
  const one = current;
  question?.abort();
  question = new AbortController();
  $("report-problem").textContent = "";
  try {
    await one.correct(guide, question.signal);
    await refresh(one);
    performance.measure("correction", { start: began });
  } catch (error) {
    if (error.name === "AbortError") return;
    if (current === one) drawReport();
    $("report-problem").textContent = error.message;
  }
}

async function refresh(one) {
  if (current !== one) return;
  Object.assign(shown, await corrected(one));
  drawAll();
  say(`${summary(one)} ${one.state.answer.report}`);
}

function toggleZone(position) {
  if (!current?.state) return;
  const button = zoneButtons[position];
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  const zones = zoneButtons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.zone);
  correct({ zones });
}

async function step(by) {
  if (current?.state && current.step(by)) await refresh(current);
}

const drawing = {
  get tool() {
    return tool;
  },
  get brushSize() {
    return Number($("size").value);
  },
  setWindow(dx, dy) {
    $("width").value = Number($("width").value) + dx / 4;
    $("level").value = Number($("level").value) - dy / 4;
    drawWindow();
  },
  strokeStarts() {
    stroke = { touched: current.touched(), model: fromRle(current.state.answer.mask) };
    return stroke.touched;
  },
  stroked() {
    shown.mask = combined(stroke.model, stroke.touched);
    shown.corrected = { tint: tinted(shown.mask, current.width, current.height), contour: null };
    drawPanes();
  },
  strokeEnds() {
    current.draw(stroke.touched);
    stroke = null;
    refresh(current);
  },
  redraw() {
    panes.original.draw();
    panes.corrected.draw();
  },
};

// --- showing

function drawAll() {
  const problem = current?.error;
  $("empty").hidden = Boolean(current);
  $("problem").hidden = !problem;
  $("problem-text").textContent = problem?.message ?? "";
  $("force").hidden = problem?.code !== "not_applicable";
  $("title").textContent = current?.name ?? "See it, correct it";
  $("model").textContent = shown ? `${shown.answer.model.name} ${shown.answer.model.version}` : "";
  document.body.classList.toggle("ready", Boolean(shown));
  for (const control of document.querySelectorAll("main button, main input, aside button, aside input, aside textarea"))
    control.disabled = !shown && !control.closest("#problem");
  drawList();
  if (shown) {
    drawReport();
    drawWindow();
  } else {
    for (const pane of Object.values(panes)) pane.show(null);
    zoneButtons.forEach((button) => drawZone(button, null));
    $("report").value = $("report-problem").textContent = $("contradiction").textContent = "";
    $("facts").replaceChildren();
  }
  drawExports();
}

function drawReport() {
  const { answer } = current.state;
  zonesOf(answer).forEach((zone, i) => drawZone(zoneButtons[i], zone));
  $("report").value = answer.report;
  $("undo").disabled = current.at === 0;
  $("redo").disabled = current.at === current.states.length - 1;
  drawFacts(answer);
}

function drawZone(button, zone) {
  const percent = zone && zone.probability !== null ? `${Math.round(100 * zone.probability)} %` : "–";
  button.dataset.zone = zone?.name ?? "";
  button.setAttribute("aria-pressed", String(Boolean(zone?.infected)));
  button.setAttribute("aria-label", zone ? `${zone.name} zone, probability ${percent}` : "lung zone");
  button.querySelector(".percent").textContent = percent;
  button.style.setProperty("--probability", zone?.probability ?? 0);
}

function drawFacts(answer) {
  const total = current.width * current.height;
  const [added, taken] = [1, 0].map((value) =>
    shown.mask.reduce((sum, now, i) => sum + (now !== shown.originalMask[i] && now === value), 0),
  );
  const facts = {
    Lesion: `${percent(area(shown.mask) / total)} of the picture`,
    Changed: current.corrected ? `+${percent(added / total)} −${percent(taken / total)}` : "nothing yet",
    "Guided by": answer.guidance === "text" ? "your zones" : `the model (guidance ${answer.guidance})`,
    Uncertainty: answer.uncertainty.toFixed(2),
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([term, fact]) => [element("dt", term), element("dd", fact)]),
  );
  const says = answer.zones.length > 0;
  $("contradiction").textContent =
    says === area(shown.mask) > 0
      ? ""
      : says
        ? "The report names zones, but the mask is empty."
        : "There is a mask, but the report says no infection.";
}

function drawWindow() {
  const [level, width] = [Number($("level").value), Number($("width").value)];
  shown.picture = windowed(shown.greys, current.width, current.height, level, width);
  drawPanes();
}

async function drawPanes() {
  const one = current;
  const heat = await currentHeat(one);
  if (current !== one || !shown) return;
  const { picture } = shown;
  const opacity = Number($("opacity").value) / 100;
  const sides = hasSides(one);
  const comparing = $("compare").getAttribute("aria-pressed") === "true";
  const [mask, contour] = [$("show-mask").checked, $("show-contour").checked];
  const layers = ({ tint, contour: path }) => ({
    picture,
    sides,
    opacity,
    tint: mask ? tint : null,
    contour: contour ? path : null,
  });
  const { width, height } = one;
  const difference = comparing ? changes(shown.originalMask, shown.mask, width, height) : null;
  $("original-pane").hidden = !comparing;
  $("caption").textContent = comparing
    ? "Corrected: blue added, purple taken away"
    : SIDES[one.original.answer.laterality_source];
  if (comparing) panes.original.show(layers(shown.original));
  panes.corrected.show({ ...layers(shown.corrected), heat, difference });
  $("corrected").setAttribute("aria-label", `${one.name}, hung the standard way. ${summary(one)}`);
}

async function currentHeat(one) {
  const paint = $("show-probability").checked
    ? probabilityHeat
    : $("show-uncertainty").checked
      ? uncertaintyHeat
      : null;
  if (!paint) return null;
  const now = shown;
  now.probability ??= await greysOf(fromBase64(now.answer.probability_png));
  return paint(now.probability, one.width, one.height);
}

function drawList() {
  $("files").replaceChildren(
    ...cases.map((one) => {
      const button = element("button", "");
      const state = one.error ? "failed" : one.reviewed ? "reviewed" : one.corrected ? "corrected" : one.state ? "predicted" : "";
      button.type = "button";
      button.className = state;
      button.title = one.name;
      if (one === current) button.setAttribute("aria-current", "true");
      button.append(element("b", one.name), element("span", state));
      button.addEventListener("click", () => choose(one));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
  $("files").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

function drawExports() {
  const reviewed = cases.filter((one) => one.reviewed).length;
  $("reviewed").setAttribute("aria-pressed", String(Boolean(current?.reviewed)));
  $("reviewed-count").textContent = `Export all reviewed X-rays (${reviewed})`;
  for (const kind of ["coco", "training"]) document.querySelector(`[data-export=${kind}]`).disabled = !reviewed;
}

function summary(one) {
  return `Lesion ${percent(area(shown.mask) / (one.width * one.height))} of the picture.`;
}

function say(text) {
  $("live").textContent = text;
}

// --- reviewing and exporting

async function review() {
  if (!current?.state) return;
  current.reviewed = !current.reviewed;
  drawList();
  drawExports();
  const next = current.reviewed && cases[cases.indexOf(current) + 1];
  if (next) await choose(next);
}

async function take(kind) {
  const reviewed = cases.filter((one) => one.reviewed);
  const name = current && exports.stem(current);
  const makers = {
    mask: async () => [await exports.maskPng(current), `${name}_mask.png`],
    overlay: async () => [await exports.overlayPng(current), `${name}_overlay.png`],
    json: async () => [exports.json(current), `${name}.json`],
    coco: async () => [exports.coco(reviewed), "coco.json"],
    training: async () => [await exports.trainingFolder(reviewed), "annotated.zip"],
  };
  exports.save(...(await makers[kind]()));
}

// --- the page's parts

function makeZoneButton(key, position) {
  const button = element("button", ["Upper", "Middle", "Lower"][position % 3]);
  button.type = "button";
  button.className = "zone";
  button.append(element("span", "–"), element("kbd", key));
  button.querySelector("span").className = "percent";
  button.addEventListener("click", () => toggleZone(position));
  return button;
}

function layOutZones() {
  for (const level of [0, 1, 2]) $("zones").append(zoneButtons[level], zoneButtons[level + 3]);
}

function chooseTool(name) {
  tool = name;
  document.body.dataset.tool = name;
  for (const button of document.querySelectorAll("[data-tool]"))
    if (button !== document.body) button.setAttribute("aria-checked", String(button.dataset.tool === name));
}

function toggleCompare() {
  const button = $("compare");
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  drawPanes();
}

function toggleLayer(id) {
  $(id).checked = !$(id).checked;
  $(id).dispatchEvent(new Event("change"));
}

function zoom(factor) {
  if (!shown) return;
  if (factor) zoomAt(panes.corrected, view, factor);
  else view.reset();
  drawing.redraw();
}

function neighbour(by) {
  const next = cases[cases.indexOf(current) + by];
  if (next) choose(next);
}

const KEYS = {
  ArrowUp: () => neighbour(-1),
  ArrowDown: () => neighbour(1),
  Enter: review,
  v: () => chooseTool("move"),
  w: () => chooseTool("window"),
  b: () => chooseTool("brush"),
  e: () => chooseTool("erase"),
  "[": () => ($("size").value = Number($("size").value) - 4),
  "]": () => ($("size").value = Number($("size").value) + 4),
  "+": () => zoom(1.25),
  "-": () => zoom(0.8),
  0: () => zoom(null),
  c: toggleCompare,
  m: () => toggleLayer("show-mask"),
  k: () => toggleLayer("show-contour"),
  p: () => toggleLayer("show-probability"),
  u: () => toggleLayer("show-uncertainty"),
  r: () => $("report").select(),
  "?": () => $("help").showModal(),
};

function pressed(event) {
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const writing = event.target.matches("textarea, input:not([type=checkbox], [type=range])");
  if ((event.ctrlKey || event.metaKey) && !writing) {
    if (key === "z") step(event.shiftKey ? 1 : -1);
    else if (key === "y") step(1);
    else return;
  } else if (writing || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  } else if (key === "Enter" && event.target.matches("button, label, a")) {
    return; // it presses what has the focus
  } else if (key.startsWith("Arrow") && event.target.matches("input")) {
    return;
  } else if (KEYS_OF_ZONES.includes(key)) {
    toggleZone(KEYS_OF_ZONES.indexOf(key));
  } else if (KEYS[key] && (shown || ["?", "ArrowUp", "ArrowDown"].includes(key))) {
    KEYS[key]();
  } else {
    return;
  }
  event.preventDefault();
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

function fromBase64(text) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

// --- events

layOutZones();
chooseTool("move");
listen([panes.original, panes.corrected], view, drawing);

document.addEventListener("keydown", pressed);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer.files);
});
$("pick").addEventListener("change", () => {
  open($("pick").files);
  $("pick").value = "";
});
$("examples").addEventListener("click", async () => {
  try {
    await open(await api.examples());
  } catch (error) {
    say(error.message);
  }
});
$("force").addEventListener("click", async () => {
  await current.retry(true);
  await choose(current);
});
$("report-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const report = $("report").value.trim();
  if (report) correct({ report });
  else $("report-problem").textContent = "Write the zones, for example “lower right lung”, or “no infection.”";
});
$("report").addEventListener("keydown", (event) => {
  if (event.key === "Escape") drawReport();
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  $("report-form").requestSubmit();
});
$("reset").addEventListener("click", () => correct({}));
$("undo").addEventListener("click", () => step(-1));
$("redo").addEventListener("click", () => step(1));
$("zoom-in").addEventListener("click", () => zoom(1.25));
$("zoom-out").addEventListener("click", () => zoom(0.8));
$("zoom-fit").addEventListener("click", () => zoom(null));
$("compare").addEventListener("click", toggleCompare);
$("reviewed").addEventListener("click", review);
$("help-open").addEventListener("click", () => $("help").showModal());
$("window-reset").addEventListener("click", () => {
  [$("level").value, $("width").value] = [50, 100];
  drawWindow();
});
for (const button of document.querySelectorAll("[role=radio]"))
  button.addEventListener("click", () => chooseTool(button.dataset.tool));
for (const button of document.querySelectorAll("[data-export]"))
  button.addEventListener("click", () => take(button.dataset.export));
for (const id of ["level", "width"]) $(id).addEventListener("input", drawWindow);
$("opacity").addEventListener("input", () => drawPanes());
for (const id of ["show-mask", "show-contour"]) $(id).addEventListener("change", () => drawPanes());
for (const [id, other] of [
  ["show-probability", "show-uncertainty"],
  ["show-uncertainty", "show-probability"],
])
  $(id).addEventListener("change", () => {
    if ($(id).checked) $(other).checked = false; // one heat at a time can be read
    drawPanes();
  });
drawAll();
