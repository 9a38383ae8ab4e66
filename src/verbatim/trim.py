"""Takes out of an image's environment what no run can use: libraries' own tests, and headers where there is no compiler.

A distribution's RECORD is written again without them, so that what it lists is there. It must never run on a person's `.venv`.
"""

import csv
import io
import re
from pathlib import Path

# What torch's wheel carries for C++ (tests, headers, CMake files, protoc), and the test folders of every Python package.
UNUSED = re.compile(
    r"torch/(test|include|share)/.*|torch/bin/(?!torch_shm_manager).*|[^/]+/(.*/)?tests/.*|.*\.a",
)


def trim(site: Path) -> int:
    """Delete the unused files of every distribution in `site`; returns how many bytes that were."""
    freed_bytes = 0
    for record in sorted(site.glob("*.dist-info/RECORD")):
        rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
        unused = [row[0] for row in rows if UNUSED.fullmatch(row[0])]
        for name in unused:
            freed_bytes += (site / name).stat().st_size
            (site / name).unlink()
        for folder in sorted({(site / name).parent for name in unused}, reverse=True):
            while folder != site and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
        if unused:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(row for row in rows if row[0] not in set(unused))
            record.write_text(text.getvalue(), encoding="utf-8")
    return freed_bytes
