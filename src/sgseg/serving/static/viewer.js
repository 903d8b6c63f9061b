// The page: opens X-rays, shows one, lets it be corrected, and hands the results out.

import * as api from "./api.js";
import { Case, zonesOf } from "./cases.js";
import * as exports from "./exports.js";
import { area, covered, fromRle, outline, union, without } from "./masks.js";
import { listen, moveBy, zoomAt } from "./pointer.js";
import { View, Pane, attentionHeat, bitmapOf, greysOf, hasSides, probabilityHeat, uncertaintyHeat } from "./stage.js";

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
let wanted = null; // the case that was chosen; the current one until it is there
let current = null;
let shown = null; // of the current case: { answer, picture, originalMask, original, mask, corrected, heat }
let tool = "move";
let question = null; // AbortController of the correction under way
let stroke = null; // the mask of what is being drawn

// --- opening and choosing

async function open(files) {
  const first = cases.length;
  cases.push(...[...files].map((file) => new Case(file)));
  drawList();
  if (cases.length > first) await choose(cases[first]);
}

async function choose(one) {
  wanted = one;
  $("notice").textContent = one.state || one.error ? "" : `Looking at ${one.name} …`;
  await one.prepare();
  const now = one.state ? await loaded(one) : null;
  if (wanted !== one) return;
  question?.abort();
  stroke = null;
  view.reset();
  [current, shown] = [one, now];
  $("notice").textContent = "";
  drawAll();
  if (shown) say(`${one.name}. ${summary(one)} ${one.state.answer.report}`);
  const next = cases[cases.indexOf(one) + 1];
  await next?.prepare();
  drawList();
}

async function loaded(one) {
  const originalMask = fromRle(one.original.answer.mask);
  const original = outline(originalMask, one.height);
  return { picture: await bitmapOf(one.picture), originalMask, original, ...corrected(one) };
}

/** What the current state of a case looks like. */
function corrected(one) {
  const mask = one.mask();
  return { answer: one.state.answer, mask, corrected: outline(mask, one.height) };
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
  Object.assign(shown, corrected(one));
  await drawAll();
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
    drawPanes();
  },
  stroked(discs) {
    stroke = union(stroke ?? [], covered(discs, current.width, current.height));
    shown.mask = (tool === "brush" ? union : without)(current.mask(), stroke);
    shown.corrected = outline(shown.mask, current.height);
    drawPanes();
  },
  strokeEnds() {
    if (!stroke) return; // another X-ray came while it was drawn
    current.draw(stroke, tool === "brush");
    stroke = null;
    refresh(current);
  },
  strokeCancelled() {
    if (!stroke) return;
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
  $("attention-layer").hidden = !current?.original?.answer.attention;
  drawList();
  drawExports();
  if (shown) {
    drawReport();
    return drawPanes();
  }
  for (const pane of Object.values(panes)) pane.show(null);
  zoneButtons.forEach((button) => drawZone(button, null));
  $("report").value = "";
  for (const id of ["report-problem", "contradiction", "facts", "caption"]) $(id).replaceChildren();
  $("original-pane").hidden = true;
  $("corrected").setAttribute("aria-label", "No X-ray is shown");
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
  button.ariaLabel = zone && `${zone.name} zone, probability ${percent}`;
  button.querySelector(".percent").textContent = percent;
  button.style.setProperty("--probability", zone?.probability ?? 0);
}

function drawFacts(answer) {
  const total = current.width * current.height;
  const { added, taken } = changes();
  const likely = answer.finding ? "likely" : "unlikely";
  const facts = {
    ...(answer.finding !== null && { Finding: `${likely}, ${answer.finding_probability.toFixed(2)}` }),
    Lesion: `${percent(area(shown.mask) / total)} of the picture`,
    Changed: current.corrected ? `+${percent(area(added) / total)} −${percent(area(taken) / total)}` : "nothing yet",
    "Guided by": answer.guidance === "text" ? "your zones" : `the model (guidance ${answer.guidance})`,
    Uncertainty: answer.uncertainty.toFixed(2),
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([term, fact]) => [element("dt", term), element("dd", fact)]),
  );
  const says = answer.zones.length > 0;
  $("contradiction").textContent =
    says === area(shown.mask) > 0 || !hasSides(current)
      ? ""
      : says
        ? "The report names zones, but the mask is empty."
        : "There is a mask, but the report says no infection.";
}

function changes() {
  return { added: without(shown.mask, shown.originalMask), taken: without(shown.originalMask, shown.mask) };
}

async function drawPanes() {
  const one = current;
  const heat = await currentHeat(one);
  if (current !== one || !shown) return;
  const { picture } = shown;
  const [level, windowWidth] = [Number($("level").value), Number($("width").value)];
  const opacity = Number($("opacity").value) / 100;
  const sides = hasSides(one);
  const comparing = $("compare").getAttribute("aria-pressed") === "true";
  const [mask, contour] = [$("show-mask").checked, $("show-contour").checked];
  const layers = (outlined) => ({
    picture,
    level,
    windowWidth,
    sides,
    opacity,
    mask: mask ? outlined : null,
    contour: contour ? outlined : null,
  });
  const { added, taken } = changes();
  const difference = comparing ? { added: outline(added, one.height), taken: outline(taken, one.height) } : null;
  const looked = currentAttention(one);
  $("original-pane").hidden = !comparing;
  $("caption").textContent = looked
    ? looked.caption
    : comparing
      ? "Corrected: blue added, purple taken away"
      : SIDES[one.original.answer.laterality_source];
  if (comparing) panes.original.show(layers(shown.original));
  panes.corrected.show({ ...layers(shown.corrected), heat, attention: looked?.heat, difference });
  const description = `${one.name}, hung the standard way. ${summary(one)} ${looked?.caption ?? ""}`;
  $("corrected").setAttribute("aria-label", description.trim());
}

