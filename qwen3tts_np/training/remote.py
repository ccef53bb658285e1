"""What leaves the machine, where it is asked for: lines of the logs to Weights & Biases, checkpoints to the hub.

Both are extras, imported when they are used. The token of the hub goes to the hub's own client and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoint.hub import first_reason
from ..errors import RequestError
from ..extras import check_installed, imported, install, obstacle
from ..notices import notify
from ..shown import shortened
from .names import TOKEN
from .run import Report
from .settings import TrainingSettings
from .state import BEST, LAST

UPLOADED = "uploading checkpoints"
REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)


def wandb_report(settings: TrainingSettings) -> Report | None:
    """What logs a line to Weights & Biases. None where it is not asked for, or not installed, which is said once."""
    if not settings.use_wandb:
        return None
    if (why := obstacle(["wandb"], "use_wandb", install("wandb"))) is not None:
        notify(f"{why}; this run is not logged there")
        return None
    package = imported("wandb", "use_wandb", install("wandb"))
    run = package.init(
        project=settings.wandb_project,
        name=settings.wandb_run_name,
        entity=settings.wandb_entity,
        config=asdict(settings),
    )

    def report(line: Mapping[str, Any]) -> None:
        kind = "validation" if "metrics" in line else "training"
        values = {**line, **line.get("metrics", {})}
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        run.log({f"{kind}/{name}": value for name, value in numbers.items() if name != "step"}, step=line["step"])

    return report


def check_upload(settings: TrainingSettings) -> None:
    """RequestError where checkpoints are to be uploaded and cannot be: hours before they are.

    The hub's client is missing, or a repository cannot have its name.
    """
    if not settings.upload_to_hub:
        return
    check_installed(["huggingface_hub"], UPLOADED, install("hub"))
    for setting in ("hub_model_id_best", "hub_model_id_last"):
        name = getattr(settings, setting)
        if name is not None and not REPOSITORY.fullmatch(name):
            raise RequestError(f"{setting}={shortened(name)} must be OWNER/NAME, of letters, digits and -_.")


def upload(settings: TrainingSettings, out: Path, token: str | None = None) -> list[str]:
    """Upload ``best`` and ``last`` as private repositories. -> their names.

    ``token``: None takes HF_TOKEN, or that of the hub's own login. RequestError with the hub's reason if it refuses.
    """
    package = imported("huggingface_hub", UPLOADED, install("hub"))
    client = package.HfApi(token=token or os.environ.get(TOKEN))
    wanted = {BEST: settings.hub_model_id_best, LAST: settings.hub_model_id_last}
    done = []
    for name, repository in wanted.items():
        if repository is not None and (out / name).is_dir():
            try:
                client.create_repo(repository, private=True, exist_ok=True)
                client.upload_folder(
                    repo_id=repository, folder_path=str(out / name), commit_message=f"{name} checkpoint"
                )
            except Exception as e:  # of huggingface_hub, of whichever HTTP library it uses, of the disk
                raise RequestError(
                    f"{repository} was not uploaded: {first_reason(e)}; {out / name} is complete, and the same command "
                    "tries again"
                ) from e
            done.append(repository)
    return done
