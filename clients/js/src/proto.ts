/**
 * The codec `wsfleet.v1.proto`: Protocol Buffers by `docs/wsfleet.v1.proto`, in a binary frame. What the schema has not
 * cannot be sent: positions of a `join` are left out, other messages throw.
 */
import type { ClientMessage, Codec, ServerMessage } from "./messages.js";
import { fields, putBytes, putText, textOf, type Value } from "./wire.js";

/** `ClientMessage`: the field of the `oneof`, and the fields of that message. All are texts; a payload is JSON text. */
const CLIENT: Partial<Record<ClientMessage["type"], [number, Record<string, number>]>> = {
  join: [1, { room: 1, id: 2 }],
  leave: [2, { room: 1, id: 2 }],
  room_message: [3, { room: 1, payload: 2, id: 3, msgId: 4 }],
  direct_message: [4, { targetUserId: 1, payload: 2, id: 3, msgId: 4 }],
  ping: [5, {}],
  refresh: [6, { token: 1, id: 2 }],
};

/** How a field is read, and what it is when it is not there; without that it stays away. */
interface Field {
  name: string;
  read: (value: Value) => unknown;
  missing?: unknown;
}

type Schema = Record<number, Field>;

const read = {
  text: textOf,
  number: Number,
  boolean: (value: Value) => value !== 0,
  json: (value: Value): unknown => JSON.parse(textOf(value)),
};
const text = (name: string): Field => ({ name, read: read.text, missing: "" });
const number = (name: string): Field => ({ name, read: read.number, missing: 0 });
const boolean = (name: string): Field => ({ name, read: read.boolean, missing: false });
const maybeNumber = (name: string): Field => ({ name, read: read.number, missing: null });
const maybeText = (name: string): Field => ({ name, read: read.text });
const payload: Field = { name: "payload", read: read.json, missing: null };

const LIMITS: Schema = {
  1: number("messageBytes"),
  2: number("roomNameBytes"),
  3: number("roomsPerConnection"),
  4: number("messagesPerSecond"),
  5: number("bytesPerSecond"),
};
const PRESENCE: Schema = { 1: text("roomId"), 2: text("userId"), 3: text("serverId") };
/** The only field that is repeated. */
const FEATURES = "features";

/** `ServerMessage`: by the field of the `oneof`. */
const SERVER: Record<number, [ServerMessage["type"], Schema]> = {
  1: [
    "welcome",
    {
      1: text("connectionId"),
      2: text("userId"),
      3: text("serverId"),
      4: number("pingInterval"),
      5: {
        name: "limits",
        read: (value) => message(bytesOf(value), LIMITS),
        missing: message(new Uint8Array(), LIMITS),
      },
      6: { name: FEATURES, read: read.text, missing: [] },
    },
  ],
  2: ["joined", { 1: text("room"), 2: text("epoch"), 3: number("offset") }],
  3: ["left", { 1: text("room") }],
  4: [
    "room_message",
    {
      1: text("roomId"),
      2: text("userId"),
      3: payload,
      4: number("timestamp"),
      5: text("serverId"),
      6: number("offset"),
    },
  ],
  5: ["direct_message", { 1: text("fromUserId"), 2: payload, 3: number("timestamp"), 4: number("offset") }],
  6: ["user_joined", PRESENCE],
  7: ["user_left", PRESENCE],
  8: ["ack", { 1: text("id"), 2: text("epoch"), 3: number("offset"), 4: boolean("duplicate") }],
  9: ["pong", {}],
  10: [
    "server_shutdown",
    { 1: text("reason"), 2: number("reconnectDelay"), 3: maybeNumber("deadline"), 4: boolean("resume") },
  ],
  11: ["error", { 1: text("error"), 2: text("code"), 3: boolean("temporary"), 4: maybeText("id") }],
  12: ["gap", { 1: text("room"), 2: number("from"), 3: number("to"), 4: text("epoch") }],
  13: ["refreshed", { 1: maybeNumber("expiresAt"), 2: maybeText("id") }],
};

function bytesOf(value: Value): Uint8Array {
  if (typeof value === "number") throw new RangeError("a number, where there should be a message");
  return value;
}

/** A message's fields by name; unknown ones are ignored. */
function message(bytes: Uint8Array, schema: Schema): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const { name, missing } of Object.values(schema)) {
    if (missing !== undefined) found[name] = missing;
  }
  for (const [number, value] of fields(bytes)) {
    const field = schema[number];
    if (!field) continue;
    const { name, read } = field;
    found[name] = name === FEATURES ? [...(found[name] as unknown[]), read(value)] : read(value);
  }
  return found;
}

function encode(message: ClientMessage): Uint8Array<ArrayBuffer> {
  const known = CLIENT[message.type];
  if (!known) throw new TypeError(`${message.type} is not in wsfleet.v1.proto: use another codec`);
  const [field, schema] = known;
  const inner: number[] = [];
  for (const [name, number] of Object.entries(schema)) {
    const value = (message as unknown as Record<string, unknown>)[name];
    if (name === "payload") {
      const json = JSON.stringify(value) as string | undefined;
      if (json === undefined) throw new TypeError(`a ${typeof value} cannot be sent`);
      putText(inner, number, json);
    } else if (value !== undefined) {
      putText(inner, number, value as string);
    }
  }
  const out: number[] = [];
  putBytes(out, field, inner);
  return Uint8Array.from(out);
}

function decode(data: unknown): ServerMessage {
  let last: ServerMessage | undefined;
  // of a `oneof` the last one counts
  for (const [field, value] of fields(new Uint8Array(data as ArrayBuffer))) {
    const known = SERVER[field];
    if (known) last = { type: known[0], ...message(bytesOf(value), known[1]) } as unknown as ServerMessage;
  }
  // a message that this version does not know is none of its business
  return last ?? ({ type: "unknown" } as unknown as ServerMessage);
}

export const proto: Codec = { subprotocol: "wsfleet.v1.proto", encode, decode };
