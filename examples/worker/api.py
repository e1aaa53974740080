"""The server API, as far as a worker needs it: answers to the senders of events."""

import json
import urllib.request

from event import Event

# the server API says of these that the same request will never be accepted
PERMANENT = {400, 404, 405, 413, 415, 422}


class ServerApi:
    """Sends answers. Anything but an acceptance is an urllib.error.URLError."""

    def __init__(self, url: str, key_file: str | None):
        self.url = url.rstrip("/") + "/api/v1/direct"
        self.headers = {"Content-Type": "application/json"}
        if key_file:
            with open(key_file) as file:
                self.headers["Authorization"] = f"Bearer {file.read().strip()}"
        # it is next door: a proxy of the environment is for others
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answer(self, group: str, event: Event, answer: object) -> None:
        message = {"event": event.id, "name": event.name, "answer": answer}
        body = {"userId": event.user_id, "fromUserId": group, "payload": message}
        # whoever sends this answer, however often: the client gets it once
        headers = self.headers | {"Idempotency-Key": f'"{group} {event.id}"'}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with self.opener.open(request, timeout=10) as response:
            response.read()
