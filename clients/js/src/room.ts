/** A room as the application sees it: it stays joined over reconnects, until it is left. */
import { Emitter } from "./emitter.js";
import { WsfleetError } from "./errors.js";
import type {
  Ack,
  ClientMessage,
  Gap,
  History,
  Joined,
  Position,
  Presence,
  PresenceList,
  RoomMessage,
} from "./messages.js";
import type { Request } from "./requests.js";
import { Stream, type Unrecovered } from "./stream.js";

/** What happens in a room. */
export interface RoomEvents {
  /** A message, each once and in order. */
  message: RoomMessage;
  /** Messages that will not come: the client read too slowly, or nobody knows why. */
  gap: { from: number; to: number };
  /** After a reconnect not all could be had that was sent in between. */
  unrecovered: Unrecovered;
  userJoined: Presence;
  userLeft: Presence;
  /** The room is joined, on the first connection or on another. */
  joined: Joined;
  /** It is left: by `leave`, or because the gateway does not allow it (any more). */
  left: WsfleetError | undefined;
}

/** How a message is sent. */
export interface SendOptions {
  /** To send again what failed, as one message: the `msgId` of the error. */
  msgId?: string;
}

/** A promise that others keep. */
interface Waiting {
  resolve: (position: Position) => void;
  reject: (error: WsfleetError) => void;
}

/** What a room needs of the client. */
export interface Port {
  /** Sends a message that has an answer. */
  request<Answer>(message: Record<string, unknown> & { type: Request["type"] }): Promise<Answer>;
  /** Sends a message that has none, if there is a connection. */
  tell(message: ClientMessage): void;
  /** Rooms, or what waits for them, can go on. */
  turn(): void;
  /** It is left: what waits for it has no use. */
  left(room: Room): void;
}

export class Room extends Emitter<RoomEvents> {
  /** Its name. */
  readonly name: string;
  readonly #port: Port;
  #stream: Stream<RoomMessage> | undefined;
  #waiting: Waiting[] = [];
  /** The link it is joined on; 0: none. */
  #link = 0;
  /** The join that is not answered. */
  #asked: { id: string; link: number } | undefined;
  /** A join that was refused for a time is not tried before. */
  #notBefore = 0;

  /** For the client, which has one for each name. */
  constructor(name: string, port: Port) {
    super();
    this.name = name;
    this.#port = port;
  }

  /** The last message that was received, while the room is joined. */
  get position(): Readonly<Position> | undefined {
    return this.#stream?.position;
  }

  /** Joins, and stays joined until {@link leave}. Handlers should be there before. */
  join(): Promise<Position> {
    this.#stream ??= new Stream({
      message: (message) => {
        this.emit("message", message);
      },
      gap: (gap) => {
        this.emit("gap", gap);
      },
      unrecovered: (lost) => {
        this.emit("unrecovered", lost);
      },
    });
    const { position } = this;
    if (this.#link && position) return Promise.resolve({ ...position });
    const joined = new Promise<Position>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    // who does not await it is told by `left`
    joined.catch(() => undefined);
    this.#port.turn();
    return joined;
  }

  /** Leaves. */
  leave(): void {
    if (!this.#stream) return;
    this.#port.tell({ type: "leave", room: this.name });
    this.onLeft();
  }

  /** Sends to all members, this one included; the promise is kept when the broker has accepted it. */
  send(payload: unknown, options: SendOptions = {}): Promise<Ack> {
    return this.#ask({ type: "room_message", payload, ...options });
  }

  /** Who is in the room; `next` of an answer is `after` of the question for those behind it. */
  presence(after?: string, limit?: number): Promise<PresenceList> {
    return this.#ask({
      type: "presence",
      ...(after !== undefined && { after }),
      ...(limit !== undefined && { limit }),
    });
  }

  /** The last messages, or the last before an offset. */
  history(limit: number, before?: number): Promise<History> {
    return this.#ask({ type: "history", limit, ...(before !== undefined && { before }) });
  }

  #ask<Answer>(message: { type: Request["type"] } & Record<string, unknown>): Promise<Answer> {
    if (this.#stream) return this.#port.request<Answer>({ ...message, room: this.name });
    return Promise.reject(new WsfleetError("not_joined", `join the room ${this.name} first`));
  }

  /** @internal Whether its messages may be sent on a link. */
  isOn(link: number): boolean {
    return this.#link === link;
  }

  /** @internal Whether a link that is being left is not needed any more. */
  settled(link: number): boolean {
    return !this.#stream || (this.#link === link && this.#stream.settled);
  }

  /** @internal The join to be sent on this link now, if one is due. */
  ask(link: number, id: string, now: number): ClientMessage | undefined {
    if (!this.#due(link) || now < this.#notBefore) return undefined;
    this.#asked = { id, link };
    return { type: "join", room: this.name, id, ...this.position };
  }

  /** @internal When {@link ask} is to be tried again. */
  wakeup(link: number): number {
    return this.#due(link) ? this.#notBefore : Infinity;
  }

  #due(link: number): boolean {
    return this.#stream !== undefined && this.#link !== link && this.#asked?.link !== link;
  }

  /** @internal */
  onJoined(joined: Joined, link: number, current: boolean): void {
    if (!this.#stream) return;
    if (current) this.#link = link;
    if (this.#asked?.link === link) this.#asked = undefined;
    this.emit("joined", joined);
    this.#stream.joined(joined, link);
    for (const { resolve } of this.#waiting.splice(0)) resolve({ epoch: joined.epoch, offset: joined.offset });
  }

  /** @internal A join was not served; true when it was this room's. */
  onRefused(id: string | undefined, error: WsfleetError, retryAt: number): boolean {
    if (!this.#asked || this.#asked.id !== id) return false;
    this.#asked = undefined;
    if (error.temporary) this.#notBefore = retryAt;
    else this.onLeft(error);
    return true;
  }

  /** @internal Until somebody connects again. */
  onClosed(why: WsfleetError): void {
    for (const { reject } of this.#waiting.splice(0)) reject(why);
  }

  /** @internal */
  onLeft(error?: WsfleetError): void {
    this.#stream = this.#asked = undefined;
    this.#link = 0;
    this.#port.left(this);
    this.onClosed(error ?? new WsfleetError("left", `the room ${this.name} was left`));
    this.emit("left", error);
  }

  /** @internal */
  onMessage(message: RoomMessage, link: number): void {
    this.#stream?.message(message, link);
  }

  /** @internal */
  onGap(gap: Gap, link: number): void {
    this.#stream?.gap(gap, link);
  }

  /** @internal */
  onPresence(presence: Presence): void {
    this.emit(presence.type === "user_joined" ? "userJoined" : "userLeft", presence);
  }

  /** @internal Nothing more comes on this link. */
  onLost(link: number): void {
    if (this.#link === link) this.#link = 0;
    if (this.#asked?.link === link) this.#asked = undefined;
    this.#stream?.ended(link);
  }
}
