/** The token a client connects with, and when it is to be replaced. */

/** A token, and when it ends (milliseconds since 1970-01-01 UTC) where that is known. */
export interface Token {
  token: string;
  expiresAt?: number;
}

/** A token that stays, or what is asked for one: for each connection, and before the last one ends. */
export type TokenSource = string | (() => string | Token | Promise<string | Token>);

/** How long to wait after a token was refused for a time. */
const AGAIN = 5_000;

export class Tokens {
  /** When the next one is to be had; `Infinity`: not before the next connection. */
  refreshAt = Infinity;
  readonly #source: TokenSource | undefined;
  readonly #before: number;

  /** Asks for another so many milliseconds before one ends. */
  constructor(source: TokenSource | undefined, before: number) {
    this.#source = source;
    this.#before = before;
  }

  /** The token to use now. */
  async get(now: number): Promise<string | undefined> {
    this.refreshAt = Infinity;
    if (typeof this.#source !== "function") return this.#source;
    const token = await this.#source();
    if (typeof token === "string") return token;
    this.until(token.expiresAt, now);
    return token.token;
  }

  /** The token in use ends then. A source that gives tokens that have ended is not asked all the time. */
  until(expiresAt: number | null | undefined, now: number): void {
    if (typeof this.#source !== "function") return;
    this.refreshAt = Math.max((expiresAt ?? Infinity) - this.#before, now + AGAIN);
  }

  /** It could not be refreshed for the moment. */
  later(now: number): void {
    this.refreshAt = now + AGAIN;
  }
}
