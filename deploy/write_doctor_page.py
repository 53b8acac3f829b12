"""Write the list of findings into docs/doctor.md, from the doctor's own registry. Run it after a change of a finding's kind."""

from __future__ import annotations

import re
from pathlib import Path

from database.health.examination import SUBJECTS

PAGE = Path(__file__).parents[1] / "docs" / "doctor.md"
HEADING = "## Findings\n"


def findings() -> str:
    """A table per subject, in the order of the examination."""
    parts = [HEADING]
    for module in SUBJECTS:
        parts.append(
            f"\n### {module.SUBJECT}\n\n| code | severity | what is wrong | why it matters | what mends it |\n"
        )
        parts.append("|---|---|---|---|---|\n")
        for kind in module.KINDS:
            cells = (f"`{kind.code}`", kind.severity, kind.means, kind.why, kind.mended)
            parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


def page(text: str) -> str:
    """The page with the list as it is now; what stands before it and after it stays."""
    return re.sub(rf"(?ms)^{HEADING}.*?(?=^## |\Z)", lambda _: findings(), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
