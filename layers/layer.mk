# Shared by the layers' Makefiles. SAM sets ARTIFACTS_DIR; ARCHITECTURE comes from the environment that
# `make sam-build` sets (x86_64 unless said otherwise).
ARCHITECTURE ?= x86_64
PYTHON ?= python3

platform_x86_64 := manylinux_2_28_x86_64
platform_arm64 := manylinux_2_28_aarch64

define install_layer
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--platform $(platform_$(ARCHITECTURE)) --platform $(subst _2_28_,_2_27_,$(platform_$(ARCHITECTURE))) \
		--platform $(subst _2_28_,_2_17_,$(platform_$(ARCHITECTURE))) \
		--platform $(subst manylinux_2_28_,manylinux2014_,$(platform_$(ARCHITECTURE))) \
		--python-version 3.13 --implementation cp \
		--target "$(ARTIFACTS_DIR)/python" --requirement requirements.txt
	find "$(ARTIFACTS_DIR)/python" -depth \( -name __pycache__ -o -name tests -o -name '*.pyi' -o -name '*.pyx' \
		-o -name '*.pxd' -o -name '*.a' -o -name bin \) -exec rm -rf {} +
endef
