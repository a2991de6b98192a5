"""What Python programs call: ``export``, ``verify``, ``inspect`` and ``write_manifest``, each in a module of its own.

``exporters`` hands them out. The commands of the terminal call the same code.
"""

from __future__ import annotations
