# Everything a newcomer or CI types. `make help` lists it.
PYTHON ?= python3
JOBS ?= $(shell nproc)
export ROCKLEDGE_CACHE ?= $(HOME)/.cache/rockledge

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c requirements.txt
BUILD_TOOLS := cmake ninja scikit-build-core
CORE := src/rockledge/librockledge.so
CORE_SOURCES := CMakeLists.txt $(wildcard $(foreach folder,native native/npu,$(folder)/*.cpp $(folder)/*.hpp $(folder)/*.h))
VIRTUAL_NPU := npu_lab/src/rockledge_npu_lab/librockledge_virtual_npu.so
VIRTUAL_NPU_SOURCES := $(wildcard npu_lab/CMakeLists.txt npu_lab/native/*pp native/npu/drm.hpp native/npu/rocket_uapi.hpp)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help check venv native demo demo-npu test test-all test-arm sanitize wheel lint llama-cpp size clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

check:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install python3 (3.10 or newer) and python3-venv, or name another one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is $$($(PYTHON) -V), but 3.10 or newer is needed: name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install python3-venv" >&2; exit 1; }
	@command -v g++ >/dev/null || { echo "g++ is missing: install g++ (11 or newer)" >&2; exit 1; }

$(BIN)/python: | check
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Two stamps: the demo needs PyTorch but none of the development tools.
$(VENV)/.demo: pyproject.toml npu_lab/pyproject.toml requirements.txt | $(BIN)/python
	@echo "installing what the demo needs into $(VENV) (PyTorch is the large part)"
	@$(PIP) $(BUILD_TOOLS)
	@$(PIP) --no-build-isolation -e '.[quantize]' -e ./npu_lab
	@touch $@

$(VENV)/.dev: pyproject.toml npu_lab/pyproject.toml requirements.txt | $(BIN)/python
	@echo "installing the development environment into $(VENV)"
	@$(PIP) $(BUILD_TOOLS)
	@$(PIP) --no-build-isolation -e '.[dev]' -e ./npu_lab
	@touch $@ $(VENV)/.demo

$(VENV)/.lm-eval: $(VENV)/.dev
	@echo "installing lm-eval into $(VENV)"
	@$(PIP) 'lm-eval[api]'
	@touch $@

$(VENV)/.clients: $(VENV)/.dev
	@echo "installing the clients of the server's tests into $(VENV)"
	@$(PIP) --no-build-isolation -e '.[clients]'
	@$(PIP) --no-deps instructor
	@touch $@

$(VENV)/.on-policy: $(VENV)/.dev
	@echo "installing TRL into $(VENV)"
	@$(PIP) --no-build-isolation -e '.[on-policy]'
	@touch $@

$(VENV)/.build: requirements.txt | $(BIN)/python
	@if [ ! -x $(BIN)/cmake ] || [ ! -x $(BIN)/ninja ]; then echo "installing CMake and Ninja into $(VENV)"; $(PIP) $(BUILD_TOOLS); fi
	@touch $@

venv: $(VENV)/.dev  ## .venv with the package and everything for development

native: $(CORE) $(VIRTUAL_NPU)  ## the native core for this machine, into src/rockledge/, and the virtual NPU's library

$(CORE): $(CORE_SOURCES) | $(VENV)/.build
	@$(BIN)/cmake -S . -B build/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release --log-level=WARNING
	@$(BIN)/cmake --build build/native -j $(JOBS)
	@$(BIN)/cmake --install build/native --prefix src > build/native/install.log
	@touch $@

$(VIRTUAL_NPU): $(VIRTUAL_NPU_SOURCES) | $(VENV)/.build
	@$(BIN)/cmake -S npu_lab -B build/npu_lab -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release --log-level=WARNING
	@$(BIN)/cmake --build build/npu_lab -j $(JOBS)
	@$(BIN)/cmake --install build/npu_lab --prefix npu_lab/src > build/npu_lab/install.log
	@touch $@

demo: $(VENV)/.demo $(CORE)  ## compress a small real model, show what it cost, and let it answer
	@$(BIN)/rockledge demo

demo-npu: $(VENV)/.demo $(CORE) $(VIRTUAL_NPU)  ## the same model reads a prompt on a virtual NPU: which work ran where
	@$(BIN)/rockledge npu demo

test: $(VENV)/.dev $(CORE) $(VIRTUAL_NPU)  ## the test suite, without the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not arm"

test-all: $(VENV)/.dev $(VENV)/.lm-eval $(VENV)/.clients $(VENV)/.on-policy $(CORE) $(VIRTUAL_NPU) sanitize  ## the slow tests too, and `make sanitize`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not arm" --timeout 1800

test-arm: $(VENV)/.dev $(CORE) $(VIRTUAL_NPU)  ## the core and the wheel on an emulated Cortex-A76
	@tools/arm-sysroot.sh
	@$(BIN)/cmake -S . -B build/arm -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_TOOLCHAIN_FILE=tools/aarch64.cmake -DCMAKE_BUILD_TYPE=Release -DROCKLEDGE_SELFCHECK=ON --log-level=WARNING
	@$(BIN)/cmake --build build/arm -j $(JOBS)
	@$(BIN)/cmake -S npu_lab -B build/arm-npu-lab -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_TOOLCHAIN_FILE=$(abspath tools/aarch64.cmake) -DCMAKE_BUILD_TYPE=Release --log-level=WARNING
	@$(BIN)/cmake --build build/arm-npu-lab -j $(JOBS)
	$(BIN)/python -m pytest -s -m arm tests/packaging tests/bench

# AddressSanitizer has to be in the process before Python is, hence the preload; leaks would be Python's own.
sanitize: $(VENV)/.dev $(VIRTUAL_NPU)  ## the native tests under the address, undefined-behaviour and thread sanitizers
	@for kind in address undefined thread; do \
	  echo "building the core with the $$kind sanitizer"; \
	  $(BIN)/cmake -S . -B build/$$kind -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DROCKLEDGE_SANITIZE=$$kind -DROCKLEDGE_SELFCHECK=ON --log-level=WARNING > /dev/null || exit 1; \
	  $(BIN)/cmake --build build/$$kind -j $(JOBS) || exit 1; \
	  build/$$kind/rockledge_selfcheck || exit 1; \
	done
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" ROCKLEDGE_LIBRARY=$(abspath build/address/librockledge.so) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" tests/native tests/runtime/test_npu_device.py tests/runtime/offload/test_native_plan.py
	UBSAN_OPTIONS=print_stacktrace=1 ROCKLEDGE_LIBRARY=$(abspath build/undefined/librockledge.so) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" tests/native tests/runtime/test_npu_device.py tests/runtime/offload/test_native_plan.py

wheel: $(VENV)/.build  ## wheels for x86-64 and aarch64 (where its cross compiler is installed), into dist/
	@$(BIN)/python tools/wheel.py x86_64 aarch64

lint: $(VENV)/.dev  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy
	$(BIN)/lint-imports

llama-cpp:  ## llama.cpp's tools for the comparisons, into $ROCKLEDGE_CACHE (about 20 minutes on one core)
	@tools/llama-cpp.sh

size:  ## lines of each folder under version control
	@git ls-files -- '*.py' '*.cpp' '*.hpp' '*.h' '*.md' '*.sh' '*.toml' '*CMakeLists.txt' Makefile | xargs wc -l | awk '$$2 != "total" { n = split($$2, p, "/"); key = n == 1 ? "." : p[1]; if (p[1] == "src" && n > 3) key = p[1] "/" p[2] "/" p[3]; else if (p[1] == "src") key = "src/rockledge"; sum[key] += $$1; all += $$1 } END { for (k in sum) printf "%7d  %s\n", sum[k], k | "sort -k2"; close("sort -k2"); printf "%7d  in all\n", all }'

clean:  ## everything that can be made again, except .venv and $ROCKLEDGE_CACHE
	rm -rf build dist demo-model .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f src/rockledge/*.so npu_lab/src/rockledge_npu_lab/*.so
	find src npu_lab tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} +
