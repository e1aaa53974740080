/** Messages that flow while something happens to those who get them. */
import { performance } from "node:perf_hooks";
import { setTimeout as pause } from "node:timers/promises";
import { WebSocket } from "ws";
import type { Client, Room } from "../../src/index.js";

/** The numbers from 1 to this one. */
export const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

/** A room, joined, with what comes in it. */
export async function joined(one: Client, name: string): Promise<{ room: Room; seen: unknown[]; lost: unknown[] }> {
  const room = one.room(name);
  const seen: unknown[] = [];
  const lost: unknown[] = [];
  room.on("message", ({ payload }) => seen.push(payload));
  room.on("gap", (event) => lost.push(event));
  room.on("unrecovered", (event) => lost.push(event));
  await room.join();
  return { room, seen, lost };
}

/** The direct messages that come, and what is told of those that do not. */
export function directs(one: Client): { seen: unknown[]; lost: unknown[] } {
  const seen: unknown[] = [];
  const lost: unknown[] = [];
  one.on("direct", ({ payload }) => seen.push(payload));
  one.on("gap", (event) => lost.push(event));
  one.on("unrecovered", (event) => lost.push(event));
  return { seen, lost };
}

/** Sends numbers, so many a second, or each when the one before was accepted, until told to stop; says how many. */
export function flow(send: (number: number) => Promise<unknown>, perSecond = Infinity): () => Promise<number> {
  const going = { on: true };
  const sending = (async () => {
    const start = performance.now();
    const answers: Promise<unknown>[] = [];
    let count = 0;
    while (going.on) {
      const answer = send(++count);
      answers.push(answer);
      const due = start + (count * 1_000) / perSecond - performance.now();
      if (perSecond === Infinity) await answer;
      else if (due > 0) await pause(due);
    }
    await Promise.all(answers);
    return count;
  })();
  return () => {
    going.on = false;
    return sending;
  };
}

/** A WebSocket constructor whose sockets a test can cut, and what was sent and received by them. */
export function cuttable() {
  const sockets: WebSocket[] = [];
  const sent: string[] = [];
  class Cuttable extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      sockets.push(this);
    }

    override send(data: string): void {
      sent.push(data);
      super.send(data);
    }
  }
  return {
    WebSocket: Cuttable,
    /** What the clients sent, as text. */
    sent,
    /** How many connections there have been. */
    connections: () => sockets.length,
    /** From now on the client hears nothing more on its connection. */
    deafen: () => {
      for (const socket of sockets) socket.onmessage = null;
    },
    /** The last connection ends without a close. */
    cut: () => sockets.at(-1)?.terminate(),
  };
}
