"""What happens in a pool, as it happens: its events, and how they get to those who watch."""

from raypool.telemetry.broadcast import Broadcast
from raypool.telemetry.event import TelemetryEvent, decode_events, encode_events
from raypool.telemetry.handler import EventHandler, HandlerThread, check_handler
from raypool.telemetry.kinds import EVENTS, FIELDS, EventKind, EventName, Field
from raypool.telemetry.log import EventLog

__all__ = [
    "EVENTS",
    "FIELDS",
    "Broadcast",
    "EventHandler",
    "EventKind",
    "EventLog",
    "EventName",
    "Field",
    "HandlerThread",
    "TelemetryEvent",
    "check_handler",
    "decode_events",
    "encode_events",
]
