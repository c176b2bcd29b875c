.PHONY: install test test-slow test-torch lint docs demo bench zoo

install:
	pip install --editable ".[dev]"

test:
	python -m pytest -n 2

test-slow:
	python -m pytest -n 2 -m slow

test-torch:
	python benchmarks/torch_versions.py $(VERSION)

lint:
	ruff check .
	ruff format --check .
	mypy
	mypy rules

docs:
	python docs/generate.py

demo:
	aliasfix demo

bench:
	python benchmarks/conversion.py
	python benchmarks/photographs.py
	python benchmarks/measure.py
	python benchmarks/layers.py
	python benchmarks/models.py
	python benchmarks/tasks.py
	python docs/generate.py

zoo:
	for zoo in torchvision smp transformers monai ultralytics facenet-pytorch diffusers pix2pix timm; do \
		python benchmarks/zoo.py run $$zoo --jobs 2; \
	done
	python benchmarks/zoo.py table
