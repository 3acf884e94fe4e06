# make help lists the targets. Everything is installed into .venv; nothing outside this folder is changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The downloads and the unpacking take minutes, so pip tells what it does. Python compiles a module when it is imported.
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --no-compile
# TORCH_INDEX=URL takes PyTorch from there: from the index for CPUs that its install page names, it is gigabytes smaller.
TORCH_INDEX ?=
# Each stamp adds to the one before: what the tools need, what the tests need, what lint needs.
READY  := $(VENV)/.ready
TESTED := $(VENV)/.ready-for-tests
LINTED := $(VENV)/.ready-for-lint

# The demo's data: synthetic smears, or the real pairs below BCCD_ROOT. Each has a folder of its own, and what is
# there already is kept: after make clean all is made again.
BCCD_ROOT  ?=
EMPTY      :=
DEMO       := output/demo$(if $(BCCD_ROOT),-$(notdir $(subst $(EMPTY) ,_,$(patsubst %/,%,$(BCCD_ROOT)))))
DEMO_ROOT  := $(or $(BCCD_ROOT),$(DEMO)/smears)
DEMO_DATA  := $(if $(BCCD_ROOT),,$(DEMO)/smears/.complete)
DEMO_STEPS ?= 400
CONFIG     := configs/mask_rcnn_R_18_FPN_lite.yaml

# The shipped model: one on synthetic smears, from it a short and a long run on the real pairs, and the mean of their weights.
LITE       := output/lite
LITE_RUNS  := $(LITE)/long $(LITE)/short
LITE_CFG   := configs/mask_rcnn_slim_FPN_lite.yaml
LITE_TRAIN := OMP_NUM_THREADS=1 $(BIN)/python tools/train_net.py --config-file $(LITE_CFG) --resume

.PHONY: help setup demo lite test lint bench docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 8

setup: $(READY) ## make .venv with what prediction, training and evaluation need

$(READY): setup.py bccd_d2/installation.py
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch torchvision)
	$(PIP) -e ".[train]"
	$(BIN)/python tools/install_detectron2.py
	touch $@

$(TESTED): $(READY)
	$(PIP) -e ".[test]"
	touch $@

$(LINTED): $(TESTED)
	$(PIP) -e ".[lint]"
	touch $@

demo: $(DEMO)/shipped/predictions.json $(DEMO)/model/results.json ## predict; data -> COCO JSON -> train -> evaluate -> report; BCCD_ROOT=DIR takes real pairs
	$(BIN)/python tools/visualize.py --run $(DEMO)/model
	$(BIN)/python tools/evaluate.py --run $(DEMO)/model --overwrite
	@echo "figures: $(DEMO)/model/viz"
	@echo "cells of your own image: $(BIN)/python tools/predict.py --run $(DEMO)/model --input IMAGE --output FOLDER"

$(DEMO)/smears/.complete: | $(READY)
	$(BIN)/python tools/make_synthetic.py --output $(DEMO)/smears --images 24 --seed 42 --overwrite
	touch $@

# Three images with the shipped model, before anything is trained.
$(DEMO)/shipped/predictions.json: $(DEMO_DATA) | $(READY)
	find "$(DEMO_ROOT)" -type f -path '*original*' | sort | head -n 3 | tr '\n' '\0' | \
	    xargs -0 $(BIN)/python tools/predict.py --output $(DEMO)/shipped --input
	@echo "cells found by the shipped model: $(DEMO)/shipped/overlays"

$(DEMO)/dataset/splits.json: $(DEMO_DATA) | $(READY)
	$(BIN)/python tools/convert_bccd.py --root "$(DEMO_ROOT)" --output $(DEMO)/dataset --max-images 60 --overwrite

$(DEMO)/model/results.json: $(DEMO)/dataset/splits.json
	$(BIN)/python tools/train_net.py --config-file $(CONFIG) --data-root $(DEMO)/dataset --resume \
	    OUTPUT_DIR $(DEMO)/model SOLVER.MAX_ITER $(DEMO_STEPS) TEST.EVAL_PERIOD 0

lite: $(LITE_RUNS:%=%/model_final.pth) ## make the shipped model again from the real pairs: BCCD_ROOT=DIR
	$(BIN)/python tools/pack_model.py --run $(LITE_RUNS) --output $(LITE) --name lite --overwrite

$(LITE)/dataset/splits.json: | $(READY)
	$(BIN)/python tools/convert_bccd.py --root "$(or $(BCCD_ROOT),$(error BCCD_ROOT=DIR: expected the folder of the image and mask pairs))" \
	    --output $(LITE)/dataset --overwrite

$(LITE)/synthetic/dataset/splits.json: | $(READY)
	$(BIN)/python tools/make_synthetic.py --output $(LITE)/synthetic/smears --images 60 --seed 7 --overwrite
	$(BIN)/python tools/convert_bccd.py --root $(LITE)/synthetic/smears --output $(LITE)/synthetic/dataset --overwrite

$(LITE)/synthetic/model/model_final.pth: $(LITE)/synthetic/dataset/splits.json
	$(LITE_TRAIN) --data-root $(LITE)/synthetic/dataset OUTPUT_DIR $(LITE)/synthetic/model TEST.EVAL_PERIOD 0 \
	    SOLVER.MAX_ITER 600 SOLVER.WARMUP_ITERS 50 MODEL_EMA.DECAY 0.99

$(LITE)/short/model_final.pth: STEPS := 1600
$(LITE)/long/model_final.pth: STEPS := 4500
$(LITE_RUNS:%=%/model_final.pth): $(LITE)/dataset/splits.json $(LITE)/synthetic/model/model_final.pth
	$(LITE_TRAIN) --data-root $(LITE)/dataset OUTPUT_DIR $(@D) TEST.EVAL_PERIOD 0 SOLVER.MAX_ITER $(STEPS) \
	    MODEL.WEIGHTS $(LITE)/synthetic/model/model_final.pth DATASETS.TRAIN "('bccd_train','bccd_test')"

# One process per core with one thread each: the tests are small, and threads of several processes fight for the cores.
test: $(TESTED) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile -rs

lint: $(LINTED) ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(TESTED) ## run the benchmarks
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

docs: $(READY) ## build the documentation as a web site in site/
	$(PIP) -e ".[docs]"
	$(BIN)/zensical build --clean

clean: ## remove what the demo and the tools made; .venv stays
	rm -rf output build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
