"""Checkpoints of a run: whole or not at all, with the weights that are evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.modeling.weights import BCCDCheckpointer


class RunCheckpointer(BCCDCheckpointer):
    """``BCCDCheckpointer`` of a run: its files appear under their names when they are complete.

    ``model`` in a checkpoint holds the weights of ``evaluated``: their average where there is one. ``model``, without
    the wrapper for distributed training, is what checkpoints are loaded into.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str,
        evaluated: torch.nn.Module,
        *,
        config: CfgNode,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._config = config
        self._evaluated = evaluated

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth with the evaluated weights, ``kwargs`` and all states, from which ``--resume``
        continues.
        """
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        if self.save_weights(name, **states, **kwargs):
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, *, evaluated: bool = True, **kwargs: Any) -> bool:
        """Write ``name``.pth with the weights and ``kwargs`` alone, which ``--resume`` does not read.

        With ``evaluated`` False these are the weights that are trained, where their average is evaluated. Returns
        whether this process writes files.
        """
        if not self.save_dir or not self.save_to_disk:
            return False
        model = self._evaluated if evaluated else self.model
        content = {"model": model.state_dict(), **kwargs, "config": self._config.dump()}
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        # Given a path, torch writes by itself and has a full disk end in an error that does not tell; given a file, it
        # raises that error on top of the one that does.
        with replacing(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
        return True

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint from which ``--resume`` continues."""
        with replacing(Path(self.save_dir) / "last_checkpoint") as temporary:
            temporary.write_text(last_filename_basename, encoding="utf-8")

    def save_as_final(self) -> None:
        """Copy the last checkpoint to model_final.pth, for a run that was killed before it wrote that too."""
        final = Path(self.save_dir) / "model_final.pth"
        if self.save_to_disk and self.get_checkpoint_file() != str(final):
            with replacing(final) as temporary:
                shutil.copyfile(self.get_checkpoint_file(), temporary)
            self.tag_last_checkpoint(final.name)

    @contextmanager
    def resume_errors(self) -> Iterator[None]:
        """Turn whatever goes wrong while a training resumes into an InputError of one line."""
        try:
            yield
        except Exception as error:  # a state of another kind than expected fails in many ways
            named = Path(self.save_dir) / "last_checkpoint"
            raise InputError(
                f"cannot resume from the checkpoint that {named} names ({error}); write the name of an earlier "
                "model_*.pth into it, or start again in another OUTPUT_DIR"
            ) from error

    def checkpoints_before(self, iteration: int) -> list[str]:
        """Paths of the periodic checkpoints of the iterations before this one, oldest first."""
        files = Path(self.save_dir).glob("model_[0-9]*.pth")
        return [
            str(path) for path in sorted(files) if path.stem[6:].isdigit() and int(path.stem[6:]) < iteration
        ]
