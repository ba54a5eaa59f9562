// The frames of a recording, fetched in batches ahead of where one looks and kept for a while.

const BATCH_BYTES = 2_000_000;
const KEPT_BYTES = 96_000_000;

export class Film {
  /** `card` as the server numbers it; `about` is what it said of the recording. */
  constructor(server, card, about) {
    this.server = server;
    this.card = card;
    this.about = about;
    this.size = about.width * about.height;
    this.bytes = this.size * (about.real ? 4 : 1);
    this.batch = Math.max(Math.floor(BATCH_BYTES / this.bytes), 1);
    this.kept = new Map(); // batch number to its promise, the one used last at the end
    this.here = new Map(); // batch number to what came
  }

  /** The frame of a row, if it has come: {row, number, ms, whole, pixels}. */
  now(row) {
    for (const found of [this.here.get(Math.floor(row / this.batch)), this.single]) {
      if (found && row >= found.start && row < found.start + found.count) return this.cut(found, row);
    }
    return null;
  }

  cut(found, row) {
    const k = row - found.start;
    return {
      row, number: found.numbers[k], ms: found.ms[k], whole: found.whole[k],
      pixels: this.values(found.pixels.subarray(k * this.bytes, (k + 1) * this.bytes)),
    };
  }

  /** Grey values of the bytes of a frame: whole numbers from 0 to 255, or real ones of a Dataset that was computed. */
  values(bytes) {
    return this.about.real ? new Float32Array(bytes.slice().buffer) : bytes;
  }

  /** One frame as fast as it comes; the batch around it follows. */
  async one(row) {
    const known = this.now(row);
    if (known) return known;
    this.single = await this.server.frames({ ...this.which(), start: row, count: 1 });
    return this.cut(this.single, row);
  }

  /** Fetch the batch of a row and the one behind it. */
  ahead(row) {
    const number = Math.floor(row / this.batch);
    const wanted = [this.fetch(number)];
    if ((number + 1) * this.batch < this.about.frames) wanted.push(this.fetch(number + 1));
    return wanted[0];
  }

  fetch(number) {
    const known = this.kept.get(number);
    this.kept.delete(number);
    const coming = known || this.server.frames({ ...this.which(), start: number * this.batch, count: this.batch });
    this.kept.set(number, coming);
    if (!known) {
      coming.then((found) => this.kept.has(number) && this.here.set(number, found), () => this.kept.delete(number));
      while (this.kept.size > Math.max(KEPT_BYTES / (this.batch * this.bytes), 3)) {
        const oldest = this.kept.keys().next().value;
        this.kept.delete(oldest);
        this.here.delete(oldest);
      }
    }
    return coming;
  }

  which() {
    return { card: this.card, recording: this.about.number };
  }
}
