"""The image's health check: whether the service is ready; says what it answers otherwise."""

import os
import sys
from urllib.error import URLError
from urllib.request import urlopen

try:
    urlopen(f"http://127.0.0.1:{os.environ.get('SERVE_PORT') or 8000}/ready", timeout=4).close()
except URLError as exc:
    sys.exit(f"/ready: {exc}")
