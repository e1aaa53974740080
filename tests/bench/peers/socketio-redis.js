// Socket.IO as one of several servers, with its Redis adapter, as the adapter's documentation shows it; and what a back end
// asks of it: `POST /api/v1/publish {"room", "payload"}` on a port of its own, answered when the adapter has it.
//   node socketio-redis.js PORT SECRET_FILE REDIS_URL API_PORT
import { createAdapter } from "@socket.io/redis-adapter";
import { createServer } from "node:http";
import { createClient } from "redis";
import { Server } from "socket.io";
import { listen, verify } from "./common.js";

const [, , , , redisUrl, apiPort] = process.argv;
if (!redisUrl || !apiPort) {
  console.error("usage: node socketio-redis.js PORT SECRET_FILE REDIS_URL API_PORT");
  process.exit(64);
}
const publisher = createClient({ url: redisUrl });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const server = createServer();
const io = new Server(server, { adapter: createAdapter(publisher, subscriber) });

io.use((socket, next) => {
  try {
    socket.data.user = verify(socket.handshake.auth.token);
    next();
  } catch (error) {
    next(error);
  }
});

io.on("connection", (socket) => {
  socket.on("join", (room, joined) => {
    socket.join(room);
    joined();
  });
});

const api = createServer((request, response) => {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    const { room, payload } = JSON.parse(body);
    io.to(room).emit("message", payload);
    response.setHeader("content-type", "application/json");
    response.end("{}");
  });
});

process.on("SIGTERM", () => io.close());
api.listen(Number(apiPort), listen.host, () => server.listen(listen.port, listen.host));
