"""Files from a model hub: resumed where they stopped, kept in its own cache, checked against its hashes."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from longtake.core.errors import WeightsError
from longtake.weights.checkpoint import digest


def fetch(repo: str, patterns: Sequence[str] = ()) -> Path:
    """The folder of a repository with the files that fit; what is there already is not fetched again.

    Args:
        repo: "owner/name".
        patterns: of files, "vae/*"; (): all.

    Raises:
        WeightsError: the hub cannot be reached, has no such files, or one came damaged.
    """
    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(patterns) or None))
        info = HfApi().model_info(repo, files_metadata=True)
    except LocalEntryNotFoundError as err:
        raise WeightsError(f"the hub cannot be reached for {repo}; give the path of files that are here") from err
    except (HfHubHTTPError, HFValidationError, OSError) as err:
        reason = str(err).strip().split("\n", 1)[0]
        raise WeightsError(f"{repo} cannot be fetched: {reason}") from err
    for sibling in info.siblings or ():
        path = folder / sibling.rfilename
        if sibling.lfs is not None and path.is_file() and digest([path]) != sibling.lfs.sha256:
            path.resolve().unlink()
            raise WeightsError(f"{sibling.rfilename} of {repo} came damaged and was removed; fetch it again")
    if not any(path.is_file() for path in folder.rglob("*")):
        raise WeightsError(f"{repo} has no file that fits {', '.join(patterns)}")
    return folder
