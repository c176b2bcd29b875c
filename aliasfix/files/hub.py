"""Share a converted model on the Hugging Face hub: `aliasfix.push_to_hub`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import AliasfixError, explaining
from ..version import __version__
from . import store


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    base: str | None = None,
    base_args: Mapping[str, Any] | None = None,
    example_input: Any = None,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Add a converted model",
) -> str:
    """Write the directory that `save` writes, and upload it; ``timm.create_model("hf-hub:REPO")`` opens it.

    Args:
        model, base, base_args, example_input: as for `save`.
        repo_id: ``OWNER/NAME``; made if there is none.
        private: of a repository that is made.
        revision: the branch; ``main`` if None.
        token: of the hub; the one that ``hf auth login`` stored if None.
        commit_message: the first line of the commit.

    Returns:
        The commit's address.

    Raises:
        AliasfixError: the model cannot be saved, huggingface_hub is not installed, or the hub refuses.

    >>> push_to_hub(nn.Identity(), "me/net")
    Traceback (most recent call last):
    aliasfix.errors.AliasfixError: save takes a converted model: aliasfix.report(model) is None
    """
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError:
        raise AliasfixError("huggingface_hub is not installed: pip install huggingface_hub") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        store.save(model, path, base=base, base_args=base_args, example_input=example_input)
        api = HfApi(token=token, library_name="aliasfix", library_version=__version__)
        with explaining(f"{repo_id} could not be pushed"):
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=path, revision=revision, commit_message=commit_message
            )
    return str(commit.commit_url)
