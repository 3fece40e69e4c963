# SPDX-License-Identifier: LGPL-2.1-or-later
"""tools/test --quick tells one story of each kind."""

from vmlib.broker import ROOT


def test_each_folder_has_one() -> None:
    folders = [folder for folder in (ROOT / "tests" / "integration").iterdir() if list(folder.glob("test_*.py"))]
    told = {folder.name: sum(path.read_text().count("@pytest.mark.story") for path in folder.glob("test_*.py"))
            for folder in folders}
    assert told == dict.fromkeys(told, 1) and len(told) > 5
