#!/usr/bin/env bash
# What an hour with a GPU is for, within 9 minutes on one GPU: tests, training, prediction, two processes.
#
#     benchmarks/gpu_session.sh DATA OUTPUT           # DATA: what tools/convert_bccd.py wrote of the pairs
#     benchmarks/gpu_session.sh --check DATA OUTPUT   # on a CPU: every part runs, on next to nothing
#
# PYTHON names the interpreter (default: python). Each part has its own time limit and its own log in OUTPUT; a part that
# fails does not end the others. summary.txt is what to keep.
set -uo pipefail

check=
if [ "${1:-}" = --check ]; then
    check=1
    shift
fi
if [ $# != 2 ] || [ ! -d "$1/annotations" ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
data=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
python=${PYTHON:-python}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
failed=0

# part NAME SECONDS COMMAND...: run a part with a limit, and keep the end of what it prints.
part() {
    local name=$1 limit=$2 started=$SECONDS
    shift 2
    [ "$check" ] && limit=1800
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    local status=$?
    [ $status = 0 ] || failed=1
    {
        printf '\n== %s: status %d, %d s\n' "$name" $status $((SECONDS - started))
        grep -vE '^\s*$|it/s\]|Warning' "$out/$name.log" | tail -n "${lines:-12}"
    } | tee -a "$out/summary.txt"
}

: >"$out/summary.txt"
device=cuda
config=configs/mask_rcnn_R_50_FPN_scratch.yaml
train=(tools/train_net.py --config-file $config --data-root "$data")
fixed=(TEST.VALIDATION_LOSS_PERIOD 0 TEST.EVAL_PERIOD 0 SOLVER.CHECKPOINT_PERIOD 1000000)
if [ "$check" ]; then
    device=cpu
    fixed+=(MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.RES2_OUT_CHANNELS 32 MODEL.RESNETS.STEM_OUT_CHANNELS 32
        MODEL.RESNETS.WIDTH_PER_GROUP 32 MODEL.FPN.OUT_CHANNELS 32 MODEL.ROI_BOX_HEAD.CONV_DIM 32
        MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 32 INPUT.CROP.SIZE "[64,64]" INPUT.SCALE 0.25
        SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0 TEST.DETECTIONS_PER_IMAGE 5 MODEL.RPN.POST_NMS_TOPK_TEST 10)
else
    nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used --format=csv,noheader,nounits -lms 500 >"$out/gpu.csv" &
    trap 'kill %1 2>/dev/null' EXIT
fi

# 1. What the tests marked gpu say.
part tests 45 "$python" -m pytest tests -m gpu -q -p no:cacheprovider

# 2. R50-FPN from scratch: a short run says how many iterations fit the time, then as many.
first=60
rest=150
[ "$check" ] && first=6 rest=0
part speed 45 "$python" "${train[@]}" OUTPUT_DIR "$out/speed" SOLVER.MAX_ITER $first SOLVER.WARMUP_ITERS 1 \
    DATASETS.TEST "()" "${fixed[@]}"
iterations=$("$python" benchmarks/run_times.py "$out/speed" --seconds $rest)
lines=30 part training 230 "$python" "${train[@]}" OUTPUT_DIR "$out/run" SOLVER.MAX_ITER "${iterations:-6}" \
    SOLVER.WARMUP_ITERS $((${iterations:-6} / 10 + 1)) SOLVER.LR_SCHEDULER_NAME WarmupCosineLR "${fixed[@]}"
part times 10 "$python" benchmarks/run_times.py "$out/run" --gpu "$out/gpu.csv"

# 3. A step against torchvision's.
if [ "$check" ]; then
    part step 60 "$python" benchmarks/bench_train_step.py --side 64 --batch 1 --cells 4 --steps 1
else
    part step 45 "$python" benchmarks/bench_train_step.py --side 512 --batch 4 --amp --steps 20
fi

# 4. Prediction by the default model: an image, batches, a slide.
if [ "$check" ]; then
    part prediction 60 "$python" benchmarks/bench_inference.py --device cpu --only batches slide --rounds 1 \
        --slide-side 700 --tile 512 --batches 1 2 --image 320 240
else
    part prediction 110 "$python" benchmarks/bench_inference.py --device cuda --only batches slide --rounds 5 \
        --slide-side 20000 --batches 1 2 4 8 --threads 8
fi

# 5. Two processes that train together; on one GPU, which NCCL does not share, on the CPU.
gpus=$([ "$check" ] && echo 0 || nvidia-smi -L | wc -l)
two=(--num-processes 2 MODEL.DEVICE cpu)
[ "$gpus" -gt 1 ] && two=(--num-gpus 2)
part two_processes 50 "$python" tools/train_net.py --config-file configs/mask_rcnn_slim_FPN_lite.yaml \
    --data-root "$data" --fast-dev-run "${two[@]}" OUTPUT_DIR "$out/two" SOLVER.IMS_PER_BATCH 2 \
    INPUT.CROP.SIZE "[64,64]"

echo "status $failed, $SECONDS s: $out/summary.txt"
exit $failed
