/**
 * The client: does what the {@link Session} says with real sockets and timers, and gives each message to whom it
 * concerns.
 */
import { Emitter } from "./emitter.js";
import { WsfleetError } from "./errors.js";
import type {
  Ack,
  ClientMessage,
  DirectMessage,
  ErrorMessage,
  ServerMessage,
  ServerShutdown,
  Welcome,
} from "./messages.js";
import { settings, type Options, type Settings } from "./options.js";
import { Pace } from "./pace.js";
import { Requests, type Request } from "./requests.js";
import type { Port, Room, SendOptions } from "./room.js";
import { RESUME, Rooms } from "./rooms.js";
import { Session, type Effect, type State, type StateChange } from "./session.js";
import { Socket } from "./socket.js";
import { Stream, type Unrecovered } from "./stream.js";
import { Tokens } from "./tokens.js";

/** What happens to a client. */
export interface ClientEvents {
  /** It connects, is open, waits, or is closed for good. */
  state: StateChange;
  /** Every connection begins with it. */
  welcome: Welcome;
  /** A direct message, each once. */
  direct: DirectMessage;
  /** Direct messages that will not come: the client read too slowly. */
  gap: { from: number; to: number };
  /** After a reconnect not all direct messages could be had that were sent in between. */
  unrecovered: Unrecovered;
  /** The gateway goes away; the client moves by itself. */
  shutdown: ServerShutdown;
  /** What no promise tells. */
  error: WsfleetError;
}

type Refreshed = Extract<ServerMessage, { type: "refreshed" }>;

/** What nobody could connect to. */
const ABNORMAL = 1006;
/** What a timer can wait. */
const LONGEST = 2 ** 31 - 1;

