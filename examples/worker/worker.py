#!/usr/bin/env python3
"""Handles the events that clients of a wsfleet fleet send, and answers through the server API.

Start as many as you like: the workers of one group share the events, and each event is one worker's. A worker acknowledges an
event when it has answered it. What a worker leaves behind that was killed is taken over by another one after --claim-after
seconds; the answer is then sent with the same Idempotency-Key, so that the client gets it once. An event that fails again and
again is put aside in another stream. SIGTERM ends a worker after what it has begun.
"""

import argparse
import logging
import os
import signal
import socket
import time
import urllib.error

import redis

from api import PERMANENT, ServerApi
from event import Event
from handlers import HANDLERS

log = logging.getLogger("worker")

class Stopping(Exception):
    """The worker is to end: what is not answered is left to others."""


class Worker:
    def __init__(self, options: argparse.Namespace, handlers: dict):
        self.options = options
        self.handlers = handlers
        self.api = ServerApi(options.api, options.api_key_file)
        # more patient than a read that blocks
        self.redis = redis.Redis.from_url(options.redis, decode_responses=True, socket_timeout=10)
        # in braces the stream's name is the hash tag: both are in one slot of a cluster
        self.dead = options.dead_stream or f"{{{options.stream}}}:dead"
        self.stopping = False
        self.claim_at = 0.0

    def stop(self, *_) -> None:
        self.stopping = True

    def run(self) -> None:
        pause = 0.1
        ready = False
        while not self.stopping:
            try:
                if not ready:
                    self.join_group()
                    ready = True
                for id, fields in self.abandoned() or self.new():
                    self.serve(id, fields)
                pause = 0.1
            except Stopping:
                break
            except (redis.ConnectionError, redis.TimeoutError) as error:
                log.warning("Redis cannot be reached, trying again: %s", error)
                pause = self.wait(pause)
            except redis.ResponseError as error:
                log.warning("Redis refused, trying again: %s", error)
                ready = not str(error).startswith("NOGROUP")  # a Redis that lost its data
                pause = self.wait(pause)
        self.leave_group()

    def join_group(self) -> None:
        try:
            # from 0: what was sent before the first worker came is handled, too
            self.redis.xgroup_create(self.options.stream, self.options.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        log.info("%s of group %s reads %s", self.options.name, self.options.group, self.options.stream)

    def leave_group(self) -> None:
        """A consumer goes with what is pending for it, so only one without goes."""
        try:
            mine = self.redis.xpending_range(
                self.options.stream, self.options.group, "-", "+", 1, consumername=self.options.name
            )
            if not mine:
                self.redis.xgroup_delconsumer(self.options.stream, self.options.group, self.options.name)
        except redis.RedisError as error:
            log.warning("could not leave the group: %s", error)
        log.info("%s ended", self.options.name)

    def new(self) -> list:
        read = self.redis.xreadgroup(
            self.options.group,
            self.options.name,
            {self.options.stream: ">"},
            count=self.options.batch,
            block=1_000,
        )
        return read[0][1] if read else []

    def abandoned(self) -> list:
        """What other workers have begun and not ended, or this one has failed to; now and then it is looked for."""
        if time.monotonic() < self.claim_at:
            return []
        _, entries, *trimmed = self.redis.xautoclaim(
            self.options.stream,
            self.options.group,
            self.options.name,
            min_idle_time=int(self.options.claim_after * 1_000),
            count=self.options.batch,
        )
        for id in trimmed[0] if trimmed else []:
            log.error("event %s was trimmed before it was handled: give --event-stream-length more", id)
        if not entries:
            self.claim_at = time.monotonic() + self.options.claim_after / 4
        return [entry for entry in entries if not self.bury(*entry)]

    def bury(self, id: str, fields: dict) -> bool:
        """Puts an event aside that was tried too often."""
        pending = self.redis.xpending_range(self.options.stream, self.options.group, id, id, 1)
        times = pending[0]["times_delivered"] if pending else 1
        if times <= self.options.tries:
            return False
        with self.redis.pipeline(transaction=True) as both:
            both.xadd(self.dead, {**fields, "entry": id, "group": self.options.group}, maxlen=100_000)
            both.xack(self.options.stream, self.options.group, id)
            both.execute()
        log.error("event %s failed %d times and is put aside in %s", id, times - 1, self.dead)
        return True

    def serve(self, id: str, fields: dict) -> None:
        try:
            event = Event.read(id, fields)
            answer = self.handlers[event.name](event)
            if answer is not None:
                self.answer(event, answer)
        except (Stopping, redis.RedisError):
            raise
        except Exception:
            # not acknowledged: it comes again after --claim-after
            log.exception("event %s failed", id)
            return
        self.redis.xack(self.options.stream, self.options.group, id)

    def answer(self, event: Event, answer: object) -> None:
        """Goes on until the answer is accepted: a fleet that is away is not the event's fault."""
        pause = 0.1
        while True:
            try:
                return self.api.answer(self.options.group, event, answer)
            except urllib.error.HTTPError as error:
                if error.code in PERMANENT:
                    raise
                log.warning("event %s is not answered yet: %d", event.id, error.code)
            except OSError as error:
                log.warning("event %s is not answered yet: %s", event.id, error)
            pause = self.wait(pause)
            if self.stopping:
                raise Stopping
            # in hand still; it does not count as another try
            self.redis.xclaim(
                self.options.stream, self.options.group, self.options.name, 0, [event.id], justid=True
            )

    def wait(self, pause: float) -> float:
        """Waits, unless it is to end; the next pause is longer."""
        until = time.monotonic() + pause
        while not self.stopping and time.monotonic() < until:
            time.sleep(0.05)
        return min(pause * 2, 5.0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--redis", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), help="the fleet's Redis")
    add("--api", default=os.environ.get("WSFLEET_API", "http://127.0.0.1:8081"), help="the fleet's server API")
    add("--api-key-file", default=os.environ.get("WSFLEET_API_KEY_FILE"), help="its bearer token")
    add("--stream", default="wsfleet:events", help="the gateways' --event-stream")
    add("--group", default="workers", help="workers of one group share the events")
    add("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="of this worker, its own in the group")
    add("--batch", type=int, default=10, help="events taken at a time")
    add("--claim-after", type=float, default=30, help="seconds after which what others left is taken over")
    add("--tries", type=int, default=5, help="of an event that fails, before it is put aside")
    add("--dead-stream", help="where it is put aside; in a cluster in the stream's slot [{STREAM}:dead]")
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker = Worker(options(), HANDLERS)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
