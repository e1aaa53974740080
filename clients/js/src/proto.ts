/**
 * The codec `wsfleet.v1.proto`: Protocol Buffers by `docs/wsfleet.v1.proto`, in a binary frame.
 */
import type { ClientMessage, Codec, ServerMessage } from "./messages.js";
import { fields, putBytes, putNumber, putText, textOf, type Value } from "./wire.js";

/** The fields of a message of a client: texts, numbers, messages; a payload is JSON text. */
type Fields = Record<string, number>;

/** `ClientMessage`: the field of the `oneof`, and the fields of that message. */
const CLIENT: Record<ClientMessage["type"], [number, Fields]> = {
  join: [1, { room: 1, id: 2, epoch: 3, offset: 4 }],
  leave: [2, { room: 1, id: 2 }],
  room_message: [3, { room: 1, payload: 2, id: 3, msgId: 4 }],
  direct_message: [4, { targetUserId: 1, payload: 2, id: 3, msgId: 4 }],
  ping: [5, {}],
  refresh: [6, { token: 1, id: 2 }],
  resume: [7, { rooms: 1, user: 2, id: 3 }],
  history: [8, { room: 1, limit: 2, before: 3, id: 4 }],
  presence: [9, { room: 1, limit: 2, after: 3, id: 4 }],
  event: [10, { name: 1, payload: 2, id: 3, msgId: 4 }],
};

/** Fields that are messages, or lists of them. */
const NESTED: Record<string, Fields> = {
  rooms: { room: 1, epoch: 2, offset: 3 },
  user: { epoch: 1, offset: 2 },
};

/** How a field is read, and what it is when it is not there; without that it stays away. */
interface Field {
  name: string;
  read: (value: Value) => unknown;
  missing?: unknown;
  /** It is a list. */
  repeated?: true;
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
const given = (name: string): Field => ({ name, read: read.number });
const maybeBoolean = (name: string): Field => ({ name, read: read.boolean });
const nested = (name: string, schema: Schema): Field => ({ name, read: (value) => message(bytesOf(value), schema) });
const payload: Field = { name: "payload", read: read.json, missing: null };

const LIMITS: Schema = {
  1: number("messageBytes"),
  2: number("roomNameBytes"),
  3: number("roomsPerConnection"),
  4: number("messagesPerSecond"),
  5: number("bytesPerSecond"),
};
const PRESENCE: Schema = { 1: text("roomId"), 2: text("userId"), 3: text("serverId") };
const POSITION: Schema = { 1: text("epoch"), 2: number("offset") };
const ENTRY: Schema = {
  1: text("userId"),
  2: payload,
  3: number("timestamp"),
  4: text("serverId"),
  5: number("offset"),
};

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
      6: { name: "features", read: read.text, missing: [], repeated: true },
      7: number("resumeWindow"),
      8: nested("position", POSITION),
    },
  ],
  2: [
    "joined",
    { 1: text("room"), 2: text("epoch"), 3: number("offset"), 4: maybeBoolean("recovered"), 5: maybeText("reason") },
  ],
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
  12: ["gap", { 1: maybeText("room"), 2: number("from"), 3: number("to"), 4: text("epoch") }],
  13: ["refreshed", { 1: maybeNumber("expiresAt"), 2: maybeText("id") }],
  14: ["resumed", { 1: text("epoch"), 2: number("offset"), 3: boolean("recovered"), 4: maybeText("reason") }],
  15: [
    "history",
    {
      1: text("room"),
      2: text("epoch"),
      3: number("offset"),
      4: { ...nested("messages", ENTRY), missing: [], repeated: true },
      5: given("next"),
      6: maybeText("id"),
    },
  ],
  16: [
    "presence",
    {
      1: text("room"),
      2: { name: "users", read: read.text, missing: [], repeated: true },
      3: number("count"),
      4: maybeText("next"),
      5: maybeText("id"),
    },
  ],
  17: ["routing_token", { 1: text("token") }],
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
    const { name, read, repeated } = field;
    found[name] = repeated ? [...(found[name] as unknown[]), read(value)] : read(value);
  }
  return found;
}

function encode(message: ClientMessage): Uint8Array<ArrayBuffer> {
  const [field, schema] = CLIENT[message.type];
  const out: number[] = [];
  putBytes(out, field, inner({ ...message }, schema));
  return Uint8Array.from(out);
}

function inner(message: Record<string, unknown>, schema: Fields): number[] {
  const out: number[] = [];
  for (const [name, number] of Object.entries(schema)) {
    const value = message[name];
    const known = NESTED[name];
    if (name === "payload") {
      const json = JSON.stringify(value) as string | undefined;
      if (json === undefined) throw new TypeError(`a ${typeof value} cannot be sent`);
      putText(out, number, json);
    } else if (value === undefined) {
      continue;
    } else if (known) {
      const list: unknown[] = Array.isArray(value) ? value : [value];
      for (const item of list) putBytes(out, number, inner(item as Record<string, unknown>, known));
    } else if (typeof value === "number") {
      putNumber(out, number, value);
    } else {
      putText(out, number, value as string);
    }
  }
  return out;
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
