"""Opening the ledger that a user has named."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from raypool.file_hold import FileHold
from raypool.ledgers import find_ledger, open_found


def test_pool_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    held = FileHold(path)
    release = threading.Timer(0.5, held.release)

    release.start()
    with closing(open_found(find_ledger(str(path)))) as ledger:
        assert ledger.totals().unfinished == 0

    release.join()
