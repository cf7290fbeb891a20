import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.base import base_model_path, convert_gguf

HIDDEN, FEED_FORWARD, HEADS = 64, 128, 4
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
VOCABULARY = ["<unk>", "<s>", "</s>", *LETTERS, "ab"]


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with one layer, its matrices quantized to Q4_1."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 3] + [1] * (len(VOCABULARY) - 3))
    writer.add_token_merges(["a b"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(VOCABULARY), HIDDEN),
        "blk.0.attn_q": (HIDDEN, HIDDEN),
        "blk.0.attn_k": (HIDDEN, HIDDEN),
        "blk.0.attn_v": (HIDDEN, HIDDEN),
        "blk.0.attn_output": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate": (FEED_FORWARD, HIDDEN),
        "blk.0.ffn_up": (FEED_FORWARD, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, FEED_FORWARD),
    }
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, shape in shapes.items():
        packed = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def converted(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "tiny"
    convert_gguf(tiny_gguf, target)
    return target


def test_the_weights_are_unpacked_to_bfloat16(converted: Path, tiny_gguf: Path) -> None:
    weights = load_file(converted / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    for theirs, ours in {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    }.items():
        expected = gguf.quants.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        assert torch.equal(weights[ours], torch.tensor(expected).to(torch.bfloat16))


def test_the_result_loads_as_a_plain_model(converted: Path) -> None:
    assert "quantization_config" not in json.loads((converted / "config.json").read_text())
    assert not list(converted.parent.rglob("*.gguf"))
    assert list(converted.parent.iterdir()) == [converted]
    model, info = AutoModelForCausalLM.from_pretrained(converted, output_loading_info=True, local_files_only=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not getattr(model, "is_quantized", False)
    tokenizer = AutoTokenizer.from_pretrained(converted, local_files_only=True)
    assert tokenizer.convert_ids_to_tokens(tokenizer("abc", add_special_tokens=False).input_ids) == ["ab", "c"]


def test_texts_begin_and_end_as_the_file_says(
    converted: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AutoTokenizer.from_pretrained(converted, local_files_only=True).eos_token == "</s>"
    read = AutoTokenizer.from_pretrained

    def swapped(*args: object, **options: object) -> object:
        """What another release makes of the file: the end is the beginning."""
        tokenizer = read(*args, **options)
        tokenizer.bos_token, tokenizer.eos_token = "</s>", "<s>"
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", swapped)
    convert_gguf(tiny_gguf, tmp_path / "out")
    monkeypatch.undo()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")


def test_what_is_no_model_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(DefectgenError, match=r"^text\.gguf cannot be unpacked: ") as error:
        convert_gguf(tmp_path / "text.gguf", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["text.gguf"]


def test_a_failed_save_leaves_nothing(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full)
    with pytest.raises(DefectgenError, match="No space left"):
        convert_gguf(tiny_gguf, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(tiny_gguf: Path, converted: Path) -> None:
    with pytest.raises(FileExistsError):
        convert_gguf(tiny_gguf, converted)


def test_a_base_model_is_a_card_a_folder_or_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    assert base_model_path("meta-llama/Meta-Llama-3-8B") == "meta-llama/Meta-Llama-3-8B"
    assert base_model_path(str(tmp_path)) == str(tmp_path)
    with pytest.raises(DefectgenError) as error:
        base_model_path("smollm2-135m")
    path = tmp_path / "cache" / "smollm2-135m"
    expected = f"base model smollm2-135m is not in the cache ({path}). Run: defectgen fetch smollm2-135m"
    assert str(error.value) == expected
    for wrong in ("", "./nothing", "runs/a/checkpoint-3", str(tmp_path / "nothing")):
        with pytest.raises(UsageError, match="expected an existing folder, a hub id"):
            base_model_path(wrong)
    with pytest.raises(UsageError, match="2dmd is a data set"):
        base_model_path("2dmd")
