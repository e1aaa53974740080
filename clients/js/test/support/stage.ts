/** A client of a gateway that the test plays, and what such a gateway says. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { Client, Options, StateChange } from "../../src/index.js";
import type { DirectMessage, Joined, RoomMessage, ServerMessage } from "../../src/messages.js";
import { VirtualClock } from "./clock.js";
import { client } from "./gateway.js";
import { Scripted, type Peer } from "./scripted.js";
import { until } from "./wait.js";

export const joined = (room: string, offset: number, more: Partial<Joined> = {}): Joined => ({
  type: "joined",
  room,
  epoch: "e",
  offset,
  ...more,
});
export const message = (offset: number, roomId = "r"): RoomMessage => ({
  type: "room_message",
  roomId,
  userId: "v",
  payload: offset,
  timestamp: 0,
  serverId: "s",
  offset,
});
/** A direct message. */
export const direct = (offset: number): DirectMessage => ({
  type: "direct_message",
  fromUserId: "v",
  payload: offset,
  timestamp: 0,
  offset,
});
export const shutdown: ServerMessage = {
  type: "server_shutdown",
  reason: "drain",
  reconnectDelay: 4_000,
  deadline: null,
  resume: true,
};

export interface Stage {
  clock: VirtualClock;
  gateway: Scripted;
  one: Client;
  states: StateChange[];
  first: Peer;
}

/** A client of a gateway that the test plays, in virtual time, welcomed. */
export async function stage(t: TestContext, options: Partial<Options> = {}, features: string[] = []): Promise<Stage> {
  const clock = new VirtualClock();
  const gateway = await Scripted.start(t);
  const one = client(t, { url: gateway.url, clock, random: () => 0.5, ...options });
  const states: StateChange[] = [];
  one.on("state", (change) => states.push(change));
  one.connect();
  const first = await gateway.peer(0);
  first.welcome(features);
  await until("it is open", () => one.state === "open");
  return { clock, gateway, one, states, first };
}

/** The room `r`, joined on a connection at this offset, and the offsets of its messages. */
export async function inRoom(one: Client, peer: Peer, offset: number): Promise<{ seen: unknown[]; lost: unknown[] }> {
  const room = one.room("r");
  const seen: unknown[] = [];
  const lost: unknown[] = [];
  room.on("message", ({ payload }) => seen.push(payload));
  room.on("unrecovered", (event) => lost.push(event));
  room.on("gap", (event) => lost.push(event));
  const done = room.join();
  const join = await peer.expect("join");
  assert.deepEqual([join.epoch, join.offset], [undefined, undefined]);
  peer.send(joined("r", offset));
  assert.deepEqual(await done, { epoch: "e", offset });
  return { seen, lost };
}

/** All that it is told of its user's own stream, in order. */
export function directs(one: Client): unknown[] {
  const seen: unknown[] = [];
  one.on("direct", ({ offset }) => seen.push(offset));
  one.on("unrecovered", (lost) => seen.push(lost));
  one.on("gap", ({ from, to }) => seen.push([from, to]));
  return seen;
}

/** Waits until the client waits, and lets that time pass. */
export async function comesBack({ clock, one, gateway }: Stage, number: number): Promise<Peer> {
  await until("it waits", () => one.state === "reconnecting");
  clock.advance(clock.due);
  return gateway.peer(number);
}
