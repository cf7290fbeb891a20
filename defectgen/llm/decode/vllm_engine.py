"""Generation with vLLM: continuous batches, the adapter served beside the base model without merging."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import AdapterCard, read_adapter
from defectgen.llm.base import base_model_path, plain_name
from defectgen.llm.decode.generator import Completion, Request, Sampling
from defectgen.llm.decode.guide import Guide, pack_grammar
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.llm.loading import ONE_PLACE, Placement
from defectgen.llm.tokens import prompt_ids
from defectgen.tasks.grammar import Grammar

PROCESSOR = "defectgen.llm.decode.vllm_processor:GrammarProcessor"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for; an adapter between two of them gets the larger."""

ENVIRONMENT = {
    # The log of vLLM goes to standard output otherwise, where results go.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # One process: a script needs no `if __name__ == "__main__"`, and an error reaches the caller as it is.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Newer releases prefer a second model runner, whose logits processors have another interface.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""Settings of vLLM that it reads from the environment; what is set there already stays."""


class VllmGenerator:
    """Generation with vLLM, on the GPU or with a CPU build of it.

    Every token costs a decoding step here, forced ones and the end included: vLLM's loop has no way
    around it. Completions depend on their request's seed and not on the batch, as far as the
    model's numbers do not: those vary in the last digits with the batch, so near ties may fall
    otherwise.
    """

    def __init__(self, llm: Any, adapter: Path | None = None) -> None:
        """Wrap a loaded model.

        Args:
            llm: from `load_vllm`.
            adapter: folder of LoRA weights to apply.
        """
        self.llm = llm
        self.tokenizer = llm.get_tokenizer()
        self._adapter = adapter
        self._piece_tokens: dict[str, tuple[int, ...]] = {}
        self._grammars: dict[Grammar, tuple[TokenGrammar, str]] = {}
        self._counter = 0

    @classmethod
    def from_adapter(
        cls, folder: Path, dtype: str = "auto", *, allow_download: bool = False, placement: Placement = ONE_PLACE
    ) -> tuple[VllmGenerator, AdapterCard]:
        """An engine for a trained adapter on its base model, and the adapter's card; see `load_generator`.

        Raises:
            DefectgenError: vLLM is not installed; no adapter there, or one that vLLM cannot serve;
                a base model that is missing or does not fit.
        """
        card = read_adapter(folder)
        llm = load_vllm(card.base_model, dtype, folder, download=allow_download, placement=placement)
        return cls(llm, folder), card

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """See `Generator`; `batch_size` completions are under way at any time.

        Raises:
            UsageError: guidance, which this engine has not; a prompt longer than the model reads.
        """
        if sampling.guidance != 1:
            raise UsageError("engine vllm has no guidance.", "Use --engine transformers.")
        engine = self.llm.llm_engine
        jobs = [(index, sample) for index, request in enumerate(requests) for sample in range(request.n)]
        waiting = iter(enumerate(jobs))
        under_way: dict[str, int] = {}
        made: dict[int, Completion] = {}
        following = 0
        try:
            while following < len(jobs):
                while len(under_way) < sampling.batch_size and (job := next(waiting, None)) is not None:
                    number, (index, sample) = job
                    under_way[self._submit(requests[index], sample, sampling)] = number
                for output in engine.step():
                    if output.finished:
                        number = under_way.pop(output.request_id)
                        index, _ = jobs[number]
                        made[number] = self._completion(index, requests[index], output.outputs[0])
                while following in made:
                    yield made.pop(following)
                    following += 1
        finally:
            if under_way:
                engine.abort_request(list(under_way))

    def _submit(self, request: Request, sample: int, sampling: Sampling) -> str:
        """Hand one completion to vLLM; returns its name there."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        from defectgen.llm.decode.vllm_processor import guide_arguments

        _, packed = self._compile(request.grammar)
        prompt = prompt_ids(self.tokenizer, request.prompt)
        context = self.llm.llm_engine.model_config.max_model_len
        if len(prompt) >= context:
            raise UsageError(f"the prompt is {len(prompt)} tokens long, the model reads {context} with the completion.")
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=context - len(prompt),
            logprobs=0,
            detokenize=False,
            extra_args=guide_arguments(packed, (request.seed, sample), sampling),
        )
        lora = LoRARequest("adapter", 1, str(self._adapter)) if self._adapter else None
        self._counter += 1
        name = f"defectgen-{self._counter}"
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, parameters, lora_request=lora)
        return name

    def _compile(self, grammar: Grammar) -> tuple[TokenGrammar, str]:
        if grammar not in self._grammars:
            compiled = TokenGrammar(grammar, self.tokenizer, self._piece_tokens)
            self._grammars[grammar] = compiled, pack_grammar(grammar)
        return self._grammars[grammar]

    def _completion(self, index: int, request: Request, output: Any) -> Completion:
        """What vLLM wrote, read through the grammar."""
        tokens = list(output.token_ids)
        guide = Guide(self._compile(request.grammar)[0], (request.seed,))
        try:
            guide.follow(tokens)
        except KeyError as error:
            raise DefectgenError("vLLM ignored the grammar.", "Use --engine transformers.") from error
        if not guide.finished:
            context = self.llm.llm_engine.model_config.max_model_len
            raise UsageError(f"a completion did not end within the {context} tokens that the model reads.")
        return Completion(index, guide.text, float(output.cumulative_logprob), len(tokens))


def load_vllm(
    base_model: str,
    dtype: str = "auto",
    adapter: Path | None = None,
    *,
    download: bool = True,
    placement: Placement = ONE_PLACE,
) -> Any:
    """A base model in vLLM, ready for `VllmGenerator`.

    Args:
        base_model: registered name, folder, or name on the hub.
        dtype: see `defectgen.llm.loading.pick_dtype`.
        adapter: folder of the LoRA weights that will be served.
        download: get what is not on this machine from the hub.
        placement: among how many GPUs every matrix is split, and whether the weights have four bits.

    Raises:
        DefectgenError: vLLM is not installed, or a model that is missing or that it cannot serve.
    """
    path = base_model_path(base_model)
    if plain_name(base_model) != base_model:
        raise DefectgenError(f"vLLM does not serve {base_model}, a variant for trials.", "Use --engine transformers.")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise DefectgenError(
            f"engine vllm is not installed ({error}).",
            "On a GPU: pip install 'defectgen[vllm]'; for a CPU see docs/engines.md.",
        ) from error
    from defectgen.llm.adapter_weights import check_fit
    from defectgen.llm.loading import load_model_config, load_tokenizer, pick_dtype

    options: dict[str, Any] = {}
    if placement.gpus > 1:
        options["tensor_parallel_size"] = placement.gpus
    if placement.quantization == "4bit":
        options["quantization"] = "bitsandbytes"
    if adapter is not None:
        shape = load_model_config(base_model, download=download)
        load_tokenizer(base_model, download=download)
        rank = _rank(check_fit(adapter, shape, base_model).rank, adapter)
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    if current_platform.is_cpu():
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options["enforce_eager"] = True
    try:
        return vllm.LLM(
            model=path,
            trust_remote_code=False,
            dtype=str(pick_dtype(dtype)).removeprefix("torch."),
            logits_processors=[PROCESSOR],
            logprobs_mode="processed_logits",
            async_scheduling=False,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(f"vLLM cannot serve base model {base_model} ({reason:.300}).") from error


def _rank(rank: int, adapter: Path) -> int:
    """The rank that vLLM must make room for.

    Raises:
        DefectgenError: it has none that is large enough.
    """
    if rank > LORA_RANKS[-1]:
        raise DefectgenError(
            f"vLLM cannot serve the adapter in {adapter} (rank {rank}, at most {LORA_RANKS[-1]}).",
            "Use --engine transformers, or defectgen shrink.",
        )
    return next(room for room in LORA_RANKS if room >= rank)
