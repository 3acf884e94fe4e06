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

# The default model. BCCD_ROOT holds its sources: bccd_with_mask, bccd_with_mask_more, bccd_voc and txl_pbc (docs/model.md).
# A teacher of one class learns real masks on the pairs; it outlines the annotated boxes of the other sources.
MODEL       := output/model
BOXES       := $(MODEL)/converted
SOURCES     := pairs more voc txl synthetic
WHOLE       := pairs_whole more_whole
REAL        := pairs more voc txl $(WHOLE)
CONVERT     := $(BIN)/python tools/convert_bccd.py --overwrite
COMPLETE    := $(BIN)/python tools/complete_annotations.py --overwrite --run $(MODEL)/teacher
TRAIN_MODEL := OMP_NUM_THREADS=1 $(BIN)/python tools/train_net.py --resume
SOURCE_ROOT  = $(or $(BCCD_ROOT),$(error BCCD_ROOT=DIR: expected the folder of the sources, see docs/model.md))
FOLDER_pairs           := bccd_with_mask
FOLDER_pairs_whole     := bccd_with_mask
FOLDER_more            := bccd_with_mask_more
FOLDER_more_whole      := bccd_with_mask_more
FOLDER_voc             := bccd_voc
FOLDER_txl             := txl_pbc
BOXES_OF                = --boxes "$(SOURCE_ROOT)/$(FOLDER_$*)/bbbc041_boxes.json"
CONVERSION_pairs        = --spec bbbc041 $(BOXES_OF)
CONVERSION_pairs_whole  = --spec bbbc041_whole $(BOXES_OF)
CONVERSION_more         = $(CONVERSION_pairs) --ratios 0.7 0.3 0
CONVERSION_more_whole   = $(CONVERSION_pairs_whole) --ratios 0.7 0.3 0
CONVERSION_voc         := --spec bccd_voc --official
CONVERSION_txl         := --spec txl_pbc --official

# Mask R-CNN R50-FPN: three stages with configs/mask_rcnn_R_50_FPN_cpu.yaml, each from the weights of the one before. The
# first two see images at half their size, where a step takes a third of the time and a cell is half as large.
R50      := output/r50
R50_HALF := INPUT.SCALE 0.5 INPUT.CROP.SIZE "[512, 512]" MODEL.ANCHOR_GENERATOR.SIZES "[[12], [24], [48], [96], [192]]"
R50_REAL := DATASETS.TRAIN "('pairs_train', 'pairs_test', 'more_train')" DATASETS.TEST "('pairs_val', 'more_val')"
TRAIN_R50 = $(TRAIN_MODEL) --config-file configs/mask_rcnn_R_50_FPN_cpu.yaml --data-root $(R50)/data OUTPUT_DIR $(@D)

.PHONY: help setup demo model r50 test lint bench docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 8

setup: $(READY) ## make .venv with what prediction, training and evaluation need

$(READY): setup.py bccd_d2/installation.py
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch torchvision)
	$(PIP) -e ".[train,app]"
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

model: $(MODEL)/final/model_final.pth ## make the default model again from its sources, some hours: BCCD_ROOT=DIR
	$(BIN)/python tools/pack_model.py --run $(MODEL)/final --output $(MODEL) --name smear --overwrite

$(REAL:%=$(BOXES)/%/splits.json): $(BOXES)/%/splits.json: | $(READY)
	$(CONVERT) --output $(@D) --root "$(SOURCE_ROOT)/$(FOLDER_$*)" $(CONVERSION_$*)

$(BOXES)/synthetic/splits.json: | $(READY)
	$(BIN)/python tools/make_synthetic.py --output $(MODEL)/smears --overwrite --variety wide --images 100 --seed 5 \
	    --size 900x700 --extras mask-classes --platelets-in-mask --test-fraction 0
	$(CONVERT) --output $(@D) --root $(MODEL)/smears --spec rgb_classes --min-area 10 --ratios 1 0 0

$(MODEL)/teacher-data/splits.json: | $(READY)
	$(CONVERT) --output $(@D) --root "$(SOURCE_ROOT)/bccd_with_mask"

