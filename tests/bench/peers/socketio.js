// Socket.IO with its defaults, as its documentation shows middleware, rooms and graceful shutdown.
import { Server } from "socket.io";
import { createServer } from "node:http";
import { listen, verify } from "./common.js";

const server = createServer();
const io = new Server(server);

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
  socket.on("publish", (room, text) => io.to(room).emit("message", text));
});

process.on("SIGTERM", () => io.close());
server.listen(listen.port, listen.host);
