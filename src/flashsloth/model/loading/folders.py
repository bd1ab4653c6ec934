"""From what a user calls a checkpoint to a folder on this machine, and folders that appear only when they are whole.

In: a folder's path, or a name on the Hugging Face hub with huggingface_hub's own options (`revision`, `cache_dir`,
`token`, `local_files_only`, `force_download`). Out: the folder, or one small file of it. Nothing but configuration,
tokenizer and safetensors files is ever fetched.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError

from flashsloth.errors import LoadError
from flashsloth.files import whole_folder
from flashsloth.media.limits import shown
from flashsloth.model.loading.safetensors_files import CheckpointError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's, of a folder that is an adapter and no checkpoint."""
SHIPPED = "nano"
"""The folder inside the package with the small model, and its name."""
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
UNREACHABLE = (
    "there is no folder {name!r}, and the hub cannot be reached: check the name, or download it where there is a "
    "network and give its folder"
)
_REACH_SECONDS = 5.0
_FETCHED = ("*.json", "*.txt", "*.jinja", "*.safetensors")
_SMALL = ("*.json", "*.txt", "*.jinja")


def is_adapter(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an adapter and no whole checkpoint."""
    return (Path(folder) / ADAPTER_CONFIG).is_file() and not (Path(folder) / CONFIG).is_file()


def read_config_dict(name_or_path: Any, file_name: str = CONFIG, **hub: Any) -> dict[str, Any] | None:
    """The configuration file as it is, or another JSON file; None where there is none, for whatever reason."""
    folder = Path(name_or_path)
    try:
        if folder.is_dir():
            file = folder / file_name
        else:
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(str(name_or_path), file_name, **{**hub, **offline_options(name_or_path)}))
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # huggingface_hub's errors are of these two kinds
        return None
    return value if isinstance(value, dict) else None


def local_folder(name_or_path: Any, *, weights: bool = True, **hub: Any) -> Path:
    """The folder itself, or the hub's copy of it on this machine, fetched if need be.

    Args:
        name_or_path: a folder or a name on the hub.
        weights: whether the weights are wanted too.
        **hub: options of `huggingface_hub.snapshot_download`.

    Raises:
        CheckpointError: if there is neither such a folder nor such a name.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file, expected the folder it lies in")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(str(name_or_path))
    except HFValidationError as error:
        raise CheckpointError(
            f"there is no folder {str(name_or_path)!r}: check the path, or give a name on the hub such as owner/name"
        ) from error
    patterns = list(_FETCHED if weights else _SMALL)
    offline = offline_options(name_or_path)
    try:
        return Path(snapshot_download(str(name_or_path), allow_patterns=patterns, **{**hub, **offline}))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(UNREACHABLE.format(name=str(name_or_path))) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name_or_path} is neither a folder nor a name on the hub ({reason})") from error


def offline_options(name_or_path: Any) -> dict[str, Any]:
    """What transformers and huggingface_hub are told besides: to try no network where there is none.

    They would try for half a minute, for each file. One request without a second try shows whether there is a hub.
    """
    if Path(name_or_path).exists():
        return {}
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=_REACH_SECONDS)
        except Exception as error:
            # Whose errors these are hangs on huggingface_hub's version: requests' are OSErrors, httpx' are not.
            if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
                return {"local_files_only": True}
            raise
        return {}
    return {"local_files_only": True}


def split_hub_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part keyword arguments: those for the hub, and the rest."""
    hub = {name: value for name, value in options.items() if name in HUB_OPTIONS and value is not None}
    return hub, {name: value for name, value in options.items() if name not in HUB_OPTIONS}


def find_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder that is meant, fetched from the hub if there is none here.

    Raises:
        LoadError, CheckpointError: if there is neither.
    """
    name = os.fspath(name_or_path)
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, or ~ of nobody
        raise LoadError(
            f"there is no folder {shown(name)}; expected one, or a name on the hub (owner/model)"
        ) from error
    if not name:
        raise LoadError("the model's name is empty; expected a folder, or a name on the hub (owner/model)")
    if name == SHIPPED and not folder.exists():
        return shipped_folder()
    if not folder.exists() and not HUB_NAME.fullmatch(name):
        raise LoadError(f"there is no folder {name!r}; expected one, or a name on the hub (owner/model)")
    try:
        return local_folder(folder if folder.exists() else name)
    except CheckpointError as error:
        if isinstance(error.__cause__, LocalEntryNotFoundError):
            raise LoadError(str(error)) from error
        raise


def shipped_folder() -> Path:
    """Where the package keeps its small model."""
    folder = Path(str(files("flashsloth") / SHIPPED))
    if not (folder / CONFIG).is_file():
        raise LoadError(f"this installation has no small model in {folder}: install it again, or name a checkpoint")
    return folder


@contextmanager
def appearing_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to work in, which takes the target's name when all went well and vanishes when not.

    Args:
        target: a folder that does not exist yet, or is empty.
        replace: whether a checkpoint that is there makes way, at the very end.

    Raises:
        CheckpointError: if the target is taken.
    """
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not replace:
        raise CheckpointError(f"{target} exists and is not an empty folder: choose another, or remove it first")
    if taken and not (target / CONFIG).is_file():
        raise CheckpointError(f"{target} exists and is not a checkpoint, so it is not replaced: choose another folder")
    with whole_folder(target) as work:
        yield work
