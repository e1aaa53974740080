// `ws` with its defaults, as its README shows authentication and broadcast: `?token=&room=`, every text goes to the room.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { listen, verify } from "./common.js";

const rooms = new Map();
const server = createServer();
const wss = new WebSocketServer({ noServer: true });

server.on("upgrade", (request, socket, head) => {
  const query = new URL(request.url, "http://localhost").searchParams;
  let user;
  try {
    user = verify(query.get("token"));
  } catch {
    socket.end("HTTP/1.1 401 Unauthorized\r\n\r\n");
    return;
  }
  wss.handleUpgrade(request, socket, head, (client) => {
    client.user = user;
    join(client, query.get("room"));
  });
});

function join(client, name) {
  const room = rooms.get(name) ?? new Set();
  rooms.set(name, room.add(client));
  client.on("error", console.error);
  client.on("message", (data) => {
    for (const member of room) member.send(data, { binary: false });
  });
  client.on("close", () => {
    room.delete(client);
    if (room.size === 0) rooms.delete(name);
  });
  client.send("joined");
}

server.listen(listen.port, listen.host);
