/** A token bucket: keeps what is sent within the gateway's `messagesPerSecond`, so that nothing is refused for its rate. */
export class Pace {
  #rate = 0;
  #tokens = 0;
  #at = 0;

  /** Begins anew with a connection; a rate of 0 is none. */
  reset(rate: number, now: number): void {
    this.#rate = this.#tokens = rate;
    this.#at = now;
  }

  /** Whether a message may be sent now; it counts as sent then. */
  take(now: number): boolean {
    if (this.#rate === 0) return true;
    this.#tokens = Math.min(this.#rate, this.#tokens + ((now - this.#at) * this.#rate) / 1000);
    this.#at = now;
    // a little less than one: a timer's millisecond must not cost another turn
    if (this.#tokens < 0.999) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Milliseconds until {@link take} says yes, after it said no. */
  wait(): number {
    return Math.ceil(((1 - this.#tokens) * 1000) / this.#rate);
  }
}
