"""What the driver checks share: where the proxy is, and how a check is told."""

import os
import sys
from urllib.parse import quote

HOST = os.environ["PROXY_HOST"]
PORT = int(os.environ["PROXY_PORT"])
TRACEPARENT = os.environ["TRACEPARENT"]
TRACE_ID = TRACEPARENT.split("-")[1]
CREDENTIALS = {"user": "app", "password": "sesame"}
OPTIONS = f"-c pgspan.traceparent={TRACEPARENT}"
URL = f"postgresql://app:sesame@{HOST}:{PORT}/app?options={quote(OPTIONS)}"


def check(what, actual, expected):
    """Ends the script where a thing is not as it should be."""
    if actual != expected:
        print(f"✗ {what}: {actual!r} instead of {expected!r}")
        sys.exit(1)
    print(f"✓ {what}")
