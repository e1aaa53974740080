/** All rooms of a client: which are to be joined on a link, and whether a link that is being left is needed yet. */
import { WsfleetError } from "./errors.js";
import type { ClientMessage, ErrorMessage, Position, ServerMessage } from "./messages.js";
import { Room, type Port } from "./room.js";

type InRoom = Extract<
  ServerMessage,
  { type: "joined" | "left" | "room_message" | "gap" | "user_joined" | "user_left" }
>;

/** The pause before a join is tried again that was refused for a time. */
const JOIN_AGAIN = 1_000;
/** The `id` of a `resume`, of which there is at most one on a connection. */
export const RESUME = "resume";

export class Rooms {
  readonly #all = new Map<string, Room>();
  readonly #port: Port;

  constructor(port: Port) {
    this.#port = port;
  }

  /** The room of that name, if somebody asked for it. */
  find(name: string): Room | undefined {
    return this.#all.get(name);
  }

  /** The room of that name; the same each time. */
  get(name: string): Room {
    let room = this.#all.get(name);
    if (!room) this.#all.set(name, (room = new Room(name, this.#port)));
    return room;
  }

  /** Asks for all rooms with a position at once, and for what was missed of the user's own stream. */
  resume(link: number, user: Position | undefined, now: number): ClientMessage | undefined {
    const rooms = [...this.#all.values()].flatMap((room) => {
      const { name, position } = room;
      return position && room.ask(link, RESUME, now) ? [{ room: name, ...position }] : [];
    });
    if (rooms.length === 0 && !user) return undefined;
    return { type: "resume", rooms, id: RESUME, ...(user && { user }) };
  }

  /** The joins that are due on a link, one after the other, as long as `may` allows. */
  ask(link: number, now: number, id: () => string, may: () => boolean, send: (join: ClientMessage) => void): void {
    for (const room of this.#all.values()) {
      if (room.wakeup(link) > now) continue;
      if (!may()) return;
      const join = room.ask(link, id(), now);
      if (join) send(join);
    }
  }

  /** When {@link ask} is to be called next. */
  wakeup(link: number): number {
    return Math.min(...[...this.#all.values()].map((room) => room.wakeup(link)));
  }

  /** A join was not served. False: it was none. */
  refused({ id, error, code, temporary }: ErrorMessage, now: number): boolean {
    const why = new WsfleetError(code, error, temporary);
    return [...this.#all.values()].some((room) => room.onRefused(id, why, now + JOIN_AGAIN));
  }

  /** A `resume` was not served: the rooms are joined one by one. */
  unresumed(now: number): void {
    const why = new WsfleetError("unsupported", "", true);
    for (const room of this.#all.values()) room.onRefused(RESUME, why, now);
  }

  /** Whoever waits for a join waits in vain. */
  closed(why: WsfleetError): void {
    for (const room of this.#all.values()) room.onClosed(why);
  }

  /** What came of a room, on the link in use or on the one that is being left. */
  received(message: InRoom, link: number, current: boolean): void {
    const room = this.find(("roomId" in message ? message.roomId : message.room) ?? "");
    switch (message.type) {
      case "joined":
        room?.onJoined(message, link, current);
        break;
      case "left":
        if (room?.isOn(link)) room.onLeft(new WsfleetError("left", "the gateway does not allow the room any more"));
        break;
      case "room_message":
        room?.onMessage(message, link);
        break;
      case "gap":
        room?.onGap(message, link);
        break;
      case "user_joined":
      case "user_left":
        // while the client moves both links tell it
        if (current) room?.onPresence(message);
    }
  }

  /** Nothing more comes on this link. */
  lost(link: number): void {
    for (const room of this.#all.values()) room.onLost(link);
  }

  /** All is on this link that was on another. */
  settled(link: number): boolean {
    return [...this.#all.values()].every((room) => room.settled(link));
  }
}
