/** A gateway that a test plays itself, on real sockets: for what today's gateway cannot be made to do at will. */
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { WebSocketServer, type WebSocket } from "ws";
import type { ClientMessage, Position, ServerMessage } from "../../src/messages.js";
import { until } from "./wait.js";

/** A connection as the gateway sees it. */
export class Peer {
  readonly received: ClientMessage[] = [];
  readonly request: string;
  readonly protocols: string;
  readonly socket: WebSocket;
  /** The code of its end. */
  closed: number | undefined;

  constructor(socket: WebSocket, request: string, protocols: string) {
    this.socket = socket;
    this.request = request;
    this.protocols = protocols;
    socket.on("message", (data: Buffer) => this.received.push(JSON.parse(data.toString()) as ClientMessage));
    socket.on("close", (code) => (this.closed = code));
  }

  send(...messages: ServerMessage[]): void {
    for (const message of messages) this.socket.send(JSON.stringify(message));
  }

  /** The first message of a type that was not asked for yet. */
  async expect<Type extends ClientMessage["type"]>(type: Type): Promise<Extract<ClientMessage, { type: Type }>> {
    const at = await until(`a ${type} came`, () => {
      const found = this.received.findIndex((message) => message.type === type);
      return found < 0 ? undefined : { found };
    });
    return this.received.splice(at.found, 1)[0] as Extract<ClientMessage, { type: Type }>;
  }

  welcome(features: string[] = [], messagesPerSecond = 0, position: Position = { epoch: "p", offset: 0 }): void {
    this.send({
      type: "welcome",
      connectionId: "c",
      userId: "u",
      serverId: "s",
      pingInterval: 30_000,
      limits: { messageBytes: 0, roomNameBytes: 0, roomsPerConnection: 0, messagesPerSecond, bytesPerSecond: 0 },
      features,
      resumeWindow: 300_000,
      position,
    });
  }
}

/** Its listener. */
export class Scripted {
  readonly peers: Peer[] = [];
  readonly #server: WebSocketServer;

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on("connection", (socket, request) => {
      this.peers.push(new Peer(socket, request.url ?? "", request.headers["sec-websocket-protocol"] ?? ""));
    });
  }

  static async start(t: TestContext): Promise<Scripted> {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    const scripted = new Scripted(server);
    await new Promise((done) => server.once("listening", done));
    t.after(() => {
      for (const socket of server.clients) socket.terminate();
      server.close();
    });
    return scripted;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/ws`;
  }

  /** The connection of this number, from 0. */
  peer(number: number): Promise<Peer> {
    return until(`connection ${number} is there`, () => this.peers[number]);
  }
}
