"""The server's log on standard error: one line a request, and errors, as text or as JSON."""

import json
import logging
from typing import Literal

LogStyle = Literal["text", "json", "errors"]  # errors: text, without the lines of requests


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object; the fields of a request stand beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.args, dict):
            line |= record.args
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(style: LogStyle) -> None:
    """Write warnings of all packages to standard error, and requests unless `style` leaves them out."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(JsonFormatter() if style == "json" else text)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("longtake.access").setLevel(logging.WARNING if style == "errors" else logging.INFO)
