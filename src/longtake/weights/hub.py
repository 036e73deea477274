"""Downloads from a model hub: resumable, stored in the hub's own cache, and checked against its hashes."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from longtake.core.errors import WeightsError
from longtake.weights.checkpoint import digest

HTTP_ERROR = cast("type[Exception]", HfHubHTTPError.__bases__[0])  # error of the client's HTTP library in this release
SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(repo: str, patterns: Sequence[str] = ()) -> Path:
    """Download a repository's matching files and return their folder; without a connection, use the cached files.

    Args:
        repo: name of the repository, "owner/name".
        patterns: patterns of file names, such as "vae/*"; (): all files.

    Raises:
        WeightsError: the hub cannot be reached and nothing is cached, it has no such files, or one is damaged.
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
        kept = path.resolve()  # large files are named by their hash in the cache
        came_now = kept.stat().st_mtime >= started - 1
        if came_now and SHA256.fullmatch(kept.name) and digest([kept]) != kept.name:
            kept.unlink()
            path.unlink()
            raise WeightsError(f"{path.relative_to(folder)} of {repo} came damaged and was removed; fetch it again")
    return folder
