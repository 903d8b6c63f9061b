// One opened X-ray: what the model said, what was corrected, and the way back.

import * as api from "./api.js";
import { combined, fromRle, pack, unpack } from "./masks.js";

export class Case {
  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.error = null;
    this.force = false;
    this.reviewed = false;
    this.picture = null; // PNG
    this.states = []; // { answer, touched }, the first is the model's
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
    const answer = await api.predict({ image: this.file, force: this.force });
    this.imageId = answer.image_id;
    this.picture = await api.picture(answer.image_id);
    this.states = [{ answer, touched: pack(new Uint8Array(answer.mask.size[0] * answer.mask.size[1])) }];
    this.at = 0;
  }

  /** Asks with other zones or words; what was drawn by hand stays. Without either: the model's own again. */
  async correct(guide, signal) {
    const question = { ...guide, force: this.force, signal };
    let answer;
    try {
      answer = await api.predict({ ...question, imageId: this.imageId });
    } catch (error) {
      if (error.status !== 404) throw error;
      answer = await api.predict({ ...question, image: this.file }); // the service has let go of it
    }
    this.push({ answer, touched: this.state.touched });
  }

  /** Keeps what was drawn by hand as a step of its own. */
  draw(touched) {
    this.push({ answer: this.state.answer, touched: pack(touched) });
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

  touched() {
    return unpack(this.state.touched, this.width * this.height);
  }

  mask(state = this.state) {
    return combined(fromRle(state.answer.mask), unpack(state.touched, this.width * this.height));
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
