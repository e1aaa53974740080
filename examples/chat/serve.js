// Serves the page, and the built client library under /client/:  node examples/chat/serve.js [PORT]
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";

const PAGE = import.meta.dirname;
const CLIENT = join(PAGE, "../../clients/js/dist");
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript" };

/** The file that an address names; nothing outside of the two folders can be named. */
function file(address) {
  const { pathname } = new URL(address, "http://localhost");
  const [, folder, name] = /^\/(client\/)?([a-z]+\.[a-z]+)?$/.exec(pathname) ?? [];
  return folder ? name && join(CLIENT, name) : pathname === "/" || name ? join(PAGE, name ?? "index.html") : undefined;
}

/** Listens on this port of this machine, 0 for any that is free. */
export function serve(port) {
  const server = createServer((request, response) => {
    const path = file(request.url ?? "/");
    const read = path ? readFile(path) : Promise.reject(new Error("no such page"));
    read.then(
      (body) => response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" }).end(body),
      () => response.writeHead(404).end("not there; is the client built (npm run build in clients/js)?\n"),
    );
  });
  return new Promise((done) => server.listen(port, "127.0.0.1", () => done(server)));
}

if (process.argv[1] === import.meta.filename) {
  const server = await serve(Number(process.argv[2] ?? 8000));
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
