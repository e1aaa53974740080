// What both servers need: the arguments `PORT SECRET_FILE`, and HS256 tokens (RFC 7519) checked with what Node has.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const [, , port, secretFile] = process.argv;
if (!port || !secretFile) {
  console.error("usage: node SERVER.js PORT SECRET_FILE");
  process.exit(64);
}
const secret = readFileSync(secretFile, "utf8").trim();

export const listen = { port: Number(port), host: "127.0.0.1" };

// The user of a token; throws when it was not signed with the secret, or has expired.
export function verify(token) {
  const [head, body, signature] = String(token).split(".");
  const expected = createHmac("sha256", secret).update(`${head}.${body}`).digest();
  const given = Buffer.from(signature ?? "", "base64url");
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw new Error("bad signature");
  }
  const claims = JSON.parse(Buffer.from(body, "base64url"));
  if (claims.exp * 1000 < Date.now()) throw new Error("expired");
  return claims.sub;
}
