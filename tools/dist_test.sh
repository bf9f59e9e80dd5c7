#!/usr/bin/env bash
# Test on several processes: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
set -euo pipefail
usage='usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [ARGUMENTS]'
config=${1:?$usage}
checkpoint=${2:?$usage}
processes=${3:?$usage}
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
