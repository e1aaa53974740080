#!/usr/bin/env python3
"""The worker for fleets on NATS: handles the events that clients send, and answers through the server API.

Start as many as you like: they share a durable consumer of JetStream, and each event is one worker's. A worker acknowledges an
event when it has answered it. What a worker leaves behind that was killed JetStream gives to another one after --claim-after
seconds; the answer is then sent with the same Idempotency-Key, so that the client gets it once. An event that fails again and
again is put aside in another stream. SIGTERM ends a worker after what it has begun.
"""

import argparse
import asyncio
import logging
import os
import signal
import urllib.error

import nats
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import BadRequestError

from api import PERMANENT, ServerApi
from event import Event
from handlers import HANDLERS

log = logging.getLogger("worker")


class Worker:
    def __init__(self, options: argparse.Namespace, handlers: dict):
        self.options = options
        self.handlers = handlers
        self.api = ServerApi(options.api, options.api_key_file)
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        # goes on trying, at the start and whenever NATS is away
        connection = await nats.connect(
            self.options.nats,
            name="wsfleet-worker",
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,
            error_cb=self.complain,
        )
        self.js = connection.jetstream()
        subscription = None
        while not self.stopping.is_set():
            try:
                subscription = subscription or await self.consumer()
                for message in await subscription.fetch(self.options.batch, timeout=1):
                    await self.serve(message)
                    if self.stopping.is_set():
                        break  # the rest is another one's after --claim-after
            except NatsTimeout:
                continue  # there was nothing
            except NatsError as error:
                log.warning("NATS cannot be used, trying again: %s", error)
                subscription = None  # a NATS that lost its data has to be told again
                await self.wait(1)
        await connection.close()
        log.info("ended")

    async def consumer(self):
        """Made by whoever comes first; from the first event on, so that what was sent before is handled, too."""
        config = ConsumerConfig(
            durable_name=self.options.group,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.options.claim_after,
            filter_subject=self.options.filter,
            max_ack_pending=10_000,
        )
        await self.js.add_consumer(self.options.stream, config)
        log.info("reads %s as %s", self.options.stream, self.options.group)
        return await self.js.pull_subscribe_bind(self.options.group, self.options.stream)

    async def serve(self, message) -> None:
        place = message.metadata
        if place.num_delivered > self.options.tries:
            return await self.bury(message)
        # a stream that was made anew counts from 1 again
        id = f"{int(place.timestamp.timestamp() * 1_000)}-{place.sequence.stream}"
        try:
            event = Event.read_json(id, message.data)
            answer = self.handlers[event.name](event)
            if answer is not None and not await self.answer(message, event, answer):
                return
        except NatsError:
            raise
        except Exception:
            # not acknowledged: it comes again after --claim-after
            log.exception("event %s failed", id)
            return
        # awaits that JetStream has it: else it would come again
        await message.ack_sync()

    async def answer(self, message, event: Event, answer: object) -> bool:
        """Goes on until the answer is accepted: a fleet that is away is not the event's fault. False when it is to end before."""
        pause = 0.1
        while True:
            try:
                await asyncio.to_thread(self.api.answer, self.options.group, event, answer)
                return True
            except urllib.error.HTTPError as error:
                if error.code in PERMANENT:
                    raise
                log.warning("event %s is not answered yet: %d", event.id, error.code)
            except OSError as error:
                log.warning("event %s is not answered yet: %s", event.id, error)
            await message.in_progress()  # in hand still
            await self.wait(pause)
            pause = min(pause * 2, 5.0)
            if self.stopping.is_set():
                return False

    async def bury(self, message) -> None:
        """Puts an event aside that was tried too often."""
        dead = self.options.dead_stream or f"{self.options.group}-dead"
        try:
            await self.js.add_stream(StreamConfig(name=dead, subjects=[dead], max_msgs=100_000))
        except BadRequestError as error:
            if error.err_code != 10058:  # it is there, as somebody has made it
                raise
        place = message.metadata.sequence.stream
        # its name in JetStream: whoever puts it aside, however often, it is there once
        headers = {"Nats-Msg-Id": f"{self.options.stream} {place}", "Entry": str(place)}
        await self.js.publish(dead, message.data, headers=headers)
        await message.ack_sync()
        log.error("event %d failed %d times and is put aside in %s", place, self.options.tries, dead)

    async def wait(self, seconds: float) -> None:
        """Waits, unless it is to end."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def complain(self, error: Exception) -> None:
        log.warning("NATS: %s", error)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--nats", default=os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), help="the fleet's NATS")
    add("--api", default=os.environ.get("WSFLEET_API", "http://127.0.0.1:8081"), help="the fleet's server API")
    add("--api-key-file", default=os.environ.get("WSFLEET_API_KEY_FILE"), help="its bearer token")
    add("--stream", default="wsfleet-events", help="the gateways' <prefix>-events")
    add("--group", default="workers", help="the durable consumer: workers of one group share the events")
    add("--filter", help="only events of these subjects, such as wsfleet.events.order.> [all]")
    add("--batch", type=int, default=10, help="events taken at a time")
    add("--claim-after", type=float, default=30, help="seconds after which what was not acknowledged is given to another")
    add("--tries", type=int, default=5, help="of an event that fails, before it is put aside")
    add("--dead-stream", help="where it is put aside [GROUP-dead]")
    return parser.parse_args()


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker = Worker(options(), HANDLERS)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stopping.set)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
