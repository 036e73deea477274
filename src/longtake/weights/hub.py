"""Files from a model hub: resumed where they stopped, kept in its own cache, checked against its hashes."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from longtake.core.errors import WeightsError
from longtake.weights.checkpoint import digest

HTTP_ERROR = cast("type[Exception]", HfHubHTTPError.__bases__[0])  # of the client's library, whichever its release uses
SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(repo: str, patterns: Sequence[str] = ()) -> Path:
    """The folder of a repository with the files that fit. Where the hub cannot be reached, what was fetched before.

    Args:
        repo: "owner/name".
        patterns: of files, "vae/*"; (): all.

    Raises:
        WeightsError: the hub cannot be reached, has no such files, or one came damaged.
    """
    started = time.time()
    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(patterns) or None))
    except LocalEntryNotFoundError as err:
        raise WeightsError(f"the hub cannot be reached for {repo}; give the path of files that are here") from err
    except (HTTP_ERROR, HFValidationError, OSError) as err:
        reason = str(err).strip().split("\n", 1)[0]
        raise WeightsError(f"{repo} cannot be fetched: {reason}; what came so far is kept, try again") from err
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not any(path.match(pattern) for path in files for pattern in patterns or ("*",)):
        raise WeightsError(f"{repo} has no file that fits {', '.join(patterns)}")
    for path in files:
        kept = path.resolve()  # the cache calls large files by their hash
        came_now = kept.stat().st_mtime >= started - 1
        if came_now and SHA256.fullmatch(kept.name) and digest([kept]) != kept.name:
            kept.unlink()
            path.unlink()
            raise WeightsError(f"{path.relative_to(folder)} of {repo} came damaged and was removed; fetch it again")
    return folder
