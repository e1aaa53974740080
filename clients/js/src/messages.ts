/**
 * The messages of the gateway's protocol, as JSON says them; `docs/protocol.md` and `docs/asyncapi.yaml` say what they
 * mean. Times are milliseconds since 1970-01-01 UTC, durations are milliseconds.
 */

/** A place in a stream: an epoch (one life of the stream) and an offset (1 for its first message, +1 for each). */
export interface Position {
  epoch: string;
  offset: number;
}

/** What a client sends. */
export type ClientMessage =
  | { type: "join"; room: string; id: string; epoch?: string; offset?: number }
  | { type: "leave"; room: string; id?: string }
  | { type: "room_message"; room: string; payload: unknown; id: string; msgId: string }
  | { type: "direct_message"; targetUserId: string; payload: unknown; id: string; msgId: string }
  | { type: "event"; name: string; payload: unknown; id: string; msgId: string }
  | { type: "resume"; id: string; rooms: ({ room: string } & Position)[]; user?: Position }
  | { type: "presence"; room: string; limit?: number; after?: string; id: string }
  | { type: "history"; room: string; limit: number; before?: number; id: string }
  | { type: "refresh"; token: string; id: string }
  | { type: "ping" };

/** The first message on every connection. */
export interface Welcome {
  type: "welcome";
  connectionId: string;
  userId: string;
  serverId: string;
  /** Time between the gateway's pings. */
  pingInterval: number;
  /** What the client must keep to; 0 is no limit. */
  limits: {
    messageBytes: number;
    roomNameBytes: number;
    roomsPerConnection: number;
    messagesPerSecond: number;
    bytesPerSecond: number;
  };
  features: string[];
  /** For how long positions can be resumed, at most. */
  resumeWindow: number;
  /** Where the user's own stream of direct messages is: the client gets what comes after. */
  position: Position;
}

/** The client is in the room, and gets every message after this position. */
export interface Joined extends Position {
  type: "joined";
  room: string;
  /** Whether all that was missed follows, in order. Not there: the gateway cannot resume. */
  recovered?: boolean;
  /** Why not: `epoch_changed`, `too_old` or `limit`. */
  reason?: string;
}

/** A message to a room. */
export interface RoomMessage {
  type: "room_message";
  roomId: string;
  userId: string;
  payload: unknown;
  timestamp: number;
  serverId: string;
  offset: number;
}

/** A message to the client's user. */
export interface DirectMessage {
  type: "direct_message";
  fromUserId: string;
  payload: unknown;
  timestamp: number;
  offset: number;
}

/** Messages that will not come: `from` to `to`, both included. With another epoch the stream has begun anew. */
export interface Gap {
  type: "gap";
  /** Not there: direct messages. */
  room?: string;
  from: number;
  to: number;
  epoch: string;
}

/** Another user came to a room, or left it. */
export interface Presence {
  type: "user_joined" | "user_left";
  roomId: string;
  userId: string;
  serverId: string;
}

/** The broker has accepted a message. */
export interface Ack extends Position {
  type: "ack";
  id: string;
  /** It had been accepted before: only one of the two was sent on. */
  duplicate: boolean;
}

/** The gateway will close this connection. */
export interface ServerShutdown {
  type: "server_shutdown";
  reason: string;
  /** When this very client is to reconnect, from now. */
  reconnectDelay: number;
  /** When the last connection will be closed. */
  deadline: number | null;
  resume: boolean;
}

/** A message of the client was not served; the connection stays. */
export interface ErrorMessage {
  type: "error";
  error: string;
  code: string;
  /** Whether the same message may be accepted later. */
  temporary: boolean;
  id?: string;
}

/** Who is in a room; `next` is there when there are more. */
export interface PresenceList {
  type: "presence";
  room: string;
  /** In the order of their bytes in UTF-8. */
  users: string[];
  /** How many there are in all. */
  count: number;
  next?: string;
  id?: string;
}

/** What was sent to a room before. */
export interface History {
  type: "history";
  room: string;
  messages: Omit<RoomMessage, "type" | "roomId">[];
  /** There are older ones, before this offset. */
  next?: number;
  id?: string;
}

/** Whether the direct messages follow that were missed. */
export interface Resumed extends Position {
  type: "resumed";
  recovered: boolean;
  reason?: string;
}

/** What the gateway sends. */
export type ServerMessage =
  | Welcome
  | Joined
  | RoomMessage
  | DirectMessage
  | Gap
  | Presence
  | Ack
  | ServerShutdown
  | ErrorMessage
  | PresenceList
  | History
  | Resumed
  | { type: "routing_token"; token: string }
  | { type: "left"; room: string }
  | { type: "refreshed"; expiresAt: number | null; id?: string }
  | { type: "pong" };

/** How messages become frames. Throws what says why when it cannot. */
export interface Codec {
  /** The subprotocol that is offered. */
  readonly subprotocol: string;
  encode(message: ClientMessage): string | Uint8Array<ArrayBuffer>;
  decode(data: unknown): ServerMessage;
}
