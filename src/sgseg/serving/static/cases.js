// One opened X-ray: what the model said, what was corrected, and the way back.

import * as api from "./api.js";
import { fromRle, union, without } from "./masks.js";

const HEADER = 2 ** 16; // bytes in which DICOM's Patient ID is looked for

export class Case {
  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.error = null;
    this.force = false;
    this.reviewed = false;
    this.picture = null; // PNG
    this.states = []; // { guide, answer, added, erased }, the first is the model's; the last two drawn by hand
    this.at = -1;
    this.preparing = null;
  }

  get state() {
    return this.states[this.at];
  }

  get original() {
    return this.states[0];
  }

  get corrected() {
    return this.at > 0;
  }

  get width() {
    return this.original.answer.mask.size[1];
  }

  get height() {
    return this.original.answer.mask.size[0];
  }

  /** Asks the model once; afterwards `state` or `error` is there. */
  prepare() {
    this.preparing ??= this.predictFirst().catch((error) => {
      this.error = error;
    });
    return this.preparing;
  }

  retry(force) {
    this.force = force;
    this.error = null;
    this.preparing = null;
    return this.prepare();
  }

  async predictFirst() {
    const answer = await api.predict({ image: this.file, force: this.force, attention: true });
    this.imageId = answer.image_id;
    this.picture = await api.picture(answer.image_id);
    this.states = [{ guide: {}, answer, added: [], erased: [] }];
    this.at = 0;
  }

  /** What tells patients apart: a subject ("sub-7_ap.png"), DICOM's Patient ID, or else the file. */
  async patient() {
    const [, subject] = this.name.match(/^(sub-[^_]+)_/i) ?? [];
    return subject ?? patientId(await this.file.slice(0, HEADER).arrayBuffer()) ?? this.imageId;
  }

  /** Asks with other zones or words; what was drawn by hand stays. Without either: the model's own again. */
  async correct(guide, signal) {
    const answer = await this.ask({ ...guide, signal });
    this.push({ ...this.state, guide, answer });
  }

  /** The probability of a lesion in the current state, a grey PNG in base64. */
  async probability() {
    return (await this.ask({ ...this.state.guide, probability: true })).probability_png;
  }

  async ask(question) {
    const asked = { ...question, force: this.force };
    try {
      return await api.predict({ ...asked, imageId: this.imageId });
    } catch (error) {
      if (error.status !== 404) throw error;
      return api.predict({ ...asked, image: this.file }); // the service has let go of it
    }
  }

  /** Keeps what was drawn by hand as a step of its own. */
  draw(brushed, adds) {
    const { added, erased } = this.state;
    this.push(
      adds
        ? { ...this.state, added: union(added, brushed), erased: without(erased, brushed) }
        : { ...this.state, added: without(added, brushed), erased: union(erased, brushed) },
    );
  }

  push(state) {
    this.states = [...this.states.slice(0, this.at + 1), state];
    this.at += 1;
    this.reviewed = false;
  }

  /** One step back (-1) or forth (1); whether there was one. */
  step(by) {
    if (!this.states[this.at + by]) return false;
    this.at += by;
    this.reviewed = false;
    return true;
  }

  /** The model's mask with what was drawn by hand. */
  mask() {
    const { answer, added, erased } = this.state;
    return without(union(fromRle(answer.mask), added), erased);
  }
}

/** The six zones in the canonical order: the lung at the picture's left from top to bottom, then the other. */
export function zonesOf(answer) {
  return Object.entries(answer.zone_probabilities).map(([name, probability]) => ({
    name,
    probability,
    infected: answer.zones.includes(name),
  }));
}

/** DICOM's Patient ID (0010,0020), from a file's first bytes in little endian; undefined if there is none. */
function patientId(buffer) {
  const text = new TextDecoder("latin1").decode(buffer);
  const at = text.startsWith("DICM", 128) ? text.indexOf("\x10\0\x20\0") : -1;
  if (at < 0) return undefined;
  const typed = text.startsWith("LO", at + 4); // else the length follows at once
  const length = new DataView(buffer).getUint16(at + (typed ? 6 : 4), true);
  return text.slice(at + 8, at + 8 + length).trim() || undefined;
}
