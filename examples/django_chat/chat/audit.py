"""Who cleared what: one line of JSON each, to the logger `audit`."""

import json
import logging

from django.conf import settings
from django.utils.timezone import now

logger = logging.getLogger("audit")


def record(who: str, what: str, result: str) -> None:
    line = {"time": now().isoformat(), "who": who, "what": what, "instance": settings.INSTANCE_NAME, "result": result}
    logger.info(json.dumps(line, ensure_ascii=False))
