# A table of contents: what each target does is in the script it names.

.DEFAULT_GOAL := help

.PHONY: help
help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: run
run: ## Install what is missing, build, and start the server with a default image
	@scripts/prerequisites.sh run
	@scripts/build.sh release
	@exec target/release/rds up

.PHONY: demo
demo: ## Run code in a VM of the server that runs, and code that calls an SDK in another VM
	@scripts/prerequisites.sh run
	@scripts/build.sh release
	@exec target/release/rds demo

.PHONY: build
build: ## Build the program and the guest agent into target/release
	@scripts/build.sh release

.PHONY: agent
agent: ## Build the guest agent alone
	@scripts/agent.sh

.PHONY: image
image: ## Build the Debian image that tests use, into target/image
	@scripts/prerequisites.sh run
	@scripts/image.sh

.PHONY: test
test: ## Everything that must pass: format, lints, licences, unit tests, real VMs
	@scripts/prerequisites.sh test
	@scripts/test.sh

.PHONY: test-firecracker
test-firecracker: ## The suite on Firecracker, in a host in a box (FIRECRACKER_BIN and JAILER_BIN name the programs)
	@scripts/prerequisites.sh test
	@scripts/firecracker.sh box

.PHONY: test-firecracker-here
test-firecracker-here: ## The suite on Firecracker, on this host, as root with KVM
	@scripts/prerequisites.sh test
	@scripts/firecracker.sh here

.PHONY: bench
bench: ## Measure, each figure beside its floor
	@scripts/prerequisites.sh run
	@scripts/build.sh release
	@exec target/release/rds bench

.PHONY: dist
dist: ## The release in target/dist: archive, bill of materials, clients, checksums
	@scripts/prerequisites.sh dist
	@scripts/dist.sh
