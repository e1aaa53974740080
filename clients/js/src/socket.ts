/** One WebSocket: messages instead of frames, and an end that comes once. */
import type { ClientMessage, Codec, ServerMessage } from "./messages.js";

/** What is used of a WebSocket, as browsers and the package `ws` have it. */
export interface WebSocketLike {
  binaryType: string;
  onmessage: unknown;
  onclose: unknown;
  onerror: unknown;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** Its constructor. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** Who listens. */
export interface Listener {
  message(message: ServerMessage): void;
  /** A frame that the codec cannot read, or no message that the protocol has. */
  unreadable(error: unknown): void;
  /** Not called after {@link Socket.close}. */
  ended(code: number, reason: string): void;
}

const nobody = (): void => undefined;

export class Socket {
  readonly #socket: WebSocketLike;
  readonly #codec: Codec;

  constructor(socket: WebSocketLike, codec: Codec, listener: Listener) {
    this.#socket = socket;
    this.#codec = codec;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }: { data: unknown }) => {
      try {
        listener.message(codec.decode(data));
      } catch (error) {
        listener.unreadable(error);
      }
    };
    // what went wrong is told by the close that follows; without a handler `ws` would throw
    socket.onerror = nobody;
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      listener.ended(code, reason);
    };
  }

  /** Throws when the codec cannot say it. */
  send(message: ClientMessage): void {
    const frame = this.#codec.encode(message);
    this.#socket.send(frame);
  }

  /** Closes; the listener hears nothing any more. */
  close(code: number, reason: string): void {
    this.#socket.onmessage = this.#socket.onclose = nobody;
    this.#socket.close(code, reason);
  }
}
