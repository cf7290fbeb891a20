#!/usr/bin/env bash
# One folder with all that a run needs: the files that git knows, as they are, without
# those that no step reads, and the folders of the kit that steps read: base, bulk, networks, wheels.
#
#   bash benchmarks/gpu/pack.sh KIT OUT
#
# Then, where OUT was copied to: `bash OUT/benchmarks/gpu/run.sh OUT/kit RESULTS`. The base weights stay parts of at most 52 MiB, to travel
# one by one. Variable PYTHON: with numpy, to compress the kit's arrays.
set -eu
kit=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$2" && out=$(cd "$2" && pwd)
if [ -n "$(ls -A "$out")" ]; then
  echo "$out: got a folder with files, expected an empty one" >&2
  exit 2
fi
git -C "$here" ls-files -z benchmarks/gpu defectgen cli configs datasets LICENSE |
  grep -zvE '[.]cbm$|^defectgen/(models/(surrogate|slices-catboost)|report/assets)/|training_configurations[.]json$' |
  tar -C "$here" --null -T - -c | tar -x -C "$out"
mkdir "$out/kit"
for name in base bulk networks wheels; do if [ -d "$kit/$name" ]; then cp -r "$kit/$name" "$out/kit/"; fi; done
if ls "$kit"/base/part-* >/dev/null 2>&1; then
  rm "$out"/kit/base/part-*
  cat "$kit"/base/part-* | split -b 52m -d -a 1 - "$out/kit/base/part-"
fi
find "$out/kit" -name '*.npz' -print0 | xargs -0r "${PYTHON:-python3}" -c 'import sys, numpy
for path in sys.argv[1:]:
    with numpy.load(path) as found:
        arrays = dict(found)
    numpy.savez_compressed(path, **arrays)'
du -sm --apparent-size "$out"/kit/base/part-* 2>/dev/null || true
echo "without the parts, MiB:"
du -s --apparent-size -BK "$out"/kit/* "$out"/defectgen/models/* "$out"/benchmarks "$out"/defectgen | sort -n | tail -12
find "$out" -type f ! -name 'part-*' -printf '%s\n' | awk '{s += $1} END {printf "%.1f MiB in %d files\n", s / 1048576, NR}'
