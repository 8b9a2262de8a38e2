# Thin: the work is in scripts/. Downloads, tools and build output are kept outside the clone.

export MERIDIAN_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/meridian
export CARGO_TARGET_DIR ?= $(MERIDIAN_CACHE)/target

.PHONY: help demo test test-kernel-long bench bench-page ebpf web dashboards image test-kernels test-cilium fuzz soak cluster cluster-down

help: ## shows this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## runs the demo; ARGS="--serve" and so on
	@scripts/demo.sh $(ARGS)

test: ## runs every check and test
	@scripts/test.sh

test-kernel-long: ## retires entries and changes tables, programs and hooks under load TIMES=20 times as long as `make test`
	@MERIDIAN_TIMES=$(or $(TIMES),20) scripts/test.sh kernel retiring:: load:: a_change_of_the_hook

bench: ## measures the kernel program, writes docs/performance.md
	@scripts/bench.sh

bench-page: ## measures the page in a browser, writes docs/performance.md
	@scripts/bench-page.sh

ebpf: ## builds the eBPF object that the repository keeps
	@scripts/ebpf.sh build

web: ## builds the page that the repository keeps
	@scripts/web.sh build

dashboards: ## builds the dashboards for Grafana that the chart has
	@scripts/dashboards.sh build

image: ## makes the image without docker, and says how to push it; ARGS=aarch64 for another machine
	@scripts/image.sh $(ARGS)

test-kernels: ## runs every case on older and newer kernels in qemu, about an hour; writes docs/kernels.md
	@scripts/test-kernels.sh

fuzz: ## mutates the corpus of each reader of foreign bytes; SECONDS=60 for each
	@scripts/fuzz.sh $(or $(SECONDS),60)

soak: ## traffic, churn and faults for MINUTES=30: exact at the end, and memory, descriptors and tasks flat
	@scripts/soak.sh $(or $(MINUTES),30)

test-cilium: ## runs Meridian beside the real Cilium in each of its modes
	@scripts/test-cilium.sh all

cluster: ## brings up a real cluster with Meridian on this machine; ARGS="--cilium default" with Cilium
	@scripts/cluster.sh demo $(ARGS)

cluster-down: ## takes the cluster away
	@scripts/cluster.sh down
