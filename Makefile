# make study | make test; each creates .venv and installs what it needs
PY   ?= python3
BIN  := .venv/bin
ARGS ?=

.PHONY: install study test prove lab docs readme bench audit lock clean
.DEFAULT_GOAL := help

help:
	@echo "make study    train the five width/depth variants on the embedded road scenes; report in runs/width_depth"
	@echo "              make study ARGS='--data path/to/kitti --imgsz 416x128' for your own data"
	@echo "make test     prove the package (8 to 20 minutes)"
	@echo "make prove    the same with the whole of every long sweep"
	@echo "make lab      open the lessons in JupyterLab"
	@echo "make docs     build the site in _docs (needs Quarto)"
	@echo "make bench    the budgets, and our trainer beside Ultralytics: figures, goals, ratios"
	@echo "              make bench ARGS='--data path/to/kitti --imgsz 416x128 --seeds 0 1 2'"
	@echo "make audit    licences of all that is installed, and what differs from the versions that CI had"
	@echo "make lock     write .ci/lock.txt: today's versions, without installing them"
	@echo "make install  only create .venv and install"
	@echo "make readme   README.md from nbs/readme.ipynb"

install: .venv/.installed
.venv/.installed: settings.ini setup.py pyproject.toml
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; $(PY) is older. Try: make install PY=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PY) -m venv .venv || { rm -rf .venv; echo "$(PY) cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing into .venv (a few minutes the first time: torch is large)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip setuptools wheel
	@$(BIN)/python -m pip install -q torch torchvision
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

study: install
	@$(BIN)/layerscale study $(ARGS)

test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

prove: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'prove or not prove' $(ARGS)

lab: install
	@$(BIN)/jupyter lab nbs

bench: install
	@$(BIN)/python tests/bench/budgets.py
	@$(BIN)/layerscale bench train $(ARGS)

docs: install
	@$(BIN)/python tests/docs.py

readme: install
	@$(BIN)/python tests/readme.py

audit: install
	@$(BIN)/python tests/audit.py $(ARGS)

lock: install
	@$(BIN)/python tests/audit.py --lock

clean:
	rm -rf _proc _docs build dist *.egg-info
