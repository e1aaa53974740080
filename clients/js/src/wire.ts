/** The wire format of Protocol Buffers, as far as the schema needs it: varints and what has a length. */

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });

/** Appends a number from 0 to 2^53 - 1, seven bits to a byte, the lowest first. */
function varint(out: number[], value: number): void {
  while (value >= 0x80) {
    out.push((value % 0x80) | 0x80);
    value = Math.floor(value / 0x80);
  }
  out.push(value);
}

/** Appends a field of bytes. */
export function putBytes(out: number[], field: number, bytes: Uint8Array | number[]): void {
  varint(out, field * 8 + 2);
  varint(out, bytes.length);
  for (const byte of bytes) out.push(byte);
}

/** Appends a field of text. */
export function putText(out: number[], field: number, value: string): void {
  putBytes(out, field, utf8.encode(value));
}

/** Appends a field of a number from 0 to 2^53 - 1. */
export function putNumber(out: number[], field: number, value: number): void {
  varint(out, field * 8);
  varint(out, value);
}

/** What a field holds: a number, or bytes. */
export type Value = number | Uint8Array;

/** The text of a field. */
export function textOf(value: Value): string {
  if (typeof value === "number") throw new RangeError("a number, where there should be a text");
  return text.decode(value);
}

/** The fields of a message in their order; those of kinds that the schema does not use are passed over. */
export function* fields(bytes: Uint8Array): Generator<[field: number, value: Value]> {
  let at = 0;
  const skip = (size: number): number => {
    const from = at;
    at += size;
    if (at > bytes.length) throw new RangeError("the message ends too soon");
    return from;
  };
  const number = (): number => {
    let value = 0;
    for (let scale = 1; scale < 2 ** 70; scale *= 0x80) {
      const byte = bytes[skip(1)] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a number of more than ten bytes");
  };
  while (at < bytes.length) {
    const key = number();
    const field = Math.floor(key / 8);
    switch (key % 8) {
      case 0:
        yield [field, number()];
        break;
      case 1:
        skip(8);
        break;
      case 2: {
        const from = skip(number());
        yield [field, bytes.subarray(from, at)];
        break;
      }
      case 5:
        skip(4);
        break;
      default:
        throw new RangeError(`wire type ${key % 8}`);
    }
  }
}
