"""Under which licence a distribution comes, by its own metadata. What it does not say is said to be unknown, never guessed."""

import re
from email.parser import HeaderParser
from pathlib import Path

# What older metadata says in other words, as SPDX says it: https://spdx.org/licenses
SPDX = {
    "MIT": "MIT", "MIT License": "MIT", "Apache-2.0": "Apache-2.0", "Apache 2.0": "Apache-2.0", "Apache Software License": "Apache-2.0",
    "BSD-2-Clause": "BSD-2-Clause", "BSD-3-Clause": "BSD-3-Clause", "3-Clause BSD License": "BSD-3-Clause", "ISC": "ISC",
    "MPL-2.0": "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "PSF-2.0": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip
_SHORT = 60  # characters: longer than that, the field holds the licence itself, not its name


def of_metadata(text: str) -> str:
    """An SPDX identifier or expression where the metadata gives one, else the words it uses (`BSD License`); empty where none."""
    headers = HeaderParser().parsestr(text.partition("\n\n")[0])
    if expression := headers.get("License-Expression", "").strip():
        return expression
    classifiers = [c.rpartition(" :: ")[2] for c in headers.get_all("Classifier", []) if c.startswith("License :: ")]
    field = headers.get("License", "").strip()
    named = field if len(field) <= _SHORT and "\n" not in field else ""
    if named in SPDX:
        return SPDX[named]
    several = sorted({SPDX.get(words, words) for words in classifiers if words != "OSI Approved"})
    return " or ".join(several) or named


def of_distributions(site: Path) -> dict[str, str]:
    """Normalised name → licence, of what is installed."""
    from verbatim import environment

    found = {}
    for name, _, folder in environment.dist_infos(site):
        path = folder / "METADATA"
        found[name] = of_metadata(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ""
    return found


def of_copyright(text: str) -> str:
    """Of a Debian package's machine-readable `copyright` file: its licences, sorted; empty where it is free text."""
    if not text.startswith("Format:"):
        return ""
    return " and ".join(sorted(set(re.findall(r"^License: *(\S[^\n]*?)\s*$", text, re.MULTILINE))))
