"""The hash of a JSON value or a text."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def content_hash(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return text_hash(json.dumps(value, sort_keys=True))


def text_hash(text: str) -> str:
    """sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