$(MODEL)/teacher/model_final.pth: $(MODEL)/teacher-data/splits.json
	$(TRAIN_MODEL) --config-file configs/mask_rcnn_slim_FPN_lite.yaml --data-root $(<D) OUTPUT_DIR $(@D) TEST.EVAL_PERIOD 0

$(MODEL)/sources/%/splits.json: $(BOXES)/%/splits.json $(MODEL)/teacher/model_final.pth
	$(COMPLETE) --data-root $(<D) --output $(@D) $(COMPLETION_$*)
	cp $< $@

# What is sure enough to be no background: the pairs lack some cells at the border, the detection set many red cells.
COMPLETION_pairs     := --ignore-score 0.3
COMPLETION_more      := --ignore-score 0.3
COMPLETION_pairs_whole := --ignore-score 0.3
COMPLETION_more_whole  := --ignore-score 0.3
COMPLETION_voc       := --outlines --ignore-score 0.1
COMPLETION_txl       := --outlines
COMPLETION_synthetic := --outlines

$(MODEL)/smear/model_final.pth: $(SOURCES:%=$(MODEL)/sources/%/splits.json)
	$(TRAIN_MODEL) --config-file configs/mask_rcnn_slim_FPN_smear.yaml --data-root $(MODEL)/sources \
	    OUTPUT_DIR $(@D) MODEL.WEIGHTS $(MODEL)/teacher/model_final.pth

# More exact outlines: half of the pairs with the masks as they are, which merge some cells that touch, and sizes near those
# of prediction.
CUT  := 'pairs_train', 'pairs_test', 'more_train'
ASIS := 'pairs_whole_train', 'pairs_whole_test', 'more_whole_train'
$(MODEL)/final/model_final.pth: $(MODEL)/smear/model_final.pth $(WHOLE:%=$(MODEL)/sources/%/splits.json)
	$(TRAIN_MODEL) --config-file configs/mask_rcnn_slim_FPN_smear.yaml --data-root $(MODEL)/sources OUTPUT_DIR $(@D) \
	    MODEL.WEIGHTS $< SOLVER.MAX_ITER 5000 INPUT.AUGMENTATION.CELL_DIAMETERS "[50.0, 116.0]" DATASETS.TRAIN "($(CUT), $(CUT), \
	    $(CUT), $(CUT), $(ASIS), $(ASIS), $(ASIS), $(ASIS), $(ASIS), 'voc_train', 'voc_train', 'txl_train', 'synthetic_train', 'synthetic_train')"

r50: $(R50)/native/model_final.pth ## train Mask R-CNN R50-FPN on the pairs from scratch, two hours of one core: BCCD_ROOT=DIR
	$(BIN)/python tools/evaluate.py --run $(R50)/native --overwrite

$(R50)/data/pairs/splits.json: | $(READY)
	$(CONVERT) --output $(@D) --root "$(SOURCE_ROOT)/bccd_with_mask"

$(R50)/data/more/splits.json: | $(READY)
	$(CONVERT) --output $(@D) --root "$(SOURCE_ROOT)/bccd_with_mask_more" --ratios 0.7 0.3 0

$(R50)/data/synthetic/splits.json: | $(READY)
	$(BIN)/python tools/make_synthetic.py --output $(R50)/smears --overwrite --images 60 --seed 7 --test-fraction 0
	$(CONVERT) --output $(@D) --root $(R50)/smears --ratios 1 0 0

$(R50)/synthetic/model_final.pth: $(R50)/data/synthetic/splits.json $(R50)/data/pairs/splits.json $(R50)/data/more/splits.json
	$(TRAIN_R50) $(R50_HALF) $(R50_REAL) DATASETS.TRAIN "('synthetic_train',)" SOLVER.MAX_ITER 500

$(R50)/half/model_final.pth: $(R50)/synthetic/model_final.pth
	$(TRAIN_R50) $(R50_HALF) $(R50_REAL) MODEL.WEIGHTS $< SOLVER.MAX_ITER 2400

$(R50)/native/model_final.pth: $(R50)/half/model_final.pth
	$(TRAIN_R50) $(R50_REAL) MODEL.WEIGHTS $<

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
