"""The published models on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from histocc.errors import UsageError
from histocc.files.hub import why_out_of_reach, without_retry_messages
from histocc.weights import WEIGHT_FILES

PUBLISHER: Final = "Christianvedel"
# The coding system of each.
PUBLISHED_SYSTEMS: Final[dict[str, str]] = {
    "OccCANINE": "hisco",
    "OccCANINE_s2s": "hisco",
    "OccCANINE_s2s_mix": "hisco",
    "OccCANINE_OCCICEM": "occicem",
    "OccCANINE_ISCO68": "isco68",
    "OccCANINE_OCC1950": "occ1950",
}
KEY_FILE, CHARACTERS_FILE, CONFIGURATION_FILE = "key.json", "chars.json", "config.json"


def repository_of(name: str) -> str:
    """The hub's name of a published model; another one, `owner/name`, stays as it is."""
    return f"{PUBLISHER}/{name}" if name in PUBLISHED_SYSTEMS else name


def fetch(repository: str, name: str, force_download: bool = False) -> Path | None:
    """A file of a repository, from the local cache or the hub; None where the repository has no such file.

    Without a network, what is not in the cache counts as not there.

    Raises
    ------
    UsageError
        There is no such repository, or it cannot be seen without logging in.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    out_of_reach = why_out_of_reach()
    if out_of_reach is not None and force_download:
        raise UsageError(f"the model {repository} could not be fetched from the Hugging Face hub: {out_of_reach}")
    try:
        with without_retry_messages():
            found = hf_hub_download(
                repository, name, force_download=force_download, local_files_only=out_of_reach is not None
            )
            return Path(found)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(
            f"the Hugging Face hub has no model {repository!r} that can be seen: give the name of a published model "
            f"({', '.join(PUBLISHED_SYSTEMS)}), owner/name, or the path of a file or a folder"
        ) from error
    except EntryNotFoundError:  # also where the file is not in the cache and the hub cannot be reached
        return None
    except OSError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"the model {repository} could not be fetched from the Hugging Face hub: {reason}") from error


def fetch_weights(repository: str, force_download: bool = False) -> Path:
    """The weights of a repository.

    Raises
    ------
    UsageError
        They are not in the local cache and cannot be fetched, or it has none.
    """
    for name in WEIGHT_FILES:
        path = fetch(repository, name, force_download)
        if path is not None:
            return path
    raise UsageError(
        f"the model {repository} is neither a file or folder here nor in the local cache, and could not be fetched "
        f"from the Hugging Face hub, which has neither {' nor '.join(WEIGHT_FILES)} of it or cannot be reached. "
        f"Correct the path, or fetch it once on a machine with network access (huggingface-cli download {repository}) "
        "and give its folder"
    )