export class Client extends Emitter<ClientEvents> {
  readonly #settings: Settings;
  readonly #session: Session;
  readonly #tokens: Tokens;
  readonly #requests: Requests;
  /** The user's own stream. */
  readonly #personal = new Stream<DirectMessage>({
    message: (message) => {
      this.emit("direct", message);
    },
    gap: (gap) => {
      this.emit("gap", gap);
    },
    unrecovered: (lost) => {
      this.emit("unrecovered", lost);
    },
  });
  readonly #pace = new Pace();
  readonly #sockets = new Map<number, Socket | undefined>();
  readonly #msgIds: string;
  readonly #effects: Effect[] = [];
  #ids = 0;
  #welcome: Welcome | undefined;
  /** More waits than the gateway's limits let through at once. */
  #paced = false;
  #running = false;
  #cancel: (() => void) | undefined;

  /** Made, and not connected. Throws when there is no WebSocket. */
  constructor(options: Options) {
    super();
    this.#settings = settings(options);
    const { token, refreshBefore, maxPending, random } = this.#settings;
    this.#session = new Session(this.#settings, random);
    this.#tokens = new Tokens(token, refreshBefore);
    this.#requests = new Requests(maxPending);
    this.#msgIds = [0, 0].map(() => random().toString(36).slice(2)).join("");
  }

  /** What it is doing. */
  get state(): State {
    return this.#session.state;
  }

  /** What the gateway said of itself on the connection in use. */
  get welcome(): Welcome | undefined {
    return this.#session.current === undefined ? undefined : this.#welcome;
  }

  /** Connects, and reconnects until {@link close} or a close code that says not to. */
  connect(): void {
    this.#run(() => {
      this.#session.start(this.#now());
    });
  }

  /** Closes for good. What was not answered is rejected with `closed`. */
  close(): void {
    this.#run(() => {
      this.#session.stop();
    });
  }

  /** The room of that name; the same each time. It is joined by its `join`. */
  room(name: string): Room {
    return this.#rooms.get(name);
  }

  /** Sends to all devices of a user; the promise is kept when the broker has accepted it. */
  direct(targetUserId: string, payload: unknown, options: SendOptions = {}): Promise<Ack> {
    return this.#port.request({ type: "direct_message", targetUserId, payload, ...options });
  }

  /** Tells the workers behind the gateways something; the promise is kept when their stream has it, with no place in it. */
  event(name: string, payload: unknown, options: SendOptions = {}): Promise<Ack> {
    return this.#port.request({ type: "event", name, payload, ...options });
  }

  readonly #port: Port = {
    request: (message) => {
      if (this.state === "closed")
        return Promise.reject(new WsfleetError("closed", "the client is closed: connect first"));
      const id = `m${++this.#ids}`;
      const answer = this.#requests.add({
        msgId: `${this.#msgIds}-${this.#ids}`,
        ...message,
        id,
      } as unknown as Request);
      // who does not await it does not want to know
      answer.catch(() => undefined);
      this.#run();
      return answer as Promise<never>;
    },
    tell: (message) => {
      this.#send(this.#session.current, message);
    },
    turn: () => {
      this.#run();
    },
    left: ({ name }) => {
      const why = new WsfleetError("left", `the room ${name} was left`);
      this.#requests.failAll((message) => "room" in message && message.room === name, why);
    },
  };

  readonly #rooms = new Rooms(this.#port);

  #now(): number {
    return this.#settings.clock.now();
  }

  /** An input, and all that follows from it. */
  #run(input?: () => void): void {
    input?.();
    this.#effects.push(...this.#session.take());
    // called by a handler: who called the handler goes on
    if (this.#running) return;
    this.#running = true;
    try {
      for (;;) {
        const effect = this.#effects.shift();
        if (effect) this.#do(effect);
        else this.#turn();
        this.#effects.push(...this.#session.take());
        if (!effect && this.#effects.length === 0) break;
      }
    } finally {
      this.#running = false;
      this.#arm();
    }
  }

  #do(effect: Effect): void {
    switch (effect.do) {
      case "open":
        void this.#open(effect.link);
        break;
      case "close":
        this.#sockets.get(effect.link)?.close(effect.code, effect.reason);
        this.#sockets.delete(effect.link);
        break;
      case "ping":
        this.#send(effect.link, { type: "ping" });
        break;
      case "adopt":
        this.#adopt(effect.link);
        break;
      case "lost":
        this.#sockets.delete(effect.link);
        this.#requests.failAll(
          ({ type }) => type === "refresh",
          new WsfleetError("lost", "the connection ended", true),
        );
        this.#requests.lost(effect.link);
        this.#rooms.lost(effect.link);
        this.#personal.ended(effect.link);
        break;
      case "state":
        if (effect.change.state === "closed") {
          const why = new WsfleetError("closed", `the client is closed: ${effect.change.reason}`);
          this.#requests.failAll(() => true, why);
          this.#rooms.closed(why);
        }
        this.emit("state", effect.change);
    }
  }

  async #open(link: number): Promise<void> {
    const { codec, tokenIn, WebSocket, url } = this.#settings;
    this.#sockets.set(link, undefined);
    try {
      const token = await this.#tokens.get(this.#now());
      // given up meanwhile
      if (!this.#sockets.has(link)) return;
      const target = new URL(typeof url === "string" ? url : url());
      const protocols = [codec.subprotocol];
      const { routing } = this.#session;
      if (routing !== undefined) target.searchParams.set("routing", routing);
      if (token !== undefined && tokenIn === "subprotocol") protocols.push(`bearer.${token}`);
      else if (token !== undefined) target.searchParams.set("token", token);
      const socket = new Socket(new WebSocket(target.href, protocols), codec, {
        message: (message) => {
          this.#run(() => {
            this.#received(message, link);
          });
        },
        unreadable: (error) => {
          this.#error("unreadable", String(error));
        },
        ended: (code, reason) => {
          this.#ended(link, code, reason);
        },
      });
      this.#sockets.set(link, socket);
    } catch (error) {
      this.#error("connect", String(error));
      this.#ended(link, ABNORMAL, String(error));
    }
  }

  #ended(link: number, code: number, reason: string): void {
    this.#run(() => {
      this.#session.ended(link, code, reason, this.#now());
    });
  }

  #adopt(link: number): void {
    const welcome = this.#welcome;
    if (!welcome) return;
    this.#pace.reset(welcome.limits.messagesPerSecond, this.#now());
    const { position } = this.#personal;
    // without an epoch nothing is kept
    const user = position?.epoch ? { ...position } : undefined;
    const resume = welcome.features.includes("resume") ? this.#rooms.resume(link, user, this.#now()) : undefined;
    if (!user || !resume) this.#begin(link);
    if (!resume) return;
    try {
      this.#send(link, resume);
    } catch (error) {
      this.#unresumed(link);
      this.#error("encoding", String(error));
    }
  }

  /** Direct messages are taken from where the gateway said that they begin on this link. */
  #begin(link: number): void {
    if (this.#welcome && !this.#personal.isOn(link)) this.#personal.joined(this.#welcome.position, link);
  }

  /** A `resume` was not served: rooms are joined one by one. */
  #unresumed(link: number): void {
    this.#begin(link);
    this.#rooms.unresumed(this.#now());
  }

  /** Sends, if that link is open. */
  #send(link: number | undefined, message: ClientMessage): void {
    if (link !== undefined) this.#sockets.get(link)?.send(message);
  }

  /** Sends what waits, as far as it can go now. */
  #turn(): void {
    const { current, old } = this.#session;
    if (current === undefined) return;
    const now = this.#now();
    this.#paced = false;
    const may = (): boolean => {
      this.#paced = !this.#pace.take(now);
      return !this.#paced;
    };
    const send = (message: ClientMessage): void => {
      this.#send(current, message);
    };
    const joined = (name: string): boolean => this.#rooms.find(name)?.isOn(current) ?? false;
    this.#rooms.ask(current, now, () => `j${++this.#ids}`, may, send);
    this.#requests.flush(current, (message) => (!("room" in message) || joined(message.room)) && may(), send);
    if (now >= this.#tokens.refreshAt) void this.#refresh();
    if (old === undefined || this.#requests.awaits(old) || !this.#rooms.settled(current)) return;
    if (this.#personal.isOn(current) && this.#personal.settled) this.#session.released();
  }

  /** Is called again when the next thing is due. */
  #arm(): void {
    const { current } = this.#session;
    const now = this.#now();
    const due = [this.#session.wakeup()];
    if (current !== undefined) {
      due.push(this.#tokens.refreshAt, this.#paced ? now + this.#pace.wait() : this.#rooms.wakeup(current));
    }
    this.#cancel?.();
    const at = Math.min(...due);
    if (at === Infinity) return;
    this.#cancel = this.#settings.clock.after(Math.min(Math.max(at - now, 0), LONGEST), () => {
      this.#run(() => {
        this.#session.tick(this.#now());
      });
    });
  }

  /** Goes on with another token, on the connection that is there. */
  async #refresh(): Promise<void> {
    try {
      const token = await this.#tokens.get(this.#now());
      const { expiresAt } = await this.#port.request<Refreshed>({ type: "refresh", token });
      if (expiresAt !== null) this.#tokens.until(expiresAt, this.#now());
    } catch (error) {
      if (!(error instanceof WsfleetError) || error.temporary) this.#tokens.later(this.#now());
      this.#error("refresh", String(error));
    }
    this.#run();
  }

  #error(code: string, text: string, temporary = true): void {
    this.emit("error", new WsfleetError(code, text, temporary));
  }

  #received(message: ServerMessage, link: number): void {
    const now = this.#now();
    this.#session.heard(link, now);
    switch (message.type) {
      case "welcome":
        this.#welcome = message;
        this.#session.welcomed(link, this.#settings.pingInterval ?? message.pingInterval, now);
        this.emit("welcome", message);
        break;
      case "routing_token":
        this.#session.routed(link, message.token);
        break;
      case "direct_message":
        this.#personal.message(message, link);
        break;
      case "resumed":
        this.#personal.joined(message, link);
        break;
      case "server_shutdown":
        this.#session.shutdown(link, message.reconnectDelay, message.deadline, now);
        this.emit("shutdown", message);
        break;
      case "pong":
        break;
      case "ack":
      case "refreshed":
      case "presence":
      case "history":
        this.#requests.answer(message);
        break;
      case "error":
        this.#refused(message, link);
        break;
      case "gap":
        if (message.room === undefined) this.#personal.gap(message, link);
        else this.#rooms.received(message, link, link === this.#session.current);
        break;
      default:
        this.#rooms.received(message, link, link === this.#session.current);
    }
  }

  #refused(message: ErrorMessage, link: number): void {
    const { id, code, error, temporary } = message;
    if (id === RESUME) this.#unresumed(link);
    else if (this.#rooms.refused(message, this.#now()) || this.#requests.fail(id, code, error, temporary)) return;
    else this.#error(code, error, temporary);
  }
}
