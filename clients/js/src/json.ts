/** The codec `wsfleet.v1.json`: a JSON object in a text frame. */
import type { Codec, ServerMessage } from "./messages.js";

export const json: Codec = {
  subprotocol: "wsfleet.v1.json",
  encode: (message) => JSON.stringify(message),
  decode: (data) => JSON.parse(data as string) as ServerMessage,
};
