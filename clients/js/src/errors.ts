/** What a promise of the client is rejected with. */
export class WsfleetError extends Error {
  override readonly name = "WsfleetError";
  /**
   * The gateway's code (`forbidden`, `overloaded`, ...), or one of the client's: `buffer_full` (wait for what was sent
   * before), `closed` (connect again), `left` (join the room again), `not_joined` (join the room first), `encoding` (the
   * codec cannot say it).
   */
  readonly code: string;
  /** Whether the same may work later. */
  readonly temporary: boolean;
  /** Of a message that was sent: sending it again with this `msgId` does not make it two. */
  readonly msgId: string | undefined;

  constructor(code: string, text: string, temporary = false, msgId?: string) {
    super(text);
    this.code = code;
    this.temporary = temporary;
    this.msgId = msgId;
  }
}
