#!/bin/sh
# Installs the platform and all it needs into the virtual environment $1.
#
# One release of torch serves training and generation, so its build is chosen first: the CUDA build
# where a GPU is at hand, else the CPU build, which some package indexes carry and PyTorch's own does.
set -eu
venv=$1
python=${PYTHON:-python3}
torch=2.13.0
here=$(dirname "$0")

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "depo needs Python 3.11 or later; set PYTHON to one" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
$pip install --quiet "uv>=0.9"

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    extra=gpu
    $pip install --quiet "torch==$torch"
else
    extra=cpu
    $pip install --quiet "torch==$torch+cpu" 2>/dev/null ||
        $pip install --quiet "torch==$torch+cpu" --extra-index-url https://download.pytorch.org/whl/cpu
fi
# Bytecode at install: importing Ray, torch and vLLM without it costs every worker seconds.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode \
    --override "$here/overrides.txt" --editable "$here/..[$extra,dev]"
echo "installed into $venv ($extra build)"
