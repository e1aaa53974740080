/** `@wsfleet/client`: see README.md. */
export { Client, type ClientEvents } from "./client.js";
export { WsfleetError } from "./errors.js";
export { json } from "./json.js";
export type * from "./messages.js";
export type { Clock, Options } from "./options.js";
export type { Room, RoomEvents, SendOptions } from "./room.js";
export type { State, StateChange } from "./session.js";
export type { WebSocketConstructor, WebSocketLike } from "./socket.js";
export type { Unrecovered } from "./stream.js";
export type { Token, TokenSource } from "./tokens.js";
