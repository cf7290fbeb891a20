#!/usr/bin/env bash
# Runs the steps on a GPU that is there for minutes: each within its own budget, its results packed at once.
#
#   bash benchmarks/gpu/run.sh KIT OUT [full|toy]
#
# KIT: folder of prepare.py, or `kit` in that of pack.sh. OUT: folder for the results, one archive a step, in parts of at most 15 MiB; a summary and the logs' ends are printed.
# toy: tiny sizes, on a processor too; without base weights in the kit a tiny random Llama stands in.
# Variables: STEPS, NETWORKS_S, CROWDED_S, BULK_S, LLAMA_S (budgets in seconds), TOTAL_S, GPU_COMPILE (0: compile nothing), PYTHON, BASE (a base model's
# folder in place of the kit's weights), WORK (folder for what is in between), BULK_OPTIONS and the like (more options of a step).
set -u
kit=$(cd "$1" && pwd) || exit 2
mkdir -p "$2" && out=$(cd "$2" && pwd) || exit 2
scale=${3:-full}
here=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work/results" "$work/packages"
SECONDS=0
if [ "$scale" = toy ]; then
  toy=--toy total=${TOTAL_S:-150} networks=${NETWORKS_S:-20} crowded=${CROWDED_S:-20} bulk=${BULK_S:-12} llama=${LLAMA_S:-15}
else
  toy='' total=${TOTAL_S:-560} networks=${NETWORKS_S:-75} crowded=${CROWDED_S:-240} bulk=${BULK_S:-150} llama=${LLAMA_S:-75}
fi
gpu_mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -1)
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
if [ -z "$gpu_mib" ]; then # no nvidia-smi in the path
  read -r gpu_mib gpu < <("$python" -c 'import torch
if torch.cuda.is_available(): print(torch.cuda.mem_get_info()[1] >> 20, torch.cuda.get_device_name())' 2>/dev/null)
fi
declare -A need_mib=([networks]=8000 [crowded]=24000 [bulk]=38000 [llama]=70000)

say() { echo "$*" | tee -a "$out/summary.txt"; }
: >"$out/summary.txt"
say "device ${gpu:-none} ${gpu_mib:-0} MiB, scale $scale, $(nproc) cores"
if [ "$scale" != toy ] && [ -z "$gpu_mib" ]; then say "no GPU: nothing was run"; exit 1; fi

# What the machine lacks, and the checkout as it would be installed.
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
if ! "$python" -c 'import gguf, platformdirs, pydantic, spglib' 2>/dev/null && ls "$kit"/wheels/*.whl >/dev/null 2>&1; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" \
    "$kit"/wheels/*.whl || say "wheels: not installed"
fi
for name in cli configs datasets; do ln -sfn "$here/$name" "$work/packages/defectgen_$name"; done
export PYTHONPATH="$work/site:$work/packages:$here${PYTHONPATH:+:$PYTHONPATH}"

# The base model, in the background while a step that needs none runs.
base=${BASE:-$work/base}
make_base() {
  if [ -d "$base" ]; then return; fi
  if ls "$kit"/base/part-* >/dev/null 2>&1; then
    mkdir -p "$work/gguf" && cat "$kit"/base/part-* >"$work/gguf/base.gguf" &&
      (cd "$work/gguf" && sha256sum -c --quiet "$kit/base/sha256.txt") &&
      "$python" -c 'import sys; from pathlib import Path; from defectgen.llm.base import convert_gguf as convert
convert(Path(sys.argv[1]), Path(sys.argv[2]))' "$work/gguf/base.gguf" "$base"
  elif [ "$scale" = toy ]; then
    PYTHONPATH="$PYTHONPATH:$here/tests" "$python" -c 'import sys; from pathlib import Path
from tiny_model import save_tiny_llama, tiny_tokenizer
folder = Path(sys.argv[1]); folder.with_suffix(".tmp").mkdir()
save_tiny_llama(tiny_tokenizer(), folder.with_suffix(".tmp")).rename(folder)' "$base"
  else
    echo "no base weights in $kit/base"
    return 1
  fi
}
(make_base && echo "base model after $SECONDS s") >"$work/base.log" 2>&1 &
base_job=$!

pack() { # one step's folder
  tar -C "$work/results" -cf - "$1" | gzip -1 >"$work/$1.tar.gz"
  if [ "$(stat -c %s "$work/$1.tar.gz")" -le 15728640 ]; then mv "$work/$1.tar.gz" "$out/"; else
    split -b 15m -d -a 1 "$work/$1.tar.gz" "$out/$1.tar.gz." && rm "$work/$1.tar.gz"
  fi
}

for step in ${STEPS:-networks crowded bulk llama}; do
  if [ ! -f "$here/benchmarks/gpu/$step.py" ]; then say "$step missing: benchmarks/gpu/$step.py"; continue; fi
  if [ -n "$gpu_mib" ] && [ "$gpu_mib" -lt "${need_mib[$step]:-0}" ]; then
    say "$step skipped: ${need_mib[$step]} MiB of memory needed, $gpu_mib there"
    continue
  fi
  if [ "$step" != networks ] && [ -n "$base_job" ]; then
    wait "$base_job"
    say "base exit $? $(tail -1 "$work/base.log" | tr '\r' '\n' | tail -1)"
    base_job=''
  fi
  budget=${!step:-60} options=${step^^}_OPTIONS
  left=$((total - SECONDS - 10))
  if [ "$left" -lt "$budget" ]; then budget=$left; fi
  if [ "$budget" -lt 5 ]; then say "$step skipped: no time left"; continue; fi
  mkdir -p "$work/results/$step"
  start=$SECONDS
  export STEP_STARTED=$(date +%s)
  timeout --signal=TERM --kill-after=5 $((budget + 15)) "$python" "$here/benchmarks/gpu/$step.py" --kit "$kit" \
    --base "$base" -o "$work/results/$step" --seconds "$budget" $toy ${!options:-} >"$work/results/$step/log.txt" 2>&1
  say "$step exit $? $((SECONDS - start)) s of $budget"
  tr '\r' '\n' <"$work/results/$step/log.txt" | tail -12 | cut -c1-300
  pack "$step"
done
[ -n "$base_job" ] && wait "$base_job"
say "all $SECONDS s"
