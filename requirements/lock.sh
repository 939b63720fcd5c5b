#!/usr/bin/env bash
# Pins everything that `make` installs: requirements/{cpu,cuda,gateway,train,dev,deepspeed}.txt, from pyproject.toml,
# and the tool of `make audit`.
# Needs uv. The files carry no index address: whatever pip is set up with is used.
set -euo pipefail
cd "$(dirname "$0")/.."

# The same clause stands on every line, because pyproject.toml locks for Linux on x86-64 alone.
platform="platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'"

pin() { # pin FILE EXTRA...
    local file=$1 extras=()
    shift
    for extra in "$@"; do extras+=(--extra "$extra"); done
    uv pip compile pyproject.toml "${extras[@]}" --universal --python-version 3.11 --quiet \
        --no-annotate --no-header --output-file "requirements/$file" "${constraints[@]}"
    without_platform "$file"
}

without_platform() {
    sed -i -e "s/ ; $platform\$//" -e "s/ and $platform\$//" "requirements/$1"
}

constraints=()
pin cpu.txt cpu embedded sources demo build
# torch's CPU build needs none of the CUDA libraries that the metadata of the other build asks for.
sed -i -E '/^(nvidia-|cuda-|triton==)/d' requirements/cpu.txt
constraints=(--constraint requirements/cpu.txt)
pin train.txt train
sed -i -E '/^(nvidia-|cuda-|triton==)/d' requirements/train.txt
pin dev.txt dev
pin gateway.txt sources hub s3 build
constraints=()
pin cuda.txt cuda embedded sources demo build
constraints=(--constraint requirements/cuda.txt)
pin deepspeed.txt deepspeed
# Everything but DeepSpeed's own is in cuda.txt already.
grep -vxFf requirements/cuda.txt requirements/deepspeed.txt > requirements/new.txt
mv requirements/new.txt requirements/deepspeed.txt

echo pip-audit | uv pip compile - --universal --python-version 3.11 --quiet \
    --no-annotate --no-header --output-file requirements/audit.txt
without_platform audit.txt
