import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClientMessage, Codec } from "../src/messages.js";
import { msgpack } from "../src/msgpack.js";
import { proto } from "../src/proto.js";

const hex = (data: string | Uint8Array): string => Buffer.from(data).toString("hex");
const bytes = (text: string): ArrayBuffer => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex")).buffer;

/** What MessagePack makes of a value, and of what it made of it. */
function roundtrip(value: unknown): unknown {
  const encoded = msgpack.encode(value as ClientMessage) as Uint8Array<ArrayBuffer>;
  return msgpack.decode(encoded.buffer);
}

test("MessagePack: values as the specification has their bytes", () => {
  const table: [unknown, string][] = [
    [null, "c0"],
    [true, "c3"],
    [0, "00"],
    [127, "7f"],
    [128, "cc80"],
    [256, "cd0100"],
    [65_536, "ce00010000"],
    [2 ** 32, "cf0000000100000000"],
    [-1, "ff"],
    [-32, "e0"],
    [-33, "d3ffffffffffffffdf"],
    [1.5, "cb3ff8000000000000"],
    ["é", "a2c3a9"],
    [[], "90"],
    [{ a: [1] }, "81a1619101"],
  ];
  for (const [value, expected] of table) assert.equal(hex(msgpack.encode(value as ClientMessage)), expected);
});

test("MessagePack: whatever JSON.stringify takes comes back as JSON.parse would give it", () => {
  const values = [
    ..."0 31 32 255 256 65535 65536".split(" ").map((length) => "x".repeat(Number(length))),
    ...[0, 15, 16, 65_535, 65_536].map((length) => Array.from({ length }, (_, index) => index - 40)),
    Object.fromEntries(Array.from({ length: 70_000 }, (_, index) => [`k${index}`, index])),
    [-129, -32_769, -2_147_483_649, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 60, 5e-324, -0.5],
    { gone: undefined, nothing: [undefined, Number.NaN, Infinity], date: new Date(0), f: () => 1, nested: { a: null } },
    "\u{1f600} \u0000 ",
  ];
  for (const value of values) assert.deepEqual(roundtrip(value), JSON.parse(JSON.stringify(value)));
});

test("MessagePack: all forms that a gateway may use are read", () => {
  const table: [string, unknown][] = [
    ["d080", -128],
    ["d18000", -32_768],
    ["d280000000", -2_147_483_648],
    ["ca3fc00000", 1.5],
    ["d9026162", "ab"],
    ["dc000101", [1]],
    ["dd0000000101", [1]],
    ["de0001a16101", { a: 1 }],
    ["df00000001a16101", { a: 1 }],
  ];
  for (const [text, value] of table) assert.deepEqual(msgpack.decode(bytes(text)), value);
});

test("MessagePack: what is none is refused", () => {
  const deep = "91".repeat(200) + "c0";
  for (const text of ["", "81", "a5616263", "c1", "c403010203", "d4010a", "a1ff", "0101", "ddffffffff", deep]) {
    assert.throws(() => msgpack.decode(bytes(text)), text);
  }
  assert.throws(() => msgpack.encode({ type: "ping", more: 1n } as ClientMessage), /bigint/);
});

test("Protocol Buffers: client messages as the schema has their bytes", () => {
  const table: [ClientMessage, string][] = [
    [{ type: "join", room: "r", id: "1" }, "0a06 0a0172 120131"],
    [{ type: "join", room: "r", id: "1", epoch: "e", offset: 4 }, "0a0b 0a0172 120131 1a0165 2004"],
    [{ type: "leave", room: "r" }, "1203 0a0172"],
    [
      { type: "room_message", room: "r", payload: { a: 1 }, id: "1", msgId: "m" },
      "1a12 0a0172 12077b2261223a317d 1a0131 22016d",
    ],
    [
      { type: "direct_message", targetUserId: "u", payload: null, id: "1", msgId: "m" },
      "220f 0a0175 12046e756c6c 1a0131 22016d",
    ],
    [{ type: "ping" }, "2a00"],
    [{ type: "refresh", token: "t", id: "1" }, "3206 0a0174 120131"],
    [
      { type: "resume", rooms: [{ room: "r", epoch: "e", offset: 4 }], user: { epoch: "p", offset: 3 }, id: "1" },
      "3a14 0a080a01721201651804 12050a01701003 1a0131",
    ],
    [{ type: "resume", rooms: [], id: "1" }, "3a03 1a0131"],
    [{ type: "history", room: "r", limit: 9, before: 4, id: "1" }, "420a 0a0172 1009 1804 220131"],
    [{ type: "presence", room: "r", limit: 9, after: "u", id: "1" }, "4a0b 0a0172 1009 1a0175 220131"],
    [{ type: "event", name: "n", payload: 1, id: "1", msgId: "m" }, "520c 0a016e 120131 1a0131 22016d"],
  ];
  for (const [message, expected] of table) assert.equal(hex(proto.encode(message)), expected.replaceAll(" ", ""));
});

