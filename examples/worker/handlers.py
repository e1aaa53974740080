"""What is done with events: the part of this example that is yours. What a handler returns is sent to the event's sender; with
None nothing is. What it raises leaves the event to be tried again, and at last to be put aside."""

from event import Event


def echo(event: Event):
    return event.payload


def total(event: Event):
    """A cart: [{"price": 3, "count": 2}, ...]."""
    return {"total": sum(item["price"] * item["count"] for item in event.payload)}


HANDLERS = {"echo": echo, "cart.total": total}
