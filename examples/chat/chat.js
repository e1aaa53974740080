// The page: what the client says becomes what is seen. Its address says who, where and over which gateways:
// ?name=ann&room=lobby&gateway=ws://127.0.0.1:8080/ws (several gateways are taken in turn, as by a load balancer).
import { Client } from "@wsfleet/client";

/** Messages that stay on the page. */
const SHOWN = 5_000;

const query = new URLSearchParams(location.search);
const [name, roomName] = [query.get("name"), query.get("room") ?? "lobby"];
const gateways = query.getAll("gateway");
const element = (id) => document.getElementById(id);

/** An element with a text and a class; texts are never HTML. */
function make(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** A line at the end of the conversation; who has scrolled up is left there. */
function append(line) {
  const list = element("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(line);
  while (list.children.length > SHOWN) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

const note = (text) => append(make("li", text, "note"));

const count = (id, by = 1) => (element(id).textContent = Number(element(id).textContent) + by);

/** `user_ann` is what development mode makes of the token `ann`. */
const called = (userId) => userId.replace(/^user_/, "");

function message({ userId, payload, timestamp, serverId, offset }, mine) {
  const line = make("li", "", mine ? "mine" : "");
  line.dataset.offset = offset;
  const time = new Date(timestamp).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const about = make("span", `${called(userId)} · ${time} · #${offset}`, "about");
  about.title = `accepted by ${serverId}`;
  line.append(about, make("span", payload?.text ?? JSON.stringify(payload), "text"));
  append(line);
}

/** Who is in the room, as far as that is known. */
class People {
  #all = new Set();

  add(...users) {
    for (const user of users) this.#all.add(user);
    this.#show();
  }

  remove(user) {
    this.#all.delete(user);
    this.#show();
  }

  /** Asks the gateway, where it can say it. */
  async ask(client, room) {
    this.#all = new Set([client.welcome.userId]);
    this.#show();
    if (!client.welcome.features.includes("presence")) return;
    const { users } = await room.presence().catch(() => ({ users: [] }));
    this.add(...users);
  }

  #show() {
    const lines = [...this.#all].sort().map((user) => make("li", called(user)));
    element("people").replaceChildren(...lines);
  }
}

/** Shows the state; a wait counts down. */
function showState({ state, code, reason, delay }) {
  const shown = element("state");
  shown.dataset.state = state;
  const until = Date.now() + (delay ?? 0);
  const show = () => {
    if (shown.dataset.state !== state) return;
    const seconds = Math.ceil((until - Date.now()) / 1_000);
    shown.textContent = delay !== undefined && seconds > 0 ? `${state} in ${seconds} s` : state;
    if (seconds > 0) setTimeout(show, 250);
  };
  show();
  if (state === "reconnecting") note(`the connection ended (${code}${reason ? `: ${reason}` : ""})`);
  if (state === "closed") note(`closed (${code}${reason ? `: ${reason}` : ""}); load the page again to come back`);
}

function lost({ reason, from, to }) {
  if (from === undefined) return note(`the room began anew (${reason})`);
  count("lost", to - from + 1);
  note(`#${from} to #${to} are missing (${reason ?? "read too slowly"})`);
}

function start() {
  let turn = 0;
  const url = () => gateways[turn++ % gateways.length];
  const client = new Client({ url, token: name });
  const room = client.room(roomName);
  const people = new People();
  let server;

  client.on("state", showState);
  client.on("welcome", ({ serverId }) => {
    if (server === undefined) note(`connected to ${serverId}`);
    else if (element("state").dataset.state === "open") {
      count("moves");
      note(`moved from ${server} to ${serverId}`);
    } else {
      count("reconnects");
      note(`back, on ${serverId}`);
    }
    server = element("server").textContent = serverId;
  });
  client.on("shutdown", ({ reconnectDelay }) => note(`${server} goes away: moving in ${reconnectDelay} ms`));
  client.on("error", ({ message }) => note(message));
  room.on("message", (said) => {
    people.add(said.userId);
    message(said, said.userId === client.welcome?.userId);
  });
  room.on("joined", () => void people.ask(client, room));
  room.on("userJoined", ({ userId }) => people.add(userId));
  room.on("userLeft", ({ userId }) => people.remove(userId));
  room.on("gap", lost);
  room.on("unrecovered", lost);
  room.on("left", (error) => error && note(error.message));

  element("say").addEventListener("submit", (event) => {
    event.preventDefault();
    const { text } = event.target.elements;
    room.send({ text: text.value }).catch((error) => note(`not sent: ${error.message}`));
    text.value = "";
  });
  element("room").textContent = roomName;
  void room.join();
  client.connect();
}

if (name && gateways.length > 0) start();
else element("enter").showModal();