test("Protocol Buffers: what the schema has not cannot be sent", () => {
  const nothing: ClientMessage = { type: "room_message", room: "r", payload: undefined, id: "1", msgId: "m" };
  assert.throws(() => proto.encode(nothing), /undefined cannot be sent/);
});

test("Protocol Buffers: server messages, with what proto3 leaves out, and what a later schema adds", () => {
  const table: [string, unknown][] = [
    ["1205 0a0172 1201", undefined],
    ["1206 0a0172 120165", { type: "joined", room: "r", epoch: "e", offset: 0 }],
    ["120a 0a0172 120165 1804 2001", { type: "joined", room: "r", epoch: "e", offset: 4, recovered: true }],
    [
      "720e 0a0165 1003 2207746f6f5f6f6c64",
      { type: "resumed", epoch: "e", offset: 3, recovered: false, reason: "too_old" },
    ],
    [
      "7a14 0a0172 220d0a01751201311805220173 2802 2802",
      {
        type: "history",
        room: "r",
        epoch: "",
        offset: 0,
        messages: [{ userId: "u", payload: 1, timestamp: 5, serverId: "s", offset: 2 }],
        next: 2,
      },
    ],
    [
      "82010e 0a0172 120161 120162 1805 220162",
      { type: "presence", room: "r", users: ["a", "b"], count: 5, next: "b" },
    ],
    ["820103 0a0172", { type: "presence", room: "r", users: [], count: 0 }],
    ["6204 10051806", { type: "gap", from: 5, to: 6, epoch: "" }],
    ["4a00", { type: "pong" }],
    ["6a00", { type: "refreshed", expiresAt: null }],
    ["6a0b 08ffffffffffffff0f 1200", { type: "refreshed", expiresAt: 2 ** 53 - 1, id: "" }],
    ["5a06 0a0165 a00601", { type: "error", error: "e", code: "", temporary: false }],
    ["4208 0a0131 1805 2001 00", undefined],
    ["4207 0a0131 1805 2001", { type: "ack", id: "1", epoch: "", offset: 5, duplicate: true }],
    ["2a05 1203333231", { type: "direct_message", fromUserId: "", payload: 321, timestamp: 0, offset: 0 }],
    // fields of each wire type that nobody knows: 1000 to 1003
    ["4a10 c03e05 c93e0000000000000000 d23e00", { type: "pong" }],
    ["fa3e00", { type: "unknown" }],
  ];
  for (const [text, value] of table) {
    if (value === undefined) assert.throws(() => proto.decode(bytes(text)), text);
    else assert.deepEqual(proto.decode(bytes(text)), value, text);
  }
  const welcome = proto.decode(bytes("0a11 20b0ea01 2a020832 3203616364 32026566".replaceAll(" ", "")));
  assert.equal(welcome.type, "welcome");
  assert.deepEqual([welcome.pingInterval, welcome.limits.messageBytes, welcome.features], [30_000, 50, ["acd", "ef"]]);
});

test("random bytes are read or refused, and never hang", () => {
  let state = 11;
  const random = (): number => (state = (state * 48_271) % 2_147_483_647) % 256;
  const codecs: Codec[] = [msgpack, proto];
  let read = 0;
  for (let round = 0; round < 20_000; round++) {
    const data = Uint8Array.from({ length: random() % 40 }, random).buffer;
    for (const codec of codecs) {
      try {
        codec.decode(data);
        read++;
      } catch (error) {
        assert.ok(error instanceof Error);
      }
    }
  }
  assert.ok(read > 0);
});
