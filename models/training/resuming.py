"""Going on from a checkpoint with the weights that are in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import Trainer

from models.training.errors import CheckpointUnusable


class LoadsWeightsByTheirNames(Trainer):
    """Mixed into a trainer, reads checkpoints of models whose saved names differ from their own.

    transformers 5 saves Qwen2.5-VL under the names of its first release (``visual.…``) and loads a
    checkpoint by the names of today's modules (``model.visual.…``) without insisting on a match:
    nothing is loaded, nothing is said, and a resumed run begins anew with an old optimizer. To be
    deleted when `Trainer._load_from_checkpoint` renames as `from_pretrained` does.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        network: Any = self.model if model is None else model
        files = sorted(Path(resume_from_checkpoint).glob("model*.safetensors"))
        if not files or self.is_fsdp_enabled:
            return  # an adapter, or shards that FSDP has put together by itself
        renamed, report = type(network).from_pretrained(
            resume_from_checkpoint, dtype=network.dtype, output_loading_info=True
        )
        missing = set(network.load_state_dict(renamed.state_dict(), strict=False).missing_keys)
        for file in files if missing else ():  # what is trained beside the network itself
            found = {name: value for name, value in load_file(file).items() if name in missing}
            network.load_state_dict(found, strict=False)
            missing -= set(found)
        missing |= set(report["missing_keys"])  # these were filled with random values
        if missing:
            raise CheckpointUnusable(
                f"{resume_from_checkpoint} lacks {', '.join(sorted(missing)[:5])}: remove it, "
                "and the run goes on from the one before"
            )
