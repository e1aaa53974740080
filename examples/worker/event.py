"""A client's event, as a gateway wrote it to the stream (docs/workers.md)."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    id: str  # of the stream's entry, unique
    name: str
    payload: object
    user_id: str
    connection_id: str
    server_id: str
    timestamp: int  # milliseconds since 1970

    @classmethod
    def read(cls, id: str, fields: dict) -> "Event":
        return cls(
            id=id,
            name=fields["name"],
            payload=json.loads(fields["payload"]),
            user_id=fields["userId"],
            connection_id=fields["connectionId"],
            server_id=fields["serverId"],
            timestamp=int(fields["timestamp"]),
        )

    @classmethod
    def read_json(cls, id: str, body: bytes) -> "Event":
        """As it is in NATS."""
        fields = json.loads(body)
        return cls(
            id=id,
            name=fields["name"],
            payload=fields["payload"],
            user_id=fields["userId"],
            connection_id=fields["connectionId"],
            server_id=fields["serverId"],
            timestamp=fields["timestamp"],
        )
