#!/usr/bin/env bash
# Train on several processes of one or more machines: dist_train.sh CONFIG PROCESSES [arguments of train.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
set -euo pipefail
config=${1:?usage: dist_train.sh CONFIG PROCESSES [ARGUMENTS]}
processes=${2:?usage: dist_train.sh CONFIG PROCESSES [ARGUMENTS]}
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "${@:3}"
