/**
 * The codec `wsfleet.v1.msgpack`: the JSON codec's objects as MessagePack, in a binary frame. What can be sent is what
 * `JSON.stringify` takes, and means the same.
 */
import type { Codec, ServerMessage } from "./messages.js";

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });
/** The gateway's own bound; deeper is no message of it. */
const DEPTH = 128;

/** Bytes that are appended. */
class Writer {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  get written(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  value(value: unknown): void {
    if (typeof (value as { toJSON?: unknown } | null)?.toJSON === "function") {
      value = (value as { toJSON(): unknown }).toJSON();
    }
    if (value === null) this.#uint(0xc0);
    else if (typeof value === "boolean") this.#uint(value ? 0xc3 : 0xc2);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "string") this.#text(value);
    else if (Array.isArray(value)) this.#array(value);
    else if (typeof value === "object") this.#map(value);
    else throw new TypeError(`a ${typeof value} cannot be sent`);
  }

  #number(value: number): void {
    if (!Number.isFinite(value)) this.#uint(0xc0);
    else if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.#uint(0xcb);
      this.#put(8, (view, at) => {
        view.setFloat64(at, value);
      });
    } else if (value >= 0) this.#positive(value);
    else if (value >= -32) this.#uint(value & 0xff);
    else {
      this.#uint(0xd3);
      this.#put(8, (view, at) => {
        view.setBigInt64(at, BigInt(value));
      });
    }
  }

  #positive(value: number): void {
    if (value < 0x80) this.#uint(value);
    else if (value < 0x1_0000_0000) this.#sized(value, 0xcc, 0xcd, 0xce);
    else {
      this.#uint(0xcf);
      this.#put(8, (view, at) => {
        view.setBigUint64(at, BigInt(value));
      });
    }
  }

  #text(value: string): void {
    const bytes = utf8.encode(value);
    if (bytes.length < 32) this.#uint(0xa0 | bytes.length);
    else this.#sized(bytes.length, 0xd9, 0xda, 0xdb);
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
  }

  #array(values: unknown[]): void {
    if (values.length < 16) this.#uint(0x90 | values.length);
    else this.#sized(values.length, undefined, 0xdc, 0xdd);
    for (const value of values) this.value(said(value) ? value : null);
  }

  #map(value: object): void {
    const entries = Object.entries(value).filter(([, each]) => said(each));
    if (entries.length < 16) this.#uint(0x80 | entries.length);
    else this.#sized(entries.length, undefined, 0xde, 0xdf);
    for (const [key, each] of entries) {
      this.#text(key);
      this.value(each);
    }
  }

  #uint(byte: number): void {
    this.#put(1, (view, at) => {
      view.setUint8(at, byte);
    });
  }

  /** A number behind the marker for its size. */
  #sized(size: number, one: number | undefined, two: number, four: number): void {
    if (one !== undefined && size < 0x100) {
      this.#uint(one);
      this.#uint(size);
    } else if (size < 0x1_0000) {
      this.#uint(two);
      this.#put(2, (view, at) => {
        view.setUint16(at, size);
      });
    } else {
      this.#uint(four);
      this.#put(4, (view, at) => {
        view.setUint32(at, size);
      });
    }
  }

  #put(size: number, write: (view: DataView, at: number) => void): void {
    const at = this.#room(size);
    write(this.#view, at);
  }

  /** Where so many bytes can be written; the buffer may be another one then. */
  #room(size: number): number {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** What `JSON.stringify` leaves out of objects, and makes `null` in arrays. */
function said(value: unknown): boolean {
  return value !== undefined && typeof value !== "function" && typeof value !== "symbol";
}

/** Bytes that are read; throws where they end too soon. */
class Reader {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(buffer: ArrayBuffer) {
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  /** The one value that there is. */
  whole(): unknown {
    const value = this.#value(DEPTH);
    if (this.#at !== this.#bytes.length) throw new RangeError("bytes behind the message");
    return value;
  }

  #value(depth: number): unknown {
    if (depth < 0) throw new RangeError(`more than ${DEPTH} levels`);
    const byte = this.#uint(1);
    if (byte < 0x80) return byte;
    if (byte < 0x90) return this.#map(byte & 0x0f, depth);
    if (byte < 0xa0) return this.#array(byte & 0x0f, depth);
    if (byte < 0xc0) return this.#text(byte & 0x1f);
    if (byte >= 0xe0) return byte - 0x100;
    switch (byte) {
      case 0xc0:
        return null;
      case 0xc2:
      case 0xc3:
        return byte === 0xc3;
      case 0xca:
        return this.#view.getFloat32(this.#skip(4));
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return Number(this.#view.getBigInt64(this.#skip(8)));
      default:
        return this.#long(byte, depth);
    }
  }

  /** What has its size, or its value, in the bytes behind the marker. */
  #long(byte: number, depth: number): unknown {
    if (byte >= 0xcc && byte <= 0xcf) return this.#uint(1 << (byte - 0xcc));
    if (byte >= 0xd9 && byte <= 0xdb) return this.#text(this.#uint(1 << (byte - 0xd9)));
    if (byte === 0xdc || byte === 0xdd) return this.#array(this.#uint(byte === 0xdc ? 2 : 4), depth);
    if (byte === 0xde || byte === 0xdf) return this.#map(this.#uint(byte === 0xde ? 2 : 4), depth);
    throw new RangeError(`0x${byte.toString(16)} begins nothing that JSON has`);
  }

  #uint(size: number): number {
    const at = this.#skip(size);
    if (size === 8) return Number(this.#view.getBigUint64(at));
    if (size === 4) return this.#view.getUint32(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint8(at);
  }

  #text(length: number): string {
    const at = this.#skip(length);
    return text.decode(this.#bytes.subarray(at, at + length));
  }

  #array(length: number, depth: number): unknown[] {
    const values = [];
    for (let left = length; left > 0; left--) values.push(this.#value(depth - 1));
    return values;
  }

  #map(length: number, depth: number): unknown {
    const entries: [string, unknown][] = [];
    for (let left = length; left > 0; left--) entries.push([String(this.#value(0)), this.#value(depth - 1)]);
    return Object.fromEntries(entries);
  }

  #skip(size: number): number {
    const at = this.#at;
    this.#at += size;
    if (this.#at > this.#bytes.length) throw new RangeError("the message ends too soon");
    return at;
  }
}

export const msgpack: Codec = {
  subprotocol: "wsfleet.v1.msgpack",
  encode: (message) => {
    const writer = new Writer();
    writer.value(message);
    return writer.written;
  },
  decode: (data) => new Reader(data as ArrayBuffer).whole() as ServerMessage,
};