/** Where the model looked: for the zone that is pointed at or focused, else for all by their probability. */
function currentAttention(one) {
  const { attention } = one.original.answer;
  if (!attention || !$("show-attention").checked) return null;
  const zone = (zoneButtons.find((b) => b.matches(":hover")) ?? zoneButtons.find((b) => b.matches(":focus-visible")))
    ?.dataset.zone;
  const map = zone ? attention.maps[zone] : weightedMean(attention.maps, shown.answer.zone_probabilities);
  const caption = `Attention: where the model looked for ${zone ? `the ${zone} zone` : "all zones"}`;
  return { caption, heat: attentionHeat(map, attention.box) };
}

async function currentHeat(one) {
  const paint = $("show-probability").checked
    ? probabilityHeat
    : $("show-uncertainty").checked
      ? uncertaintyHeat
      : null;
  if (!paint) return null;
  const { answer } = one.state;
  if (shown.heat?.answer !== answer || shown.heat.paint !== paint)
    shown.heat = { answer, paint, picture: heatOf(one, paint) };
  return shown.heat.picture;
}

async function heatOf(one, paint) {
  try {
    return paint(await greysOf(fromBase64(await one.probability())), one.width, one.height);
  } catch (error) {
    $("report-problem").textContent = error.message;
    return null;
  }
}

function drawList() {
  for (const one of cases.slice($("files").children.length)) $("files").append(makeListItem(one));
  cases.forEach((one, i) => {
    const button = $("files").children[i].firstChild;
    button.className = button.lastChild.textContent = stateOf(one);
    if (one === current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  $("files").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

function stateOf(one) {
  if (one.error) return "failed";
  if (one.reviewed) return "reviewed";
  if (one.corrected) return "corrected";
  return one.state ? "predicted" : "";
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
  if (!current?.state || wanted !== current) return; // a second Enter is meant for the next one
  current.reviewed = !current.reviewed;
  drawList();
  drawExports();
  say(`${current.name} ${current.reviewed ? "reviewed" : "not reviewed"}`);
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

function makeListItem(one) {
  const button = Object.assign(element("button", ""), { type: "button", title: one.name });
  button.append(element("b", one.name), element("span", ""));
  button.addEventListener("click", () => choose(one));
  const item = element("li", "");
  item.append(button);
  return item;
}

function makeZoneButton(key, position) {
  const button = element("button", ["Upper", "Middle", "Lower"][position % 3]);
  button.type = "button";
  button.className = "zone";
  button.append(element("span", "–"), element("kbd", key));
  button.querySelector("span").className = "percent";
  button.addEventListener("click", () => toggleZone(position));
  for (const event of ["mouseenter", "mouseleave", "focus", "blur"])
    button.addEventListener(event, () => {
      if (shown && $("show-attention").checked) drawPanes();
    });
  return button;
}

function layOutZones() {
  for (const level of [0, 1, 2]) $("zones").append(zoneButtons[level], zoneButtons[level + 3]);
}

function chooseTool(name) {
  tool = name;
  document.body.dataset.tool = name;
  for (const button of document.querySelectorAll("button[data-tool]"))
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
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

function pan([dx, dy]) {
  if (!shown) return;
  moveBy(panes.corrected, view, dx, dy);
  drawing.redraw();
}

function neighbour(by) {
  const next = cases[cases.indexOf(wanted) + by];
  if (next) choose(next);
}

const PANS = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] };
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
  a: () => current.original.answer.attention && toggleLayer("show-attention"),
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
  } else if (key.length === 1 && !$("single-keys").checked) {
    return; // who speaks to the computer can turn off what a stray letter would do
  } else if (key === "Enter" && event.target.matches("button, a, input[type=file]")) {
    return; // it presses what has the focus
  } else if (key.startsWith("Arrow") && event.target.matches("input")) {
    return;
  } else if (event.shiftKey && PANS[key]) {
    pan(PANS[key]);
  } else if (KEYS_OF_ZONES.includes(key)) {
    toggleZone(KEYS_OF_ZONES.indexOf(key));
  } else if (KEYS[key] && (shown || ["?", "ArrowUp", "ArrowDown"].includes(key))) {
    KEYS[key]();
  } else {
    return;
  }
  event.preventDefault();
}

function weightedMean(maps, weights) {
  const total = Object.keys(maps).reduce((sum, zone) => sum + weights[zone], 0);
  const mean = (row, column) =>
    Object.entries(maps).reduce((sum, [zone, map]) => sum + (weights[zone] / total) * map[row][column], 0);
  return Object.values(maps)[0].map((cells, row) => cells.map((_, column) => mean(row, column)));
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
    $("notice").textContent = error.message;
  }
});
$("force").addEventListener("click", async () => {
  current.retry(true);
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
  drawPanes();
});
for (const button of document.querySelectorAll("button[data-tool]"))
  button.addEventListener("click", () => chooseTool(button.dataset.tool));
for (const button of document.querySelectorAll("[data-export]"))
  button.addEventListener("click", () => take(button.dataset.export));
for (const id of ["level", "width", "opacity"]) $(id).addEventListener("input", () => drawPanes());
for (const id of ["show-mask", "show-contour"]) $(id).addEventListener("change", () => drawPanes());
const heats = ["show-probability", "show-uncertainty", "show-attention"];
for (const id of heats)
  $(id).addEventListener("change", () => {
    if ($(id).checked) for (const other of heats) $(other).checked = other === id; // one at a time can be read
    drawPanes();
  });
drawAll();
