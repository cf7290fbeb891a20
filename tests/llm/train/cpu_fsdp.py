"""`defectgen` with FSDP on processors, for a rehearsal: libraries admit it to GPUs only.

    torchrun --nproc-per-node 2 tests/llm/train/cpu_fsdp.py finetune ...

accelerate keeps runs on processors from FSDP, though torch can do it: here they are let in where the launcher's
variables ask for it. bitsandbytes packs the weights of some processors anew for inference, behind the back of FSDP: not
here. With ``KILLED_AT_STEP=N`` the first process dies by kill -9 in the middle of writing the checkpoint of step N.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import transformers
from accelerate import state
from accelerate.utils import DistributedType

from defectgen_cli.app import main

_init = state.AcceleratorState.__init__


def _admitted(self: Any, *args: Any, fsdp_plugin: Any = None, **more: Any) -> None:
    _init(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if self.distributed_type == DistributedType.MULTI_CPU and (fsdp_plugin or "fsdp_plugin" in self.__dict__):
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin or self.fsdp_plugin


def keep_four_bits_as_they_are() -> None:
    """No other layout of four-bit weights for inference, if bitsandbytes is there."""
    try:
        import bitsandbytes.nn.modules as quantized
    except ImportError:
        return
    quantized.has_avx512bf16 = lambda: False


def _die_at(step: int) -> None:
    write = transformers.TrainerState.save_to_json

    def dying(self: Any, path: str) -> None:
        if self.global_step == step:
            Path(path).write_text("{")
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, path)

    transformers.TrainerState.save_to_json = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        state.AcceleratorState.__init__ = _admitted  # type: ignore[method-assign]
    keep_four_bits_as_they_are()
    if "KILLED_AT_STEP" in os.environ:
        _die_at(int(os.environ["KILLED_AT_STEP"]))
    sys.exit(main())
