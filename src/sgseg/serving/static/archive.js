// PNG and ZIP, written by hand: a canvas has no grey PNG, and a library for two formats would be larger.

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC[(crc ^ byte) & 255];
  return (crc ^ 0xffffffff) >>> 0;
}

/** An 8-bit grey PNG of `width` × `height` bytes. */
export async function greyPng(greys, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with its filter, 0: none
  for (let y = 0; y < height; y++)
    rows.set(greys.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const chunks = [
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk("IEND", new Uint8Array()),
  ];
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...chunks], { type: "image/png" });
}

function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** A ZIP of [name, Blob] pairs, stored as they are: PNGs do not get smaller. */
export async function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, blob] of files) {
    const data = new Uint8Array(await blob.arrayBuffer());
    const path = new TextEncoder().encode(name);
    const common = [20, 0x800, 0, 0, 0x21]; // version, UTF-8 names, stored, midnight, 1 January 1980
    const sizes = [crc32(data), data.length, data.length];
    parts.push(record(0x04034b50, common, sizes, [path.length, 0]), path, data);
    directory.push(record(0x02014b50, [20, ...common], sizes, [path.length, 0, 0, 0, 0], [0, offset]), path);
    offset += 30 + path.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record(0x06054b50, [0, 0, files.length, files.length], [size, offset], [0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Little-endian: a signature of 32 bits, then in turn numbers of 16, 32, 16 and 32 bits. */
function record(signature, ...fields) {
  const widths = [2, 4, 2, 4];
  const bytes = new Uint8Array(4 + fields.reduce((sum, values, i) => sum + values.length * widths[i], 0));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, signature, true);
  let at = 4;
  fields.forEach((values, i) => {
    for (const value of values) {
      if (widths[i] === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += widths[i];
    }
  });
  return bytes;
}
