"""Floor 2: torch modules, each with a size contract."""

from __future__ import annotations

from unetkit.kernel_cache import keep_compiled

keep_compiled()
